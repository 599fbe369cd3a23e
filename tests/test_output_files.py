"""What outputs replace, what they keep of it, and what is left of those that were not completed."""

import errno
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bitnet_lut.cli import main
from bitnet_lut.convert import convert
from bitnet_lut.convert.synth import synthesize
from bitnet_lut.formats.output import Output, scratch_folder, write_text

BITNET = "bitnet-b1.58/model-i2_s.gguf"
# No process can have this number: it is above the largest that Linux gives.
DEAD = 2**31 - 2


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=["convert", "synth", "text"])
def write(request, golden):
    """Writes a file in one of the ways there are."""

    def run(path):
        if request.param == "convert":
            convert(golden / BITNET, path, type="tq2_0")
        elif request.param == "synth":
            synthesize(path, "tiny")
        else:
            write_text(path, "x")

    return run


def is_written(path):
    return path.is_file() and path.stat().st_size > 0


# What is not replaced


def listening(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(path))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "it is a pipe, not a regular file"),
        (listening, "it is a socket, not a regular file"),
        (lambda path: path.symlink_to("/dev/null"), "it is a device, not a regular file"),
        (Path.mkdir, "it is a folder, not a file"),
    ],
)
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_regular_file_is_not_replaced(tmp_path, monkeypatch, write, make, said, linked):
    monkeypatch.chdir(tmp_path)
    path = Path("out")
    make(path)
    if linked:
        path = Path("link")
        path.symlink_to("out")
    before = path.lstat()
    with pytest.raises(OSError, match=said) as caught:
        write(path)
    assert caught.value.filename == str(path)
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert set(names(tmp_path)) <= {"link", "out"}


@pytest.mark.parametrize("command", ["convert", "synth"])
def test_a_device_stays_one(golden, command, capsys):
    source = [str(golden / BITNET)] if command == "convert" else ["--shape", "tiny"]
    assert main([command, *source, "-o", "/dev/null"]) == 2
    said = "bitnet-lut: error: /dev/null: it is a device, not a regular file\n"
    assert capsys.readouterr().err == said
    assert Path("/dev/null").is_char_device()


def test_folders_only_take_the_place_of_empty_folders(golden, tmp_path):
    target = tmp_path / "target"
    target.mkdir(mode=0o711)
    (tmp_path / "link").symlink_to("target")
    convert(golden / BITNET, tmp_path / "link", type="hf")
    assert (tmp_path / "link").is_symlink()
    assert (target / "config.json").is_file()
    assert mode(target) == 0o711
    with pytest.raises(FileExistsError, match="is not an empty folder"):
        convert(golden / BITNET, tmp_path / "link", type="hf")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="is not an empty folder"):
        convert(golden / BITNET, tmp_path / "pipe", type="hf")


# What is kept


def test_a_link_stays_and_its_target_is_written(tmp_path, write):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b/file").write_bytes(b"")
    (tmp_path / "a/link").symlink_to("../b/file")
    (tmp_path / "a/link to link").symlink_to("link")
    (tmp_path / "a/dangling").symlink_to("../b/new")
    for link, target in (("link to link", "file"), ("dangling", "new")):
        write(tmp_path / "a" / link)
        assert (tmp_path / "a" / link).is_symlink()
        assert is_written(tmp_path / "b" / target)
    assert names(tmp_path / "a") == ["dangling", "link", "link to link"]
    assert names(tmp_path / "b") == ["file", "new"]


def test_links_that_lead_nowhere(tmp_path, write):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "far").symlink_to("no/such/file")
    with pytest.raises(OSError, match="symbolic links") as caught:
        write(tmp_path / "loop")
    assert caught.value.errno == errno.ELOOP
    with pytest.raises(FileNotFoundError, match="a link to no such folder"):
        write(tmp_path / "far")
    assert names(tmp_path) == ["far", "loop"]


@pytest.mark.parametrize("given", [0o600, 0o640, 0o666])
def test_modes_are_kept(tmp_path, write, given):
    path = tmp_path / "out"
    path.touch()
    path.chmod(given)
    write(path)
    assert is_written(path)
    assert mode(path) == given


def test_new_files_have_the_mode_that_the_umask_leaves(tmp_path, write):
    for umask in (0o022, 0o077):
        old = os.umask(umask)
        try:
            write(tmp_path / f"{umask}")
        finally:
            os.umask(old)
        assert mode(tmp_path / f"{umask}") == 0o666 & ~umask


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_is_kept(tmp_path):
    path = tmp_path / "out"
    path.touch()
    os.chown(path, 1234, 2345)
    write_text(path, "x")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)


def test_nobody_reads_a_private_file_before_it_is_complete(tmp_path):
    path = tmp_path / "out"
    path.touch()
    path.chmod(0o600)
    with Output(path) as temporary:
        assert mode(temporary) == 0o600
    path.chmod(0o664)
    with Output(path) as temporary:
        assert mode(temporary) == 0o600
    assert mode(path) == 0o664


# What is left


def test_errors_are_told_in_terms_of_the_path_that_was_given(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    path = tmp_path / "link"
    for number in (errno.ENOSPC, errno.EIO):
        with pytest.raises(OSError, match=os.strerror(number)) as caught, Output(path):
            raise OSError(number, os.strerror(number))
        assert caught.value.filename == str(path)
    with pytest.raises(PermissionError) as caught, Output(path) as temporary:
        raise PermissionError(errno.EACCES, "denied", str(temporary))
    assert caught.value.filename == str(path)
    for other in (OSError("no number"), BrokenPipeError(errno.EPIPE, "pipe"), ValueError("x")):
        with pytest.raises(type(other)) as caught, Output(path):
            raise other
        assert caught.value is other
    assert names(tmp_path) == ["file", "link"]


def test_a_name_that_is_too_long_for_its_part(tmp_path, write):
    path = tmp_path / ("x" * 250)
    with pytest.raises(OSError, match="File name too long") as caught:
        write(path)
    assert caught.value.filename == str(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user without rights")
def test_permission_errors_name_the_output(tmp_path):
    folder = Path("/tmp") / f"bitnet_lut-{os.getpid()}"
    folder.mkdir(mode=0o755)
    (folder / "file").touch(mode=0o444)
    try:
        os.seteuid(65534)
        for name, said in (("new", "Permission denied"), ("file", "it is read-only")):
            with pytest.raises(PermissionError, match=said) as caught:
                write_text(folder / name, "x")
            assert caught.value.filename == str(folder / name)
    finally:
        os.seteuid(0)
        shutil.rmtree(folder)


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("type", ["tq2_0", "hf"])
def test_a_conversion_that_is_asked_to_end_leaves_nothing(golden, tmp_path, signal_, type):
    script = (
        "import os, sys; from bitnet_lut import cli\n"
        "from bitnet_lut.cli import options; from contextlib import nullcontext\n"
        "kill = lambda done, total: done > total // 3 and os.kill(os.getpid(), int(sys.argv[1]))\n"
        "import bitnet_lut.cli.convert as convert\n"
        "convert.progress_bar = lambda unit: nullcontext(kill)\n"
        "sys.exit(cli.main(sys.argv[2:]))"
    )
    command = ["convert", str(golden / BITNET), "-o", str(tmp_path / "out"), "--type", type]
    done = subprocess.run(
        [sys.executable, "-c", script, str(int(signal_)), *command],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 128 + signal_, done.stderr
    assert "Traceback" not in done.stderr
    assert names(tmp_path) == []


def test_signals_are_as_they_were_after_a_command(capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert main(["info"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def killed(path, *, folder):
    """The part that a process leaves which is ended by force."""
    script = (
        "import os, signal, sys; from bitnet_lut.formats.output import Output\n"
        "Output(sys.argv[1], folder=sys.argv[2] == 'True'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", script, str(path), str(folder)]
    process = subprocess.Popen(command)
    process.wait(timeout=60)
    return path.with_name(f"{path.name}.{process.pid}.part")


@pytest.mark.parametrize("folder", [False, True])
def test_what_dead_processes_left_is_removed(tmp_path, folder):
    path = tmp_path / "out.gguf"
    left = killed(path, folder=folder)
    assert left.exists()
    for name in (f"out.gguf.{os.getppid()}.part", "out.gguf.0.part", "out.gguf.x1.part"):
        (tmp_path / name).mkdir() if folder else (tmp_path / name).touch()
    for name in (f"other.gguf.{DEAD}.part", f"out.gguf.{DEAD}.parts", f"out_gguf.{DEAD}.part"):
        (tmp_path / name).mkdir() if folder else (tmp_path / name).touch()
    (tmp_path / f"out.gguf.{DEAD - 1}.part").symlink_to("/dev/null")
    other = tmp_path / f"out.gguf.{DEAD}.part"  # of the other kind
    other.touch() if folder else other.mkdir()
    before = set(names(tmp_path))
    with Output(path, folder=folder):
        pass
    assert set(names(tmp_path)) == (before | {"out.gguf"}) - {left.name}


def test_a_part_of_a_process_that_lives_stays(tmp_path):
    with Output(tmp_path / "x") as one:
        with pytest.raises(FileExistsError, match="it is being written already") as caught:
            Output(tmp_path / "x")
        assert caught.value.filename == str(tmp_path / "x")
        assert one.exists()
    assert names(tmp_path) == ["x"]


def test_a_part_of_this_process_number_that_nobody_works_on_is_removed(tmp_path):
    """As in containers, where numbers of processes come again."""
    (tmp_path / f"x.{os.getpid()}.part").write_text("left")
    write_text(tmp_path / "x", "new")
    assert names(tmp_path) == ["x"]


def test_scratch_folders_are_removed(tmp_path):
    with scratch_folder(tmp_path / "x") as scratch:
        (scratch / "y").mkdir()
        assert scratch.parent == tmp_path
    with pytest.raises(ZeroDivisionError), scratch_folder(tmp_path / "x") as scratch:
        (scratch / "y").write_bytes(bytes(1 // 0))
    assert names(tmp_path) == []
    with pytest.raises(FileNotFoundError), scratch_folder(tmp_path / "no/x"):
        pass


def test_an_output_without_a_name_is_refused(capsys):
    with pytest.raises(FileNotFoundError, match="the name of the output is empty"):
        Output("")
    assert main(["synth", "--shape=tiny", "--type=i2_s", "-o", ""]) == 2
    assert capsys.readouterr().err == "bitnet-lut: error: the name of the output is empty\n"
