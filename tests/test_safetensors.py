import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from bitnet_lut.errors import FormatError
from bitnet_lut.formats.safetensors import SafetensorsFile, open_folder

FOLDERS = ["bitnet-b1.58/hf-packed", "bitnet-b1.58/hf-master-bf16", "llama-1.58/hf-packed"]


def written(path, header, data=b"", *, header_bytes=None):
    """A file with any header: a dict, or bytes as they are."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if header_bytes is None else header_bytes
    path.write_bytes(struct.pack("<Q", size) + text + data)
    return path


def entry(shape=(2,), offsets=(0, 8), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize("folder", FOLDERS)
def test_golden_tensors_equal_those_of_the_library(golden, folder):
    path = golden / folder / "model.safetensors"
    ours = SafetensorsFile(path)
    raw = path.read_bytes()
    with safe_open(path, "numpy") as theirs:
        assert set(ours.tensors) == set(theirs.keys())
        for name, info in ours.tensors.items():
            view = theirs.get_slice(name)
            assert info.dtype == view.get_dtype()
            assert list(info.shape) == view.get_shape()
            assert ours.raw(name).tobytes() == raw[info.offset : info.offset + info.nbytes]
            if info.dtype != "BF16":  # NumPy has none, so the library refuses
                np.testing.assert_array_equal(ours.array(name), theirs.get_tensor(name))


@pytest.mark.parametrize(
    "dtype", ["?", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8"]
)
def test_every_type_of_numpy(tmp_path, dtype):
    path = tmp_path / "model.safetensors"
    arrays = {
        "matrix": np.arange(6).reshape(2, 3).astype(dtype),
        "scalar": np.array(1, dtype),
        "empty": np.zeros((0, 4), dtype),
    }
    save_file(arrays, path, metadata={"format": "np"})
    ours = SafetensorsFile(path)
    for name, array in load_file(path).items():
        np.testing.assert_array_equal(ours.array(name), array, strict=True)
        assert not ours.array(name).flags.writeable


def test_bf16_is_widened(tmp_path):
    bits = np.array([0x3F80, 0xC000, 0x7F80, 0x0001], "<u2")
    path = written(tmp_path / "a", {"t": entry((2, 2), (0, 8), "BF16")}, bits.tobytes())
    values = SafetensorsFile(path).array("t")
    np.testing.assert_array_equal(values, np.float32([[1, -2], [np.inf, 2**-133]]), strict=True)


# Hostile files

HOSTILE = {
    "not JSON": (b"{", "not valid JSON"),
    "not UTF-8": (b'{"\xff": 1}', "not valid JSON"),
    "not an object": (b"[1]", "not a JSON object"),
    "nested too deep": (b"[" * 100_000, "not valid JSON"),
    "huge number": (b'{"t": ' + b"9" * 10_000 + b"}", "not valid JSON"),
    "name twice": (b'{"t": {}, "t": {}}', "'t' appears twice"),
    "entry is no object": ({"t": 3}, "unsupported dtype 'None'"),
    "unknown dtype": ({"t": entry(dtype="F7")}, "unsupported dtype 'F7'"),
    "dtype is a list": ({"t": entry(dtype=["F32"])}, "unsupported dtype"),
    "negative dimension": ({"t": entry((-2, -1))}, r"bad shape \[-2, -1\]"),
    "boolean dimension": ({"t": entry((True, 2))}, "bad shape"),
    "float dimension": ({"t": entry((2.0,))}, "bad shape"),
    "too many dimensions": ({"t": entry((2, *[1] * 8))}, "bad shape"),
    "product overflows": ({"t": entry((2**62, 2**62))}, "takes 8507059173"),
    "empty and huge": ({"t": entry((0, 2**62), (0, 0))}, r"bad shape \[0, 4611686018427387904\]"),
    "three offsets": ({"t": entry(offsets=(0, 8, 8))}, "bad data_offsets"),
    "negative offset": ({"t": entry(offsets=(-8, 0))}, "bad data_offsets"),
    "reversed offsets": ({"t": entry(offsets=(8, 0))}, r"takes 8 bytes, .* \[8, 0\]"),
    "size of another shape": ({"t": entry((3,))}, "takes 12 bytes"),
    "past the end": ({"t": entry((4,), (0, 16))}, "tensors end at byte .*truncated or damaged"),
    "gap at the start": ({"t": entry((1,), (4, 8))}, "starts at byte .* ends at"),
    "rest unused": ({"t": entry((1,), (0, 4))}, "tensors end at byte"),
    "overlap": ({"t": entry(), "u": entry()}, "starts at byte"),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_hostile_headers_are_refused(tmp_path, fault):
    header, message = HOSTILE[fault]
    path = written(tmp_path / "hostile.safetensors", header, bytes(8))
    with pytest.raises(FormatError, match=message) as error:
        SafetensorsFile(path)
    assert str(error.value).startswith(str(path))
    assert len(str(error.value)) < 500 + len(str(path))


@pytest.mark.parametrize("size", [3, 2**40, 2**63, 2**64 - 1])
def test_lying_header_sizes_are_refused(tmp_path, size):
    path = written(tmp_path / "a", {"t": entry()}, bytes(8), header_bytes=size)
    with pytest.raises(FormatError, match=r"does not fit|not valid JSON"):
        SafetensorsFile(path)


@pytest.mark.parametrize("size", range(8))
def test_tiny_files_are_refused(tmp_path, size):
    path = tmp_path / "a"
    path.write_bytes(bytes(size))
    with pytest.raises(FormatError, match=f"{size} bytes are not a safetensors file"):
        SafetensorsFile(path)


@given(data=st.data())
def test_damaged_files_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "a"
    whole = bytearray(
        written(path, {"t": entry(), "u": entry((2,), (8, 10), "U8")}, bytes(10)).read_bytes()
    )
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        file = SafetensorsFile(path)
    except FormatError:
        return
    for name in file.tensors:
        file.array(name)


# Folders


def shards(folder, weight_map):
    save_file({"a": np.zeros(2, np.float32)}, folder / "one.safetensors")
    save_file({"b": np.ones(2, np.float32)}, folder / "two.safetensors")
    index = {"metadata": {"total_size": 16}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_shards_are_joined(tmp_path):
    files = open_folder(shards(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"}))
    assert {name: file.array(name)[0] for name, file in files.items()} == {"a": 0, "b": 1}


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ("../one.safetensors", "is not the name of a safetensors file"),
        ("/etc/one.safetensors", "is not the name of a safetensors file"),
        ("..\\one.safetensors", "is not the name of a safetensors file"),
        ("one\0.safetensors", "is not the name of a safetensors file"),
        ("config.json", "is not the name of a safetensors file"),
        (7, "is not the name of a safetensors file"),
        ("three.safetensors", "three.safetensors, which .* names, is missing"),
        ("two.safetensors", "tensor 'a' of .* is missing"),
    ],
)
def test_hostile_indices_are_refused(tmp_path, shard, message):
    with pytest.raises(FormatError, match=message):
        open_folder(shards(tmp_path, {"a": shard}))


def test_folders_without_weights_are_refused(tmp_path):
    with pytest.raises(
        FormatError,
        match=r"model\.safetensors and .*json are both missing",
    ):
        open_folder(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(FormatError, match="weight_map is missing"):
        open_folder(tmp_path)
