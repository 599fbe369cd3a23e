"""Writing files and folders that take their name only when they are complete.

They are written beside their target as ``NAME.PID.part``. An exception removes that again, and what
a killed process left is removed by the next one that writes the same target.
"""

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from bitnet_lut.formats.input import kind_of_file

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

__all__ = ["Output", "find_target", "scratch_folder", "write_text"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What writing to an open file may raise without a word on which file it was.
_NAMELESS = (*_FULL, errno.EIO, errno.EROFS, errno.ESTALE)


class Output:
    """A file or folder to be, which replaces what has its name when it is complete.

    As a context manager it gives the path to write to, an empty file or folder that is there, and
    takes the name at the end, or removes everything after an exception. A file keeps the mode and,
    where possible, the owner of the one it replaces. Errors of the disk name the path as given.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        folder: bool = False,
        nbytes: int = 0,
        private: bool = False,
    ) -> None:
        """nbytes: how much will be written, if that is known; OSError if there is less room.
        private: only the owner may read the file, whoever could read the one it replaces.

        Raises what `find_target` does, and OSError if nothing can be written there.
        """
        self._path = os.fspath(path)
        self._nbytes, self._private = nbytes, private
        self._target = find_target(path, folder=folder)
        self._replaced = self._target.stat() if self._target.exists() else None
        self._free = shutil.disk_usage(self._target.parent).free
        if nbytes > self._free:
            raise OSError(errno.ENOSPC, self._full(errno.ENOSPC), self._path)
        name = f"{self._target.name}.{os.getpid()}.part"
        self.temporary = self._target.with_name(name)
        try:
            self._part = _Part(
                self._target, folder=folder, private=private or self._replaced is not None
            )
        except OSError as error:
            raise self._told(error) from None

    def commit(self) -> None:
        """Give what was written its name."""
        try:
            self._keep_status()
            self.temporary.replace(self._target)
        except BaseException as error:
            self.discard()
            told = self._told(error)
            if told is error:
                raise
            raise told from None
        self._part.unlock()

    def discard(self) -> None:
        """Remove what was written."""
        self._part.remove()

    def __enter__(self) -> Path:
        """Where to write."""
        return self.temporary

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the name, or remove everything after an exception."""
        if error is None:
            self.commit()
            return
        self.discard()
        told = self._told(error)
        if told is not error:
            raise told from None

    def _keep_status(self) -> None:
        """Give it the owner and mode of what it replaces."""
        if self._replaced is None or self._private:
            return
        if hasattr(os, "chown"):
            with suppress(OSError):  # only root may give files away
                os.chown(self.temporary, self._replaced.st_uid, self._replaced.st_gid)
        self.temporary.chmod(stat.S_IMODE(self._replaced.st_mode))

    def _told(self, error: BaseException) -> BaseException:
        """An error of the disk in terms of the path as it was given; others as they are."""
        if not isinstance(error, OSError) or error.errno is None:
            return error
        ours = str(error.filename or "").startswith(str(self.temporary))
        if not ours and (error.filename is not None or error.errno not in _NAMELESS):
            return error
        reason = self._full(error.errno) if error.errno in _FULL else error.strerror
        return OSError(error.errno, reason, self._path)

    def _full(self, number: int) -> str:
        reason = os.strerror(number)
        if not self._nbytes:
            return reason
        return (
            f"{reason}: the result takes {self._nbytes:,} bytes, {self._free:,} were free in "
            f"{self._target.parent}"
        )


def find_target(path: str | os.PathLike[str], *, folder: bool = False) -> Path:
    """Where an output is to be written: *path*, or what it is a symbolic link to.

    Raises OSError, before anything is written, if its folder is not there or it is something that
    must not be replaced: for a file all but a regular file, for a folder all but an empty folder.
    """
    name = os.fspath(path)
    if not name:
        raise FileNotFoundError(errno.ENOENT, "the name of the output is empty", name)
    with suppress(FileNotFoundError):
        _refuse(name, os.stat(name).st_mode, folder)  # noqa: PTH116 (follows links)
    target = Path(os.path.realpath(name))
    if not target.parent.is_dir():
        if Path(name).is_symlink():
            raise FileNotFoundError(errno.ENOENT, "it is a link to no such folder", name)
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(Path(name).parent))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
    effective = os.access in os.supports_effective_ids
    if not folder and target.exists() and not os.access(target, os.W_OK, effective_ids=effective):
        raise PermissionError(errno.EACCES, "it is read-only", name)
    return target


def _refuse(name: str, mode: int, folder: bool) -> None:
    """OSError for a thing of this ``st_mode`` that an output must not replace."""
    kind = kind_of_file(mode)
    if folder:
        if not stat.S_ISDIR(mode) or any(Path(name).iterdir()):
            raise FileExistsError(errno.EEXIST, "it exists, and is not an empty folder", name)
    elif stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file", name)
    elif kind is not None:
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", name)


@contextmanager
def scratch_folder(beside: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder for what is needed only to make *beside*, on the same disk; removed at the end."""
    target = find_target(beside)
    try:
        part = _Part(target.with_name(f"{target.name}.work"), folder=True, private=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(beside)) from None
    try:
        yield part.path
    finally:
        part.remove()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text in UTF-8; see `Output`."""
    with Output(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


class _Part:
    """An empty file or folder beside a target, locked as long as this process works on it.

    The lock tells it from what a dead process left, even where numbers of processes come again, as
    in containers.
    """

    def __init__(self, target: Path, *, folder: bool, private: bool) -> None:
        """private: whether others may not read it yet."""
        self.path = target.with_name(f"{target.name}.{os.getpid()}.part")
        self._folder = folder
        self._lock: int | None = None
        _remove_leftovers(target, folder)
        try:
            if folder:
                self.path.mkdir(0o700 if private else 0o777)
            else:
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
                os.close(os.open(self.path, flags, 0o600 if private else 0o666))
        except FileExistsError:
            reason = "it is being written already"
            raise FileExistsError(errno.EEXIST, reason, str(self.path)) from None
        self._lock = _lock(self.path)

    def remove(self) -> None:
        _remove(self.path, self._folder)
        self.unlock()

    def unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _remove_leftovers(target: Path, folder: bool) -> None:
    """Remove parts of the same target that processes left which are no more."""
    if fcntl is None:
        return
    pattern = re.compile(re.escape(target.name) + r"\.([1-9][0-9]{0,9})\.part")
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            match = pattern.fullmatch(entry.name)
            is_kind = entry.is_dir if folder else entry.is_file
            if match and is_kind(follow_symlinks=False) and _is_dead(int(match[1])):
                lock = _lock(Path(entry.path))
                if lock is not None:
                    _remove(Path(entry.path), folder)
                    os.close(lock)


def _is_dead(process: int) -> bool:
    """Whether there is no such process, or only this one, which locks what it works on."""
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


def _lock(path: Path) -> int | None:
    """A descriptor that holds a lock as long as it is open; None if it cannot be had."""
    if fcntl is None:
        return None
    descriptor = None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor


def _remove(path: Path, folder: bool) -> None:
    if folder:
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
