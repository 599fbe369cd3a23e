"""Opening files that anybody may have made: regular files only, mapped or read."""

import errno
import mmap
import os
import stat
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.errors import FormatError

__all__ = ["InputFile", "kind_of_file", "read_bytes", "read_text"]

_MOST_BYTES = 2**28  # of a file that is read as a whole; the largest tokenizer.json has 2^25
_LINE = 64  # what is read starts at a cache line, as tensors of native files do
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class InputFile:
    """A regular file, open for reading. Threads may share one.

    name: the path as it was given; opens every error message.
    size: bytes there were when it was opened; a read past what is left since then is an error.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a file; FormatError if it is not a regular one, OSError if it cannot be read.

        Pipes and devices are refused without being opened, so nothing waits for their other end.
        """
        self.name = os.fspath(path)
        _refuse_irregular(self.name, os.stat(self.name).st_mode)  # noqa: PTH116
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
        self._file = os.fdopen(os.open(self.name, flags), "rb", buffering=0)
        self._lock = threading.Lock()
        status = os.fstat(self._file.fileno())
        try:
            _refuse_irregular(self.name, status.st_mode)  # it may have been exchanged
        except FormatError:
            self._file.close()
            raise
        self.size = status.st_size
        self._modified = status.st_mtime_ns

    def read(self, offset: int, nbytes: int) -> NDArray[np.uint8]:
        """Read *nbytes* at *offset* into new memory: read-only uint8 that starts at a cache line.

        Raises FormatError if the file ends before them, because it was shortened meanwhile.
        """
        memory = np.empty(nbytes + _LINE, np.uint8)
        start = -memory.ctypes.data % _LINE
        data = memory[start : start + nbytes]
        done = 0
        with self._lock:
            self._file.seek(offset)
            while done < nbytes:
                count = self._file.readinto(data.data[done:])
                if not count:
                    raise FormatError(
                        f"{self.name}: the file ends at byte {offset + done}, but had {self.size} "
                        "when it was opened: something shortened it"
                    )
                done += count
        data.flags.writeable = False
        return data

    def map(self) -> mmap.mmap:
        """Map the file, which must not be empty, read-only; MemoryError without address space."""
        try:
            return mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_READ)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            raise MemoryError(
                f"{self.name}: no address space to map its {self.size:,} bytes: see ulimit -v"
            ) from None

    def check_unchanged(self) -> None:
        """FormatError if the file was written to or changed its size since it was opened."""
        status = os.fstat(self._file.fileno())
        if status.st_size != self.size:
            change = f"has {status.st_size} bytes and had {self.size} when it was opened"
        elif status.st_mtime_ns != self._modified:
            change = "was written to since it was opened"
        else:
            return
        raise FormatError(f"{self.name}: the file {change}: what was read of it is worth nothing")

    def close(self) -> None:
        """Close the file; maps and arrays stay."""
        self._file.close()

    def __del__(self) -> None:
        """Close the file of a reader that nobody closed."""
        if hasattr(self, "_file"):  # it could be opened
            self.close()


def read_bytes(path: str | os.PathLike[str], most: int = _MOST_BYTES) -> bytes:
    """All bytes of a small regular file, as of a config.

    Raises FormatError if it is not a regular file or has more than *most* bytes, and OSError if it
    cannot be read.
    """
    file = InputFile(path)
    try:
        if file.size > most:
            raise FormatError(f"{file.name}: {file.size} bytes, more than the {most} supported")
        return file.read(0, file.size).tobytes()
    finally:
        file.close()


def read_text(path: str | os.PathLike[str], most: int = _MOST_BYTES) -> str:
    """The text of a small file in UTF-8; raises what `read_bytes` does, and FormatError."""
    try:
        return read_bytes(path, most).decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{os.fspath(path)}: not UTF-8 at byte {error.start}") from None


def kind_of_file(mode: int) -> str | None:
    """What a file with this ``st_mode`` is, as "a folder"; None for a regular file."""
    if stat.S_ISREG(mode):
        return None
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def _refuse_irregular(name: str, mode: int) -> None:
    kind = kind_of_file(mode)
    if kind is not None:
        raise FormatError(f"{Path(name)}: {kind}, not a regular file")
