"""What the page of the browser calls odd about a file: the sentences of ``bitnet-lut inspect``."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from golden_data import GOLDEN
from model_files import rewritten
from node import NODE, answering

from bitnet_lut.demo import MODEL
from bitnet_lut.diagnose import inspect_model
from bitnet_lut.errors import FormatError
from bitnet_lut.formats.gguf import STRING, U32, GGUFFile

# What only a look at the weights tells.
OF_WEIGHTS = ("code 3 in", "weight scale", "the tile sizes", "nothing but zeros")

pytestmark = pytest.mark.skipif(NODE is None, reason="NO NODE: nothing is run by it")

Inspect = Callable[[Path], list[str]]


@pytest.fixture(scope="module")
def inspect() -> Iterator[Inspect]:
    with answering("web_inspector.mjs") as ask:
        yield lambda path: ask(str(path))


def python(path: Path) -> list[str]:
    """What Python says without reading weights; its tuples of one have a comma."""
    odd = [text.replace(",)", ")") for text in inspect_model(path).odd]
    return [text for text in odd if not text.startswith(OF_WEIGHTS)]


def readable() -> list[str]:
    """Golden files whose header Python reads."""
    found = []
    for path in sorted(GOLDEN.rglob("*.gguf")):
        try:
            GGUFFile(path).close()
        except FormatError:
            continue
        found.append(path.relative_to(GOLDEN).as_posix())
    return found


@pytest.mark.parametrize("name", readable())
def test_golden_files(inspect: Inspect, name: str) -> None:
    assert inspect(GOLDEN / name) == python(GOLDEN / name)


TOKENS = GGUFFile(MODEL).metadata["tokenizer.ggml.tokens"]
MERGES = GGUFFile(MODEL).metadata["tokenizer.ggml.merges"][:1200]  # which make other tokens
TYPES = GGUFFile(MODEL).metadata["tokenizer.ggml.token_type"]


def with_tokens(**texts: str) -> list[str]:
    changed = {int(key.removeprefix("t")): text for key, text in texts.items()}
    return [changed.get(i, text) for i, text in enumerate(TOKENS)]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, None),
        ({"bitnet-b1.58.vocab_size": (U32, 1500)}, "vocab_size is 1500, but there are 1536"),
        (
            {
                "tokenizer.ggml.tokens": with_tokens(t1500="'\n\"", t1501="'\n\""),
                "tokenizer.ggml.merges": MERGES,
            },
            "tokens that appear more than once: '\\'",
        ),
        (
            {
                "tokenizer.ggml.tokens": with_tokens(t1500="<|tool|>"),
                "tokenizer.ggml.merges": MERGES,
                "tokenizer.ggml.token_type": np.where(np.arange(1536) == 1500, 1, TYPES),
            },
            "control tokens that are typed as normal ones: <|tool|>",
        ),
        ({"tokenizer.ggml.model": (STRING, "bert")}, "its vocabulary cannot be used"),
    ],
)
def test_odd_files(
    inspect: Inspect, tmp_path: Path, keys: dict[str, object], said: str | None
) -> None:
    path = rewritten(MODEL, tmp_path / "odd.gguf", keys=keys)
    odd = inspect(path)
    assert odd == python(path)
    assert said is None or said in "".join(odd)


def test_tensors_beyond_the_graph(inspect: Inspect, tmp_path: Path) -> None:
    extra = {"vision.weight": ((32,), 0, np.zeros(128, np.uint8))}
    path = rewritten(MODEL, tmp_path / "odd.gguf", changes=extra)
    assert inspect(path) == python(path) == ["tensors that the model does not use: vision.weight"]
