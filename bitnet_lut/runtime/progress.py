"""A bar that tells how far something has come."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Progress", "progress_bar", "shown"]

# Called with how much is done so far and in all.
Progress = Callable[[int, int], None]


@contextmanager
def shown(progress: Progress | bool | None, unit: str) -> Iterator[Progress]:
    """What is to be called: *progress* itself, or a bar: never (False), always (True), by default.

    Raises TypeError for anything else.
    """
    if progress is False:
        yield _ignore
    elif progress is None or progress is True:
        with progress_bar(unit, always=progress is True) as bar:
            yield bar
    elif callable(progress):
        yield progress
    else:
        raise TypeError(f"progress is {progress!r}, it must be a function, True, False or None")


@contextmanager
def progress_bar(unit: str, *, always: bool = False) -> Iterator[Progress]:
    """A bar after a second, in a terminal or a notebook; none where standard error goes elsewhere.

    always: show it wherever standard error goes, and at once.
    """
    if sys.stderr is None or not (always or sys.stderr.isatty() or _in_notebook()):
        yield _ignore
        return
    delay = 0 if always else 1
    with _bar_class()(delay=delay, unit=unit, unit_scale=True, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _bar_class() -> Any:
    if not _in_notebook():
        from tqdm import tqdm

        return tqdm
    with warnings.catch_warnings():  # that ipywidgets is missing: then the bar is text
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm as auto

        return auto


def _in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this program; its standard error is no terminal."""
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return hasattr(get_shell(), "kernel")


def _ignore(done: int, total: int) -> None:
    pass
