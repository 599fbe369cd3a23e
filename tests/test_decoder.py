"""The decoder alone, fed with logits by hand: no model, no cache, no scheduler."""

import codecs
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitnet_lut import Sampling, Tokenizer
from bitnet_lut.demo import MODEL
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.runtime.decoder import Decoder
from bitnet_lut.runtime.sampling import Sampler
from bitnet_lut.runtime.speculation import Speculation
from bitnet_lut.runtime.stopping import StoppedText, StopRules

with GGUFFile(MODEL) as _file:
    TOKENIZER = Tokenizer.from_gguf(_file.metadata, name="demo")
VOCAB = TOKENIZER.vocab_size
# Few tokens, so that texts repeat: letters, whole words, bytes of cut characters, and the end.
ALPHABET = [
    *TOKENIZER.encode("a b e the of Paris é 日本", add_bos=False),
    *sorted(TOKENIZER.eos_ids),
]


class Guesses(Speculation):
    """Guesses what it is told."""

    def __init__(self, drafts: Sequence[Sequence[int]]) -> None:
        super().__init__([])
        self.drafts = list(drafts)

    def draft(self, most: int) -> list[int]:
        return list(self.drafts.pop(0)[:most]) if self.drafts else []

    def time(self, n: int, gained: int, seconds: float) -> bool:
        return True


def row(history: Sequence[int]) -> np.ndarray:
    """What a model would say after *history*: any function of it will do."""
    digest = hashlib.blake2b(np.array(history[-4:], np.int32).tobytes()).digest()
    logits = np.full(VOCAB + 5, -1, np.float32)  # with rows of padding, the largest of all
    logits[ALPHABET] = np.frombuffer(digest, np.uint8, len(ALPHABET)) / 32
    logits[VOCAB:] = 100
    return logits


def drive(decoder: Decoder, most: int) -> tuple[list[str], list[int]]:
    """Feed *decoder* to its end; returns the pieces of text, and what was run and kept."""
    cache: list[int] = []
    pieces: list[str] = []
    while (chunk := decoder.next(most)).ids:
        assert len(chunk.ids) <= max(most, 8)
        cache += chunk.ids
        ends = range(len(cache) - chunk.rows + 1, len(cache) + 1)
        decoder.feed(np.array([row(cache[:end]) for end in ends]).reshape(-1, VOCAB + 5), 1.0)
        del cache[decoder.position :]
        while (piece := decoder.take()) is not None:
            pieces.append(piece)
    return pieces, cache


def plainly(prompt: list[int], sampling: Sampling, stop: StopRules) -> tuple[list[int], str, str]:
    """The definition: a token at a time, decoded as a whole, and looked through for stops."""
    sampler, ids = Sampler(sampling), []
    while len(ids) < stop.limit:
        token = sampler(row([*prompt, *ids])[:VOCAB], [*prompt, *ids])
        if token in stop.end_ids:
            return ids, *cut(ids, stop, "eos")
        ids.append(token)
        shown = [TOKENIZER.piece(id) for id in ids if not TOKENIZER.is_special(id)]
        text = codecs.getincrementaldecoder("utf-8")("replace").decode(b"".join(shown))
        if any(string in text for string in stop.strings):
            break
    return ids, *cut(ids, stop, stop.reason_at_limit)


def cut(ids: Sequence[int], stop: StopRules, reason: str) -> tuple[str, str]:
    text = TOKENIZER.decode(ids, skip_special=True, start=False)
    found = [text.index(string) for string in stop.strings if string in text]
    return (text[: min(found)], "stop") if found else (text, reason)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_comes_is_what_the_definition_says(data: Any) -> None:
    tokens = st.sampled_from(ALPHABET)
    prompt = data.draw(st.lists(tokens, min_size=1, max_size=12))
    strings = st.lists(st.text("abe thofPar日\ufffd", min_size=1, max_size=4), max_size=3)
    eos = data.draw(st.booleans())
    stop = StopRules(
        max_tokens=data.draw(st.integers(0, 30)),
        room=data.draw(st.integers(1, 30)),
        strings=tuple(data.draw(strings)),
        end_ids=TOKENIZER.eos_ids if eos else frozenset(),
    )
    greedy = data.draw(st.booleans())
    penalty = data.draw(st.sampled_from([1.0, 1.2]))
    sampling = Sampling(
        temperature=0 if greedy else 0.7, repetition_penalty=penalty, seed=data.draw(st.integers(0))
    )
    drafts = data.draw(st.lists(st.lists(tokens, max_size=7), max_size=20))
    decoder = Decoder(
        TOKENIZER,
        prompt,
        sampler=Sampler(sampling),
        stop=stop,
        speculation=Guesses(drafts) if greedy else None,
    )
    pieces, cache = drive(decoder, data.draw(st.integers(1, 20)))
    ids, text, reason = plainly(prompt, sampling, stop)
    assert (decoder.ids, "".join(pieces), decoder.text) == (ids, text, text)
    assert decoder.finish_reason == reason
    assert decoder.finished
    if reason != "stop":  # what is beyond a stop string may have been run
        assert cache == [*prompt, *ids][: len(cache)]
        assert len(cache) >= len(prompt) + max(0, len(ids) - 1)


def test_a_chunk_asks_for_logits_only_where_it_needs_them() -> None:
    decoder = Decoder(TOKENIZER, [1, 2, 3, 4, 5], sampler=Sampler(Sampling()), stop=StopRules(9, 9))
    assert decoder.next(2) == ([1, 2], 0)
    assert decoder.next(3) == ([1, 2, 3], 0)  # nothing was fed: asked again
    decoder.feed(np.empty((0, VOCAB), np.float32))
    assert (decoder.position, decoder.in_prompt, decoder.take()) == (3, True, None)
    assert decoder.next(3) == ([4, 5], 1)
    with pytest.raises(ValueError, match="logits of 2 tokens, but the chunk wants 1"):
        decoder.feed(np.zeros((2, VOCAB), np.float32))
    decoder.feed(row([7])[None])
    assert not decoder.in_prompt
    assert decoder.next() == ((), 0)  # first the token must be taken
    assert decoder.take() is not None
    assert decoder.next() == ([decoder.ids[-1]], 1)


def test_guesses_are_made_only_where_they_may() -> None:
    stop = StopRules(9, 9, end_ids=TOKENIZER.eos_ids)
    end = min(TOKENIZER.eos_ids)
    guesses = Guesses([[5, 6], [7, 8, end, 9], [3]])
    decoder = Decoder(TOKENIZER, [1], sampler=Sampler(Sampling()), stop=stop, speculation=guesses)
    logits = np.zeros((1, VOCAB), np.float32)
    logits[0, 4] = 1
    decoder.next()
    decoder.feed(logits)
    decoder.take()
    assert decoder.next(guess=False) == ([4], 1)
    assert decoder.next() == ([4, 5, 6], 3)
    assert decoder.next() == ([4, 7, 8], 3)  # none beyond an end
    assert decoder.drop_draft()
    assert decoder.next() == ([4], 1)
    assert not decoder.drop_draft()
    decoder.feed(logits)
    decoder.take()
    assert decoder.next() == ([4, 3], 2)
    assert decoder.drafted == 0


@given(
    st.lists(st.text("ab", max_size=4), max_size=8),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_text_is_cut_at_the_first_stop_string(pieces: list[str], strings: list[str]) -> None:
    text = StoppedText(strings)
    shown = []
    for at, piece in enumerate(pieces):
        shown.append(text.push(piece))
        whole = "".join(pieces[: at + 1])
        if text.stopped:
            assert (
                "".join(shown)
                == str(text)
                == whole[: min(whole.index(string) for string in strings if string in whole)]
            )
            return
        assert not any(string in whole for string in strings)
        held = whole.removeprefix("".join(shown))
        assert whole == "".join(shown) + held
        assert not held or any(string.startswith(held) for string in strings)
    assert "".join(shown) + text.flush() == "".join(pieces) == str(text)
