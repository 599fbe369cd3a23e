from pathlib import Path

import gguf as peer
import numpy as np
import pytest

from bitnet_lut.formats import gguf
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.formats.gguf_writer import GGUFWriter

METADATA = {
    "general.architecture": "llama",
    "text": "naïve Ġ \n \x00",
    "true": True,
    "false": False,
    "count": 7,
    "large": 2**40,
    "negative": -3,
    "real": 0.1,
    "double": (gguf.F64, 0.1),
    "byte": (gguf.U8, 255),
    "texts": ["", "a", "漢字 and more", "x" * 1000],
    "no texts": [],
    "ints": [1, -2, 3],
    "reals": [0.5, -1.25],
    "bools": np.array([True, False]),
    "halfwords": np.arange(5, dtype=np.uint16),
    "doubles": np.linspace(0, 1, 3),
}
TENSORS = [("a", (3, 5), 0, 60), ("b.weight", (7,), 1, 14), ("c", (2, 3, 4), 24, 24)]


def write(path: Path, metadata=METADATA, tensors=TENSORS, alignment=32) -> Path:
    with GGUFWriter(path, metadata, tensors, alignment) as writer:
        for index, (name, _, _, nbytes) in enumerate(tensors):
            writer.write(name, bytes([index + 1]) * nbytes)
    return path


def equal(one, two) -> bool:
    if isinstance(one, np.ndarray) or isinstance(two, np.ndarray):
        return np.array_equal(one, two)
    return type(one) is type(two) and one == two


# Reading what was written


@pytest.mark.parametrize("from_bytes", [False, True])
@pytest.mark.parametrize("alignment", [1, 8, 32, 4096])
def test_writer_and_reader_agree(tmp_path, alignment, from_bytes):
    path = write(tmp_path / "x.gguf", alignment=alignment)
    file = GGUFFile(path.read_bytes() if from_bytes else path)
    assert file.name == ("<bytes>" if from_bytes else str(path))
    assert (file.version, file.alignment, file.size) == (3, alignment, path.stat().st_size)
    assert file.data_offset % alignment == 0
    expected = {**METADATA, "real": np.float32(0.1).item(), "double": 0.1, "byte": 255}
    if alignment != 32:
        expected["general.alignment"] = alignment
    assert list(file.metadata) == list(expected)
    assert all(equal(file.metadata[key], _as_read(expected[key])) for key in expected)
    assert [(t.name, t.shape, t.type_id) for t in file.tensors.values()] == [t[:3] for t in TENSORS]
    for index, (name, _, _, nbytes) in enumerate(TENSORS):
        info = file.tensors[name]
        assert info.offset % alignment == 0
        assert info.span == nbytes + -nbytes % alignment
        assert file.data(name, nbytes).tolist() == [index + 1] * nbytes


def _as_read(value):
    return np.array(value) if isinstance(value, list) and value and value[0] in (1, 0.5) else value


def test_value_types_are_those_asked_for(tmp_path):
    types = GGUFFile(write(tmp_path / "x.gguf")).value_types
    expected = {"count": gguf.U32, "large": gguf.U64, "negative": gguf.I32, "real": gguf.F32}
    expected |= {"double": gguf.F64, "byte": gguf.U8, "true": gguf.BOOL, "texts": gguf.ARRAY}
    assert {key: types[key] for key in expected} == expected


def test_arrays_keep_their_dtype_and_are_read_only(tmp_path):
    metadata = GGUFFile(write(tmp_path / "x.gguf")).metadata
    dtypes = {"ints": np.int32, "reals": np.float32, "bools": bool, "halfwords": np.uint16}
    for key, dtype in {**dtypes, "doubles": np.float64}.items():
        assert metadata[key].dtype == dtype
        assert not metadata[key].flags.writeable


@pytest.mark.parametrize("code", [c for c in gguf.NUMBER_CODES.values() if c != "?"])
def test_every_number_type_survives(tmp_path, code):
    dtype = np.dtype("<" + code)
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    numbers = np.array([limits.min, 0, 1, limits.max], dtype)
    scalars = {f"scalar {index}": number for index, number in enumerate(numbers)}
    metadata = {"array": numbers, "big-endian": numbers.astype(dtype.newbyteorder(">")), **scalars}
    read = GGUFFile(write(tmp_path / "x.gguf", metadata)).metadata
    assert read["array"].dtype == dtype
    assert np.array_equal(read["array"], numbers)
    assert np.array_equal(read["big-endian"], numbers)
    assert [read[key] for key in scalars] == numbers.tolist()


# The writer


def test_pieces_are_joined(tmp_path):
    with GGUFWriter(tmp_path / "x.gguf", {}, [("a", (8,), 0, 32), ("b", (1,), 0, 4)]) as writer:
        writer.write("a", np.arange(3, dtype=np.float32))
        writer.write("a", memoryview(np.arange(3, 8, dtype=np.float32)))
        writer.write("b", b"abcd")
    file = GGUFFile(tmp_path / "x.gguf")
    assert file.data("a", 32).view(np.float32).tolist() == list(range(8))
    assert file.data("b", 4).tobytes() == b"abcd"


def test_nothing_is_left_of_a_failed_file(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), GGUFWriter(path, {}, TENSORS) as writer:
        writer.write("a", bytes(1 // 0))
    writer = GGUFWriter(path, {}, TENSORS)
    writer.write("a", bytes(60))
    with pytest.raises(ValueError, match=r"'b\.weight' lacks 14 bytes"):
        writer.close()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


def test_the_writer_refuses_disorder(tmp_path):
    with pytest.raises(ValueError, match="appears twice"):
        GGUFWriter(tmp_path / "x", {}, [("a", (1,), 0, 4)] * 2)
    with pytest.raises(ValueError, match="alignment 3"):
        GGUFWriter(tmp_path / "x", {}, [], alignment=3)
    with pytest.raises(ValueError, match="'a' is empty"):
        GGUFWriter(tmp_path / "x", {}, [("a", (0, 4), 0, 4)])
    with pytest.raises(TypeError, match=r"key: .* complex"):
        GGUFWriter(tmp_path / "x", {"key": 1j}, [])
    with pytest.raises(TypeError, match=r"key: .* 2 dimensions"):
        GGUFWriter(tmp_path / "x", {"key": np.eye(2)}, [])
    with pytest.raises(ValueError, match="key: -1"):
        GGUFWriter(tmp_path / "x", {"key": (gguf.U32, -1)}, [])
    writer = GGUFWriter(tmp_path / "x", {}, TENSORS)
    with pytest.raises(ValueError, match=r"'b\.weight' written where 'a' is due"):
        writer.write("b.weight", b"")
    with pytest.raises(ValueError, match="61 bytes given, 60 are left"):
        writer.write("a", bytes(61))
    with pytest.raises(ValueError, match="lacks 60 bytes"):
        writer.close()
    assert not list(tmp_path.iterdir())


# Metadata that is known only at the end


def test_strings_can_be_amended(tmp_path):
    metadata = {"a": "b" * 8, "hash": "0" * 8, "typed": (gguf.STRING, "xyz"), "z": ["0" * 8]}
    with GGUFWriter(tmp_path / "x.gguf", metadata, TENSORS) as writer:
        for name, _, _, nbytes in TENSORS:
            writer.write(name, bytes(nbytes - 1))
            writer.amend("hash", "ü1234567"[:7])
            writer.write(name, b"!")
        writer.amend("typed", "abc")
        with pytest.raises(ValueError, match="hash: 'short' does not take the bytes of '00000000'"):
            writer.amend("hash", "short")
    file = GGUFFile(tmp_path / "x.gguf")
    expected = {"a": "b" * 8, "hash": "ü123456", "typed": "abc", "z": ["0" * 8]}
    assert dict(file.metadata) == expected
    for name, _, _, nbytes in TENSORS:
        assert file.data(name, nbytes).tobytes() == bytes(nbytes - 1) + b"!"


def test_a_disk_that_is_full_at_the_end(tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "x.gguf")
    assert not list(tmp_path.iterdir())


# The gguf package as a peer


def peer_value(field) -> object:
    return field.contents() if field.data else []


def assert_as_peer_reads(path: Path) -> None:
    theirs, ours = peer.GGUFReader(path), GGUFFile(path)
    fields = {key: f for key, f in theirs.fields.items() if not key.startswith("GGUF.")}
    assert list(ours.metadata) == list(fields)
    for key, field in fields.items():
        assert ours.value_types[key] == field.types[0], key
        value = ours.metadata[key]
        assert peer_value(field) == (value.tolist() if isinstance(value, np.ndarray) else value)
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        info = ours.tensors[tensor.name]
        assert info.shape == tuple(reversed(tensor.shape.tolist()))
        assert (info.type_id, info.offset) == (tensor.tensor_type, tensor.data_offset)
        assert np.array_equal(
            ours.data(tensor.name, tensor.n_bytes), np.asarray(tensor.data).reshape(-1).view("u1")
        )


def test_the_peer_reads_what_is_written(tmp_path):
    assert_as_peer_reads(write(tmp_path / "x.gguf"))
    assert_as_peer_reads(write(tmp_path / "y.gguf", alignment=64))


def test_what_the_peer_writes_is_read(tmp_path):
    writer = peer.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_block_count(3)
    writer.add_token_list(["a", "b", "ü"])
    writer.add_token_scores([0.5, -1.0, 2.0])
    writer.add_add_bos_token(True)
    writer.add_tensor("w", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("v", np.arange(5, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert_as_peer_reads(tmp_path / "x.gguf")


READABLE_BY_PEER = ["llama-1.58/model-tq1_0", "llama-1.58/model-tq2_0", "qwen2-plain/model-q4_0"]
READABLE_BY_PEER += ["qwen2-plain/model-q8_0", "tokenizers/llama-bpe", "tokenizers/spm"]


@pytest.mark.parametrize("name", READABLE_BY_PEER)
def test_golden_files_read_as_the_peer_reads_them(golden, name):
    assert_as_peer_reads(golden / f"{name}.gguf")
