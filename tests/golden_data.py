"""Where the reference data is: ../shared/golden, or else what tests/data holds of it."""

import atexit
import hashlib
import json
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

SHARED = Path(__file__).resolve().parents[2] / "shared" / "golden"
DATA = Path(__file__).with_name("data")

Bytes = NDArray[np.uint8]


def _predict(data: Bytes, tensor: dict[str, Any]) -> Bytes:
    """The bytes of a tensor in a file, from those of the same tensor in another format, *data*."""
    from bitnet_lut.formats import hf, i2_s, tl2, tq1_0, tq2_0  # not before a fuzzer has hooks

    rows, cols = tensor["shape"]
    codec = tensor["codec"]
    if codec == "bf16":
        values = data[: 2 * rows * cols].view(np.float16).astype(np.float32)
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    weights, scale = i2_s.unpack(data[: i2_s.nbytes(rows, cols)], rows, cols)
    if codec == "hf":
        if heads := tensor["heads"]:  # GGUF has the rows of q and k in another order
            weights = weights.reshape(heads, -1, 2, cols).swapaxes(1, 2).reshape(rows, cols)
        return hf.pack(weights).reshape(-1)
    if codec == "tl2":
        return tl2.pack(weights, float(scale[0]), tile=tuple(tensor["tile"]))
    return {"tq1_0": tq1_0, "tq2_0": tq2_0}[codec].pack(weights, float(scale[0]))


def flipped(data: bytes, source: bytes, tensors: list[dict[str, Any]]) -> bytes:
    """*data* with every tensor XORed with what *source* predicts: its own inverse."""
    changed, base = np.frombuffer(data, np.uint8).copy(), np.frombuffer(source, np.uint8)
    for tensor in tensors:
        predicted = _predict(base[tensor["source_offset"] :], tensor)
        changed[tensor["offset"] : tensor["offset"] + predicted.size] ^= predicted
    return changed.tobytes()


def restore(folder: Path) -> None:
    """Unpack every archive of tests/data into *folder*, and check that each byte is right."""
    for archive in sorted(DATA.glob("*.tar.xz")):
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    manifest = json.loads((DATA / "manifest.json").read_text())
    for name, derived in manifest["derived"].items():
        path = folder / name
        source = (folder / derived["source"]).read_bytes()
        path.write_bytes(flipped(path.read_bytes(), source, derived["tensors"]))
    for name, expected in manifest["sha256"].items():
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert found == expected, f"tests/data: {name} was not restored as it was"


class _Folder(type(Path())):  # type: ignore[misc]
    """A folder that skips the test which asks for a file that tests/data leaves out."""

    def __truediv__(self, name: str | Path) -> Path:
        path: Path = super().__truediv__(name)
        if not path.exists():
            pytest.skip(f"{name} is not among the files of tests/data")
        return path


def _find() -> Path:
    if SHARED.is_dir():
        return SHARED
    folder = Path(tempfile.mkdtemp(prefix="bitnet_lut-golden-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    restore(folder)
    return _Folder(folder)


GOLDEN: Path = _find()
