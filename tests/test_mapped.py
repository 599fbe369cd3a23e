"""Models read into memory, and files that change while they are read."""

import errno
import mmap
import os
import shutil
from pathlib import Path

import pytest
from compare import assert_same_bits

from bitnet_lut import FormatError, Model, huge_pages
from bitnet_lut.demo import MODEL

PROMPT = "The capital of France is"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return Path(shutil.copy(MODEL, tmp_path / "model.gguf"))


def test_a_model_in_memory_outlives_its_file(file: Path) -> None:
    with Model(MODEL, threads=1, kernel="i2_s", mmap=True) as plain:
        expected = plain.generate(PROMPT)
        assert plain.info.mapped_bytes > 0
    model = Model(file, threads=1, kernel="i2_s", mmap=False)
    assert model.info.mapped_bytes == 0
    os.truncate(file, 100)  # a mapped model would end this process at its next step
    found = model.generate(PROMPT)
    assert (found.text, found.ids) == (expected.text, expected.ids)


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("kernel", ["i2_s", "tl5"])
def test_what_is_multiplied_is_copied_where_that_helps(
    monkeypatch: pytest.MonkeyPatch, kernel: str, copied: bool
) -> None:
    monkeypatch.setattr("bitnet_lut.huge_pages.available", lambda: copied)
    mapped = Model(MODEL, threads=1, kernel=kernel, mmap=True)
    model = Model(MODEL, threads=2, kernel=kernel)
    in_place = sum(mapped.info.weight_bytes.values()) - mapped.info.weight_bytes["vectors"]
    assert model.info.mapped_bytes == (0 if copied else mapped.info.mapped_bytes)
    assert model.info.weight_bytes == mapped.info.weight_bytes
    if kernel == "i2_s":
        assert mapped.info.mapped_bytes == in_place
    assert_same_bits(model.forward([1, 2, 3]), mapped.forward([1, 2, 3]))


def test_nothing_is_copied_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitnet_lut.huge_pages.available", lambda: True)
    mapped = Model(MODEL, threads=1, kernel="i2_s", mmap=True).info.mapped_bytes
    for free, expected in ((2 * mapped, 0), (mapped, mapped), (None, mapped)):
        monkeypatch.setattr("bitnet_lut.runtime.packing.available_memory", lambda free=free: free)
        assert Model(MODEL, threads=1, kernel="i2_s").info.mapped_bytes == expected


@pytest.mark.parametrize(
    ("setting", "expected"), [("always [madvise] never", True), ("always madvise [never]", False)]
)
def test_what_the_system_says_of_huge_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, expected: bool
) -> None:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        pytest.skip("a system without MADV_HUGEPAGE")
    (tmp_path / "enabled").write_text(setting + "\n")
    monkeypatch.setattr("bitnet_lut.huge_pages._SETTING", tmp_path / "enabled")
    assert huge_pages.available() is expected
    monkeypatch.setattr("bitnet_lut.huge_pages._SETTING", tmp_path / "missing")
    assert not huge_pages.available()


@pytest.mark.parametrize("mapped", [None, True, False])
def test_a_file_that_grows_while_it_is_read(file: Path, mapped: bool | None) -> None:
    def change(done: int, total: int) -> None:
        with file.open("ab") as more:
            more.write(b"\0")

    with pytest.raises(FormatError, match=r"model\.gguf"):
        Model(file, threads=1, mmap=mapped, progress=change)


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
