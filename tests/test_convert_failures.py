"""Conversions that fail, are interrupted or need much memory, and the command line."""

import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hf_folder import HFFolder
from model_files import QUERY, rewritten

from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.cli import main
from bitnet_lut.convert import convert
from bitnet_lut.errors import FormatError
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.formats.gguf_writer import GGUFWriter
from bitnet_lut.formats.safetensors_writer import SafetensorsWriter

BITNET = "bitnet-b1.58/model-i2_s.gguf"
COMMAND = [sys.executable, "-m", "bitnet_lut", "convert"]


@pytest.fixture(params=["i2_s", "hf"])
def type(request):
    return request.param


@pytest.fixture
def output(tmp_path):
    """A folder that must hold nothing but the result after a test, or nothing at all."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    return folder / "out"


def nothing_beside(output):
    return [path.name for path in output.parent.iterdir() if path != output] == []


# Failures


class Stop(Exception):
    pass


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
def test_an_interruption_leaves_nothing(golden, output, type, error, share):
    def stop(done, total):
        if done >= share * total:
            raise error

    with pytest.raises(error):
        convert(golden / BITNET, output, type=type, progress=stop)
    if share < 1:
        assert not output.exists()
    assert nothing_beside(output)


def test_an_old_file_stays_until_the_new_one_is_complete(golden, output):
    output.write_bytes(b"precious")

    def stop(done, total):
        raise Stop

    with pytest.raises(Stop):
        convert(golden / BITNET, output, progress=stop)
    assert output.read_bytes() == b"precious"
    convert(golden / BITNET, output)
    assert output.read_bytes()[:4] == b"GGUF"
    assert nothing_beside(output)


@pytest.mark.parametrize("limit", [10_000, 300_000, 700_000])
def test_a_full_disk_is_a_clear_error(golden, output, type, limit):
    """A limit to the size of files fails in the same places as a disk with that much room."""
    done = subprocess.run(
        [*COMMAND, str(golden / BITNET), "-o", str(output), "--type", type],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert re.fullmatch(
        rf"bitnet-lut: error: {output}: File too large: the result takes [\d,]+ bytes, "
        rf"[\d,]+ were free in {output.parent}\n",
        done.stderr,
    )
    assert not output.exists()
    assert nothing_beside(output)


def test_a_real_full_disk(golden, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("NO FULL DISK IS TRIED: a tmpfs cannot be mounted")
    try:
        (disk / "ballast").write_bytes(bytes(100_000))
        with pytest.raises(OSError, match=r"No space left on device: the result takes") as found:
            convert(golden / BITNET, disk / "out")
        assert found.value.errno == errno.ENOSPC
        assert [path.name for path in disk.iterdir()] == ["ballast"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("writer", [GGUFWriter, SafetensorsWriter])
def test_a_disk_that_fills_up_while_writing(golden, output, monkeypatch, writer):
    def write(self, name, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer, "write", write)
    type = "hf" if writer is SafetensorsWriter else "tq2_0"
    with pytest.raises(OSError, match=r"No space left on device: the result takes [\d,]+ bytes"):
        convert(golden / BITNET, output, type=type)
    assert not output.exists()
    assert nothing_beside(output)


def test_too_little_room_is_seen_before_anything_is_written(golden, output, monkeypatch, type):
    usage = shutil.disk_usage(output.parent)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="1,000 were free") as found:
        convert(golden / BITNET, output, type=type)
    assert found.value.filename == str(output)
    assert nothing_beside(output)


def test_other_errors_of_the_disk_stay_what_they_are(golden, output, monkeypatch):
    def write(self, name, data):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(GGUFWriter, "write", write)
    with pytest.raises(OSError, match="Input/output error"):
        convert(golden / BITNET, output)


def test_what_does_not_read_back_is_not_kept(golden, output, monkeypatch):
    written = GGUFWriter.write

    def damage(self, name, data):
        data = np.array(data)
        if name == QUERY and data.size > 100:
            data[7] ^= 0x44  # exchanges weights -1 and 0, or +1 and a code that no writer makes
            data[7] &= ~(data[7] & (data[7] >> 1) & 0x55)
        written(self, name, data)

    monkeypatch.setattr(GGUFWriter, "write", damage)
    with pytest.raises(FormatError, match="the ternary weights read back with the hash"):
        convert(golden / BITNET, output)
    assert not output.exists()
    assert nothing_beside(output)


def test_a_terminated_conversion_leaves_no_half_file_under_its_name(tmp_path, output):
    source = tmp_path / "in.gguf"
    assert main(["synth", "--shape", "tiny", "-o", str(source)]) == 0
    script = (
        "import os, signal, sys; from bitnet_lut.convert import convert\n"
        "kill = lambda done, total: done > total // 2 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "convert(*sys.argv[1:], type='tq2_0', progress=kill)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(source), str(output)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not output.exists()


# Places


def test_outputs_that_cannot_be(golden, tmp_path):
    source = shutil.copy(golden / BITNET, tmp_path / "in.gguf")
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    for output, type, error, message in (
        (tmp_path / "no/out", "i2_s", FileNotFoundError, "there is no such folder"),
        (source, "tq2_0", ValueError, "this is the source"),
        (full, "i2_s", IsADirectoryError, "it is a folder, not a file"),
        (full, "hf", FileExistsError, "it exists, and is not an empty folder"),
        (source, "hf", ValueError, "this is the source"),
        (full / "file", "hf", FileExistsError, "it exists, and is not an empty folder"),
    ):
        with pytest.raises(error, match=message):
            convert(source, output, type=type)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "in.gguf"]
    (full / "file").unlink()
    convert(source, full, type="hf")
    assert (full / "config.json").is_file()
    convert(full, tmp_path / "back.gguf")


def test_sources_that_cannot_be(golden, tmp_path, output):
    for source, error in ((tmp_path / "no.gguf", OSError), (tmp_path, FormatError)):
        with pytest.raises(error):
            convert(source, output)
    data = np.frombuffer((golden / BITNET).read_bytes(), np.uint8)
    with GGUFFile(golden / BITNET) as file:
        info = file.tensors[QUERY]
    damaged = np.array(data[info.offset : info.offset + info.span])
    damaged[5] |= 0xC0  # code 3
    changes = {QUERY: (info.shape, info.type_id, damaged)}
    source = rewritten(golden / BITNET, tmp_path / "in.gguf", changes=changes)
    with pytest.raises(FormatError, match=rf"in.gguf: tensor '{QUERY}': a weight has code 3"):
        convert(source, output)
    assert nothing_beside(output)


def test_shapes_that_do_not_suit_a_type(golden, output, tmp_path):
    source = golden / "ik-bn/model-i2_s.gguf"  # rows of 128
    for options, message in (
        ({"type": "tq2_0"}, r"'blk.0.attn_q.weight': columns of TQ2_0 must be a multiple of 256"),
        ({"type": "tq1_0"}, r"columns of TQ1_0 must be a multiple of 256, not 128"),
        ({"head": "q6_k"}, r"'token_embd.weight': q6_k holds blocks of 256 weights, a row has 128"),
    ):
        with pytest.raises(FormatError, match=message):
            convert(source, output, **options)
    assert nothing_beside(output)
    folder = HFFolder(golden / "bitnet-b1.58/hf-master-bf16", tmp_path / "odd")
    folder.settings["intermediate_size"] = 510
    for name, tensor in folder.tensors.items():
        axis = tensor.shape.index(512) if 512 in tensor.shape else None
        if axis is not None:
            folder.tensors[name] = np.delete(tensor, [0, 1], axis)
    with pytest.raises(FormatError, match=r"has 510 rows: packed weights of transformers need"):
        convert(folder.save(), output, type="hf")
    convert(folder.save(), output, type="f16")


def test_tensors_that_the_model_does_not_use_are_named(golden, tmp_path, output):
    extra = {"other.weight": ((2, 2), 0, np.zeros(16, np.uint8))}
    source = rewritten(golden / BITNET, tmp_path / "in.gguf", changes=extra)
    done = convert(source, output)
    assert done.warnings == ("tensors that the model does not use are left out: other.weight",)


# Memory


def peak(*arguments: str) -> int:
    """Most memory of a conversion, in bytes."""
    script = (
        "import resource, sys; from bitnet_lut.cli import main; code = main(sys.argv[1:])\n"
        "print('peak', 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    )
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize("type", ["tq2_0", "hf"])
def test_memory_does_not_grow_with_the_model(golden, tmp_path, type):
    """An embedding of 512 MB, for which the file has a hole, must not be in memory at once."""
    rows, cols = 2**18, 256
    tokens = [f"<{i}>" for i in range(rows - 640)]
    with GGUFFile(golden / BITNET) as file:
        tensors = dict(file.tensors)
        embedding = tensors.pop("token_embd.weight")
        table = [(t.name, t.shape, t.type_id, t.span) for t in tensors.values()]
        old = file.metadata["tokenizer.ggml.tokens"]
        types = np.concatenate(
            [file.metadata["tokenizer.ggml.token_type"], np.full(len(tokens), 5, np.int32)]
        )
        vocabulary = {"tokens": [*old, *tokens], "token_type": types}
        metadata = {**file.metadata, "bitnet-b1.58.vocab_size": rows}
        metadata |= {f"tokenizer.ggml.{key}": value for key, value in vocabulary.items()}
        nbytes = rows * cols * 2
        table.append((embedding.name, (rows, cols), embedding.type_id, nbytes))
        path = tmp_path / "in.gguf"
        with GGUFWriter(path, metadata, table) as writer:
            for info in tensors.values():
                writer.write(info.name, file.data(info.name, info.span))
            for _ in range(8):
                writer.write(embedding.name, np.zeros(nbytes // 8, np.uint8))
    small = peak("convert", str(golden / BITNET), "-o", str(tmp_path / "small"), "--type", type)
    large = peak("convert", str(path), "-o", str(tmp_path / "large"), "--type", type)
    assert large - small < 300 * 2**20


@pytest.mark.parametrize("source", [BITNET, "bitnet-b1.58/hf-packed"])
def test_views_outlive_a_release(golden, source):
    with open_checkpoint(golden / source) as checkpoint:
        view = checkpoint.stored("token_embd.weight").raw(slice(None))
        before = view.copy()
        checkpoint.release()
        np.testing.assert_array_equal(view, before)
    with open_checkpoint((golden / BITNET).read_bytes()) as checkpoint:
        checkpoint.release()  # there is nothing to give back


# The command line


def test_the_command(golden, output, capsys):
    master = golden / "bitnet-b1.58/hf-master-bf16"
    assert main(["convert", str(master), "-o", str(output), "--type", "tq2_0"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert re.match(rf"{output}: [\d,]+ bytes of tensors\nternary weights: sha256 ", said.out)
    assert "scales: 21 rounded\n  blk.0.attn_q.weight: 0.10019598 -> 0.10021973, " in said.out


def test_the_command_repairs(golden, output, tmp_path, capsys):
    (tmp_path / "template").write_text("{{ x }}", encoding="utf-8")
    repairs = ["--pre-tokenizer", "qwen2", "--chat-template", str(tmp_path / "template")]
    repairs += ["--activation", "silu", "--arch", "bitnet", "--head", "q8_0"]
    assert main(["convert", str(golden / BITNET), "-o", str(output), *repairs]) == 0
    with GGUFFile(output) as file:
        assert file.metadata["bitnet.hidden_activation"] == "silu"
        assert file.metadata["tokenizer.ggml.pre"] == "qwen2"
        assert file.metadata["tokenizer.chat_template"] == "{{ x }}"
        assert file.tensors["token_embd.weight"].type_id == 8
    assert "token_embd.weight: f16 -> q8_0" in capsys.readouterr().out


def test_the_command_warns_on_standard_error(golden, output, capsys):
    assert main(["convert", str(golden / "qwen2-plain/model-q8_0.gguf"), "-o", str(output)]) == 0
    said = capsys.readouterr()
    assert said.err.startswith(
        "bitnet-lut: warning: this model was probably not trained to be ternary"
    )
    assert "real values: 14 linear layers rounded to ternary weights by absmean" in said.out


def test_the_command_fails_in_one_line(golden, output, capsys):
    source = str(golden / BITNET)
    for arguments, message in (
        ([source, "-o", str(Path("/no/such/out"))], "/no/such: there is no such folder"),
        ([source, "-o", source], f"{source}: this is the source; choose another name"),
        ([source, "-o", str(output), "--head", "q6_k", "--type", "hf"], "head is for GGUF files"),
        ([source, "-o", str(output), "--chat-template", "/no"], "/no: No such file or directory"),
    ):
        assert main(["convert", *arguments]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith(f"bitnet-lut: error: {message}")
        assert said.err.count("\n") == 1
    assert nothing_beside(output)
