"""What stands between files and texts of strangers and the tokenizers and llguidance libraries.

They are written in Rust. Their panics reach Python as a PanicException, which
``except Exception`` does not catch, and tokenizers raises bare ``Exception`` as well. Some files
make it allocate so much that the process ends, which nothing can catch: they are refused before.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as quote
from typing import Any

from bitnet_lut.errors import FormatError

__all__ = ["MOST_IDS", "guarded", "refuse_hostile"]

MOST_IDS = 2**20  # ids may have gaps, so their number says nothing of the largest

_MOST_STEPS = 16  # of a normalizer or pre-tokenizer; published ones have up to 6
_MOST_REGEX = 2000  # characters; published ones have up to 500
# Both need the merges to be cut accordingly, or BPE panics, or asks for memory without end.
_SUBWORD_FIELDS = ("continuing_subword_prefix", "end_of_word_suffix")
_LISTS = ("normalizers", "pretokenizers", "processors", "decoders")


@contextmanager
def guarded(what: str, kind: type[ValueError] = FormatError) -> Iterator[None]:
    """Raise *kind*, opened by *what*, for whatever a library raises inside."""
    try:
        yield
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise kind(f"{what}: {reason[:200]}") from None


def refuse_hostile(state: Mapping[str, Any], file: Path) -> None:
    """FormatError if a parsed tokenizer.json holds what the library does not survive."""
    model = state.get("model")
    if not isinstance(model, dict):
        raise FormatError(f"{file}: model is {quote(model)}, not an object")
    for field in _SUBWORD_FIELDS:
        if model.get(field) and model.get("type") != "WordPiece":
            raise FormatError(
                f"{file}: {field} is {quote(model[field])}: only an empty one is supported"
            )
    vocab = model.get("vocab")
    for text, i in vocab.items() if isinstance(vocab, dict) else ():
        if type(i) is not int or not 0 <= i < MOST_IDS:
            raise FormatError(
                f"{file}: the id of {quote(text)} is {quote(i)}, not below {MOST_IDS}"
            )
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        steps = list(_steps(state.get(part)))
        if len(steps) > _MOST_STEPS:
            raise FormatError(f"{file}: the {part} has {len(steps)} steps, more than {_MOST_STEPS}")
        for step in steps:
            _refuse_step(step, f"{file}: the {part}")


def _steps(part: Any) -> Iterator[Mapping[str, Any]]:
    """The steps of a normalizer, pre-tokenizer, post-processor or decoder, in any depth."""
    if not isinstance(part, dict):
        return
    yield part
    for key in _LISTS:
        parts = part.get(key)
        for inner in parts if isinstance(parts, list) else ():
            yield from _steps(inner)


def _refuse_step(step: Mapping[str, Any], where: str) -> None:
    if step.get("type") == "Precompiled":
        raise FormatError(f"{where} has a precompiled table, which is not supported")
    pattern = step.get("pattern")
    regex = pattern.get("Regex") if isinstance(pattern, dict) else None
    if isinstance(regex, str) and len(regex) > _MOST_REGEX:
        raise FormatError(f"{where} has a regex of {len(regex)} characters, over {_MOST_REGEX}")
    # Steps that lengthen a text, one after the other, would do so without bound.
    content = step.get("content")
    if step.get("type") == "Replace" and isinstance(content, str):
        text = pattern.get("String") if isinstance(pattern, dict) else None
        if len(content) > max(1, len(text) if isinstance(text, str) else 0):
            raise FormatError(f"{where} replaces {quote(pattern)} by the longer {quote(content)}")
