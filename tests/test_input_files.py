"""Inputs other than regular files are refused at once; files that change meanwhile are noticed."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.cli import main
from bitnet_lut.convert import convert
from bitnet_lut.errors import FormatError
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.formats.input import InputFile, read_bytes, read_text
from bitnet_lut.formats.safetensors import SafetensorsFile
from bitnet_lut.text.tokenizer import Tokenizer

BITNET = "bitnet-b1.58/model-i2_s.gguf"
FOLDER = "bitnet-b1.58/hf-packed"
MASTERS = "bitnet-b1.58/hf-master-bf16"


def pipe(path):
    os.mkfifo(path)


def listening(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(path))


def device(path):
    path.symlink_to("/dev/zero")


def folder(path):
    path.mkdir()


KINDS = {pipe: "a pipe", listening: "a socket", device: "a device", folder: "a folder"}


@pytest.fixture(params=KINDS)
def irregular(request, tmp_path, monkeypatch):
    """Makes something of one kind at a path; returns what an error calls it."""
    monkeypatch.chdir(tmp_path)  # the names of sockets must be short

    def make(path):
        request.param(path)
        return f"{KINDS[request.param]}, not a regular file"

    return make


@pytest.mark.parametrize("read", [InputFile, read_bytes, read_text, GGUFFile, SafetensorsFile])
def test_readers_refuse_what_is_no_regular_file(tmp_path, irregular, read):
    path = tmp_path / "x"
    said = irregular(path)
    with pytest.raises(FormatError, match=said) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_folders_with_what_is_no_regular_file(golden, tmp_path, irregular, name):
    path = tmp_path / "m"
    shutil.copytree(golden / FOLDER, path)
    (path / name).unlink()
    said = irregular(path / name)
    with pytest.raises(FormatError, match=rf"{name}: {said}"):
        open_checkpoint(path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json"])
def test_vocabularies_in_what_is_no_regular_file(golden, tmp_path, irregular, name):
    path = tmp_path / "m"
    path.mkdir()
    shutil.copy(golden / "tokenizers/llama-bpe.tokenizer.json", path / "tokenizer.json")
    (path / name).unlink(missing_ok=True)
    said = irregular(path / name)
    with pytest.raises(FormatError, match=rf"{name}: {said}"):
        Tokenizer.from_folder(path)


def test_shards_and_indices_that_are_no_regular_files(tmp_path, irregular):
    path = tmp_path / "m"
    path.mkdir()
    said = irregular(path / "model.safetensors.index.json")
    (path / "config.json").write_text("{}")
    from bitnet_lut.formats.safetensors import open_folder

    with pytest.raises(FormatError, match=said):
        open_folder(path)


def test_the_command_line_does_not_wait_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "model.gguf")
    for command in (["run", "-m", "model.gguf", "Hi"], ["convert", "model.gguf", "-o", "out"]):
        done = subprocess.run(
            [sys.executable, "-m", "bitnet_lut", *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2
        assert done.stderr == "bitnet-lut: error: model.gguf: a pipe, not a regular file\n"


def test_small_files(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"a\xff")
    assert read_bytes(path) == b"a\xff"
    with pytest.raises(FormatError, match="not UTF-8 at byte 1"):
        read_text(path)
    os.truncate(path, 2**28 + 1)
    with pytest.raises(FormatError, match="268435457 bytes, more than the 268435456 supported"):
        read_bytes(path)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "none")


# Files that change


def test_reads_of_a_file_that_was_shortened(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(range(100)))
    file = InputFile(path)
    assert file.read(90, 10).tolist() == list(range(90, 100))
    file.check_unchanged()
    os.truncate(path, 95)
    with pytest.raises(FormatError, match="ends at byte 95, but had 100 when it was opened"):
        file.read(90, 10)
    with pytest.raises(FormatError, match="has 95 bytes and had 100 when it was opened"):
        file.check_unchanged()


def test_a_file_that_was_written_to_is_told(golden, tmp_path):
    path = Path(shutil.copy(golden / BITNET, tmp_path))
    with open_checkpoint(path) as checkpoint:
        checkpoint.check_unchanged()
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        with pytest.raises(FormatError, match="was written to since it was opened"):
            checkpoint.check_unchanged()


@pytest.mark.parametrize("source", [BITNET, FOLDER, MASTERS, "qwen2-plain/model-q4_0.gguf"])
def test_what_is_read_is_what_is_mapped(golden, source):
    with (
        open_checkpoint(golden / source) as one,
        open_checkpoint(golden / source, mapped=False) as two,
    ):
        for name in one.nbytes:
            if name.endswith(("norm.weight", "bias")):
                np.testing.assert_array_equal(one.vector(name), two.vector(name))
                continue
            stored = one.stored(name)
            if stored is not None:
                for part in (slice(None), slice(3, 9), slice(5, None), slice(2, 2)):
                    there = two.stored(name)[part]
                    np.testing.assert_array_equal(stored[part], there)
            a, b = one.matrix(name), two.matrix(name)
            for field in ("packed", "data", "scale"):
                if hasattr(a, field):
                    np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


@pytest.mark.parametrize("type", ["tq2_0", "hf"])
@pytest.mark.parametrize("source", [BITNET, f"{FOLDER}/model.safetensors"])
def test_a_source_that_is_shortened_meanwhile(golden, tmp_path, source, type):
    """In a process of its own, which a mapped file would end by SIGBUS."""
    file = tmp_path / source
    shutil.copytree((golden / source).parent, file.parent)
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    script = (
        "import os, sys; from bitnet_lut.convert import convert\n"
        "file, source, output, type = sys.argv[1:]\n"
        "shorten = lambda done, total: os.truncate(file, 5000)\n"
        "try: convert(source, output, type=type, progress=shorten)\n"
        "except ValueError as error: print(error)"
    )
    model = file if file.suffix == ".gguf" else file.parent
    arguments = [str(file), str(model), str(outputs / "out"), type]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "something shortened it" in done.stdout
    assert str(file) in done.stdout
    assert list(outputs.iterdir()) == []


def test_a_source_that_is_written_to_meanwhile(golden, tmp_path):
    source = shutil.copy(golden / BITNET, tmp_path)
    outputs = tmp_path / "outputs"
    outputs.mkdir()

    def touch(done, total):
        os.utime(source, ns=(0, 0))

    with pytest.raises(FormatError, match="was written to since it was opened"):
        convert(source, outputs / "out", progress=touch)
    assert list(outputs.iterdir()) == []


def test_a_chat_template_in_a_pipe(golden, tmp_path, capsys):
    os.mkfifo(tmp_path / "template")
    command = ["convert", str(golden / BITNET), "-o", str(tmp_path / "out")]
    assert main([*command, "--chat-template", str(tmp_path / "template")]) == 2
    assert capsys.readouterr().err.endswith("template: a pipe, not a regular file\n")
