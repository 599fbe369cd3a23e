"""Models read into memory, and files that change while they are read."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from bitnet_lut import FormatError, Model
from bitnet_lut.demo import MODEL

PROMPT = "The capital of France is"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return Path(shutil.copy(MODEL, tmp_path / "model.gguf"))


def test_a_model_in_memory_outlives_its_file(file: Path) -> None:
    with Model(MODEL, threads=1, kernel="i2_s") as plain:
        expected = plain.generate(PROMPT)
        assert plain.info.mapped_bytes > 0
    model = Model(file, threads=1, kernel="i2_s", mmap=False)
    assert model.info.mapped_bytes == 0
    os.truncate(file, 100)  # a mapped model would end this process at its next step
    found = model.generate(PROMPT)
    assert (found.text, found.ids) == (expected.text, expected.ids)


@pytest.mark.parametrize("mmap", [True, False])
def test_a_file_that_grows_while_it_is_read(file: Path, mmap: bool) -> None:
    def change(done: int, total: int) -> None:
        with file.open("ab") as more:
            more.write(b"\0")

    with pytest.raises(FormatError, match=r"model\.gguf"):
        Model(file, threads=1, mmap=mmap, progress=change)


def test_a_file_that_shrinks_while_it_is_read(file: Path) -> None:
    def change(done: int, total: int) -> None:
        os.truncate(file, 10_000)

    with pytest.raises(FormatError, match=r"model\.gguf"):
        Model(file, threads=1, mmap=False, progress=change)


def test_without_address_space_to_map_a_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("bitnet_lut.formats.input.mmap.mmap", refuse)
    with pytest.raises(
        MemoryError, match=rf"{file.name}: no address space to map its [\d,]+ bytes"
    ):
        Model(file)
