import numpy as np
import pytest
from safetensors.numpy import load_file

from bitnet_lut.formats.safetensors import SafetensorsFile
from bitnet_lut.formats.safetensors_writer import SafetensorsWriter

TENSORS = [
    ("bytes", "U8", (3, 5)),
    ("floats", "F32", (2, 2)),
    ("one", "F32", ()),
    ("b", "F16", (3,)),
]


def data_of(shape, dtype):
    return np.arange(1, 1 + np.prod(shape, dtype=int)).astype(dtype).reshape(shape)


ARRAYS = {
    "bytes": data_of((3, 5), "u1"),
    "floats": data_of((2, 2), "<f4"),
    "one": data_of((), "<f4"),
    "b": data_of((3,), "<f2"),
}


def test_the_library_reads_what_was_written_in_pieces_and_any_order(tmp_path):
    path = tmp_path / "x.safetensors"
    with SafetensorsWriter(path, TENSORS) as writer:
        writer.write("bytes", ARRAYS["bytes"][:1])
        for name in ("one", "b", "floats"):
            writer.write(name, ARRAYS[name])
        writer.write("bytes", ARRAYS["bytes"][1:])
    assert path.stat().st_size == writer.nbytes
    found, ours = load_file(path), SafetensorsFile(path)
    assert found.keys() == ours.tensors.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        np.testing.assert_array_equal(ours.array(name), array)
        assert ours.tensors[name].offset % array.itemsize == 0


def test_misuse(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(ValueError, match="appears twice"):
        SafetensorsWriter(path, [TENSORS[0], TENSORS[0]])
    with SafetensorsWriter(path, TENSORS) as writer:
        with pytest.raises(ValueError, match="'b': 8 bytes given, 6 are left"):
            writer.write("b", bytes(8))
        for name in ARRAYS:
            writer.write(name, ARRAYS[name])
    with (
        pytest.raises(ValueError, match="x: tensor 'floats' lacks 16 bytes"),
        SafetensorsWriter(path, TENSORS) as writer,
    ):
        pass
    with pytest.raises(KeyError), SafetensorsWriter(path, TENSORS) as writer:
        writer.write("none", b"")
