"""Whatever goes wrong is one line on standard error."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import COMMAND, refused

from bitnet_lut.cli import main
from bitnet_lut.cli.parser import COMMANDS
from bitnet_lut.convert.synth import synthesize


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "tiny.gguf"
    synthesize(path, "tiny")
    return path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "command"),
        (["fly"], "'fly'"),
        (["run", "-m", "absent.gguf", "prompt"], "absent.gguf: no such file or folder"),
        (["inspect", "absent.gguf"], "absent.gguf: no such file or folder"),
        (["inspect", "."], "config.json"),
        (["tokenize", "absent.gguf", "text"], "absent.gguf: No such file or directory"),
        (["run", "-m", "TINY", "-n", "0", "prompt"], "'0' is not a positive whole number"),
        (["run", "-m", "TINY", "--threads", "9" * 20, "prompt"], "too large, the most is 2147483"),
        (["run", "-m", "TINY", "--context", "9" * 5000, "prompt"], "too large, the most is 214748"),
        (["run", "-m", "TINY", "--context", "2147483647", "prompt"], "context is 2147483647"),
        (["run", "-m", "TINY", "--tiles", "1x1=1,1," + "9" * 5000, "x"], "is not of the form ROWS"),
        (["run", "-m", "TINY", "--isa", "mmx", "prompt"], "'mmx'"),
        (["run", "-m", "TINY", "--context", "10000", "prompt"], "10000"),
        (["run", "-m", "TINY", "--context", "4", "a long prompt"], "the context holds 4"),
        (["run", "-m", "TINY", "--temperature", "-1", "prompt"], "temperature is -1.0"),
        (["run", "-m", "TINY", "--tiles", "1x1", "prompt"], "'1x1' is not of the form ROWSxCOLS"),
        (["tokenize", "TINY", "--ids", "1 x"], "'x'"),
        (["tokenize", "TINY", "--ids", "512"], "512"),
        (["synth", "--shape", "huge", "-o", "x.gguf"], "'huge'"),
        (["synth", "--shape", "3b", "-o", "x.gguf"], "token_embd.weight cannot be of type q6_k"),
        (["synth", "-o", "absent/x.gguf"], "absent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_line(tiny, tmp_path, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in refused(capsys, *(tiny if word == "TINY" else word for word in arguments))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"x = (\n", r"SyntaxError: '\(' was never closed \(kernel\.py, line 1\)"),
        (b"GGUF\0\1\2\xff", "SyntaxError|ValueError"),
        (b"\n1 / 0\n", r"kernel\.py, line 2: ZeroDivisionError: division by zero"),
        (b"raise SystemExit(0)\n", r"kernel\.py, line 1: SystemExit"),
    ],
)
def test_a_file_of_kernels_that_does_not_run_is_an_error(tmp_path, capsys, source, expected):
    path = tmp_path / "kernel.py"
    path.write_bytes(source)
    assert re.search(expected, refused(capsys, "kernels", "--load", path))


def test_a_folder_is_no_file_of_kernels(tmp_path, capsys):
    assert "not a regular file" in refused(capsys, "kernels", "--load", tmp_path)


def closed(*descriptors: int):
    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return close


@pytest.mark.skipif(os.name != "posix", reason="needs descriptors that a child inherits")
def test_closed_streams(tiny):
    run = [*COMMAND, "run", "-m", str(tiny), "-n", "2"]
    done = subprocess.run([*run, "The"], stderr=subprocess.PIPE, preexec_fn=closed(1))
    assert (done.returncode, done.stderr) == (2, b"bitnet-lut: error: standard output is closed\n")
    done = subprocess.run([*run, "The"], stdout=subprocess.PIPE, preexec_fn=closed(2))
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    done = subprocess.run([*run, "-"], stderr=subprocess.PIPE, preexec_fn=closed(0))
    assert done.returncode == 2
    assert done.stderr.startswith(b"bitnet-lut: error: no prompt")
    assert subprocess.run([*run, "The"], preexec_fn=closed(0, 1, 2)).returncode == 2


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupt(options):
        raise KeyboardInterrupt

    monkeypatch.setattr("bitnet_lut.cli.info.execute", interrupt)
    assert main(["info"]) == 130
    assert capsys.readouterr() == ("", "bitnet-lut: interrupted\n")


@pytest.mark.parametrize("module", ["numpy", "argparse", "bitnet_lut.model"])
def test_ctrl_c_while_modules_are_imported_is_one_line(module):
    """Ctrl-C in the first moments comes during an import, here at the start of a module."""
    script = (
        "import runpy, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.modules.pop('argparse', None)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "sys.argv = ['bitnet-lut', 'run', 'The']\n"
        "runpy.run_module('bitnet_lut', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert (done.returncode, done.stderr) == (130, b"bitnet-lut: interrupted\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_output_that_cannot_be_written_is_one_line():
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*COMMAND, "info"], stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert done.stderr.startswith(b"bitnet-lut: error: No space left")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_threads_that_do_not_fit_the_memory_are_one_line():
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))

    done = subprocess.run(
        [*COMMAND, "run", "--threads=2000", "The"],
        capture_output=True,
        preexec_fn=limit,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(b"bitnet-lut: error: ")


@pytest.mark.skipif(os.name != "posix", reason="the helper programs are those of POSIX")
def test_no_helper_program_is_started():
    script = (
        "import subprocess, os\n"
        "def refuse(*_, **__): raise AssertionError('a program was started')\n"
        "subprocess.Popen.__init__ = os.posix_spawn = os.fork = refuse\n"
        "from bitnet_lut.cli import main\n"
        "from bitnet_lut.bench.machine import machine\n"
        "assert main(['info']) == main(['run', '-n', '2', 'The']) == 0\n"
        "print(machine())"
    )
    environment = os.environ | {"BITNET_LUT_ISA": "scalar"}  # which needs no self-test
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment)
    assert (done.returncode, done.stderr.count(b"Traceback")) == (0, 0), done.stderr


def test_every_help_has_an_example(capsys):
    for command in (*COMMANDS, "kernels test", "kernels bench", ""):
        with pytest.raises(SystemExit) as stop:
            main([*command.split(), "--help"])
        assert stop.value.code == 0
        assert f"example: bitnet-lut {command}" in " ".join(capsys.readouterr().out.split())


def test_a_damaged_file_is_an_error_of_run(golden, capsys):
    path = golden / "malformed" / "truncated_data.gguf"
    assert "blk.0.ffn_down.weight" in refused(capsys, "run", "-m", path, "prompt")
