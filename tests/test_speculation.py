"""Text made with guesses is the text made without them, whatever is guessed."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from compare import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import odd_model

from bitnet_lut import Generation, Model, NumericsError, Sampling, Session, TextStream, _native
from bitnet_lut.cli import main
from bitnet_lut.demo import MODEL
from bitnet_lut.runtime.decoder import Decoder
from bitnet_lut.runtime.engine import Engine
from bitnet_lut.runtime.sampling import Sampler
from bitnet_lut.runtime.scheduler import Scheduler
from bitnet_lut.runtime.speculation import Speculation
from bitnet_lut.runtime.stopping import StopRules

TIERS = [name for name in _native.tier_names() if not _native.missing_features(name)]
STORY = "Once upon a time there was a young mouse named Leo."
PROMPTS = (
    "The capital of France is",
    STORY,
    f"{STORY}\n\n{STORY} " * 3 + "Once upon",
    "3 + 4 = 7. 3 + 4 = 7. 3 + 4 = 7. 3",
    "User: Spell the word banana.<|eot_id|>Assistant: ",
    "User: What is the capital of Japan?<|eot_id|>Assistant: The capital of Japan is Tokyo."
    "<|eot_id|>User: What is the capital of Japan?<|eot_id|>Assistant: ",
    "a",
)
EACH = settings(max_examples=100, deadline=None)


class Eager(Speculation):
    """Guesses by the rule, as if every step took the same time and nothing could be lost."""

    def __init__(self, ids: Sequence[int]) -> None:
        super().__init__(ids)
        self._costs.credit = math.inf

    def time(self, n: int, gained: int, seconds: float) -> bool:
        return super().time(n, gained, 1.0)


class Told(Speculation):
    """Guesses what it is told: *drafts* are lists of ids, one list for each step."""

    def __init__(self, drafts: Sequence[Sequence[int]]) -> None:
        super().__init__([])
        self.drafts = list(drafts)

    def draft(self, most: int) -> list[int]:
        return list(self.drafts.pop(0)[:most]) if self.drafts else []

    def time(self, n: int, gained: int, seconds: float) -> bool:
        return True


class Oracle(Speculation):
    """Knows the whole text and guesses it, except at the places *wrong*."""

    def __init__(self, ids: Sequence[int], *, length: int = 7, wrong: Sequence[int] = ()) -> None:
        super().__init__([])
        self.known, self.at, self.size = list(ids), 0, length
        for place in wrong:
            self.known[place] = abs(self.known[place] - 1)

    def learn(self, ids: Sequence[int]) -> None:
        self.at += len(ids)

    def time(self, n: int, gained: int, seconds: float) -> bool:
        return True

    def draft(self, most: int) -> list[int]:
        return self.known[self.at : self.at + min(most, self.size)]


@functools.cache
def demo() -> Model:
    return Model(MODEL, threads=1)


@functools.cache
def odd_weights(isa: str) -> _native.Weights:
    tiny = odd_model()
    return _native.Weights(tiny.config, tiny.tensors, isa=isa)


def odd_session(isa: str, context: int = 64) -> Session:
    engine = Engine(odd_weights(isa), _native.Pool(1), kind="f16", context=context, batch=5)
    return Session(engine, engine.cache(context))


def started(
    session: Any, ids: Sequence[int], speculation: Speculation | None, **options: Any
) -> TextStream:
    """A stream on the cache of *session* or of a Fake, at position 0."""
    defaults = {"max_tokens": 40, "room": session.context - len(ids), "stop": ()}
    options = defaults | {"sampling": Sampling(), "ignore_eos": True} | options
    tokenizer = demo().tokenizer
    decoder = Decoder(
        tokenizer,
        ids,
        sampler=Sampler(options["sampling"]),
        stop=StopRules(
            options["max_tokens"],
            options["room"],
            options["stop"],
            frozenset() if options["ignore_eos"] else tokenizer.eos_ids,
        ),
        speculation=speculation,
    )
    scheduler = Scheduler(session._engine)
    return TextStream(scheduler, scheduler.add(decoder, session.context, cache=session._cache))


def run(
    session: Any, ids: Sequence[int], speculation: Speculation | None, **options: Any
) -> Generation:
    stream = started(session, ids, speculation, **options)
    assert "".join(stream) == stream.result.text
    return stream.result


def assert_same(found: Generation, plain: Generation) -> None:
    assert (found.ids, found.text) == (plain.ids, plain.text)
    assert found.finish_reason == plain.finish_reason


def check(prompt: str | Sequence[int], speculation: Speculation, **options: Any) -> Generation:
    """Generate with and without guesses from the demonstration model; returns what both are."""
    ids = demo().tokenize(prompt) if isinstance(prompt, str) else prompt
    plain_session, session = demo().session(), demo().session()
    plain = run(plain_session, ids, None, **options)
    found = run(session, ids, speculation, **options)
    assert_same(found, plain)
    if found.finish_reason != "stop":  # what is beyond a stop string may have been run
        assert session.position == plain_session.position
    return found


@pytest.mark.parametrize("ignore_eos", [False, True])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_demonstration_model_says_the_same(prompt: str, ignore_eos: bool) -> None:
    speculation = Eager(demo().tokenize(prompt))
    check(prompt, speculation, max_tokens=150, ignore_eos=ignore_eos)
    plain = demo().generate(prompt, max_tokens=150, ignore_eos=ignore_eos, speculate=False)
    found = demo().generate(prompt, max_tokens=150, ignore_eos=ignore_eos)
    assert_same(found, plain)
    assert (plain.timings.drafted_tokens, plain.timings.accepted_tokens) == (0, 0)


def test_repeated_text_is_guessed() -> None:
    text = demo().generate(STORY, max_tokens=60, ignore_eos=True)
    session = demo().session()
    ids = demo().tokenize(STORY)
    seen = [*ids, *text.ids, *ids]
    found = run(session, ids, Eager(seen), max_tokens=60)
    assert_same(found, run(demo().session(), ids, None, max_tokens=60))
    assert found.timings.accepted_tokens == found.timings.drafted_tokens > 40


@pytest.mark.parametrize("penalty", [0.7, 1.3, 1e30])
def test_a_penalty_counts_the_accepted_guesses(penalty: float) -> None:
    sampling = Sampling(repetition_penalty=penalty)
    plain = run(demo().session(), demo().tokenize(STORY), None, sampling=sampling)
    found = check(STORY, Oracle(plain.ids), sampling=sampling)
    assert found.timings.accepted_tokens == found.timings.drafted_tokens > 30


def test_a_choice_that_fails_fails_where_it_did() -> None:
    """A penalty below 1 raises repeated logits, here beyond all floats: after some tokens."""

    def pieces(speculation: Speculation | None) -> list[str]:
        options = {"max_tokens": 9, "sampling": Sampling(repetition_penalty=1e-38)}
        stream = started(Fake([9, 8, 7, 5, 6, 7, 8]), [3], speculation, **options)
        found = []
        with pytest.raises(ValueError, match="largest logit is inf"):
            found.extend(stream)
        return [*found, *map(str, stream.result.ids)]

    plain = pieces(None)
    assert len(plain) > 2
    assert pieces(Told([[8, 7, 5, 6]])) == plain


class Fake:
    """An engine and a cache that say *ids*, whatever they are given after a prompt of one token."""

    def __init__(self, ids: Sequence[int], *, poison: int = -1) -> None:
        self.ids, self.poison, self.position, self.context = ids, poison, 0, 64
        self.config = demo().config
        self.batch = self.context
        self._engine = self._cache = self
        self.draw, self.score = demo()._engine.draw, demo()._engine.score

    def step(
        self, chunks: Sequence[tuple["Fake", np.ndarray]], rows: np.ndarray, logits: np.ndarray
    ) -> np.ndarray:
        ((cache, ids),) = chunks
        assert cache is self
        if self.poison in ids:
            return np.array([False])
        logits[:] = -1
        for row, token in enumerate(rows):
            logits[row, self.ids[(self.position + token) % len(self.ids)]] = 100
        self.position += len(ids)
        return np.array([True])

    def fault(self, cache: "Fake", ids: np.ndarray, rows: int) -> NumericsError:
        return NumericsError(f"not finite after {self.poison}")

    def reserve(self, n: int) -> None:
        pass

    def rewind(self, position: int) -> None:
        assert 0 <= position <= self.position
        self.position = position


def test_a_guess_that_the_model_cannot_compute_is_no_error() -> None:
    ids = [5, 6, 7, 8]
    told = Told([[6, 99], [7], [99], []])
    found = run(Fake(ids, poison=99), [3], told, max_tokens=6)
    assert found.ids == (5, 6, 7, 8, 5, 6)
    assert (found.timings.drafted_tokens, found.timings.accepted_tokens) == (1, 1)
    with pytest.raises(NumericsError):
        run(Fake([5, 99, 7], poison=99), [3], Told([[99]]))


@pytest.mark.parametrize("length", range(1, 8))
@pytest.mark.parametrize("tokens", range(1, 12))
def test_a_limit_within_a_draft(tokens: int, length: int) -> None:
    """Guesses that are always right, and more than may be generated."""
    plain = run(demo().session(), demo().tokenize(STORY), None, max_tokens=30)
    oracle = Oracle(plain.ids, length=length)
    found = check(STORY, oracle, max_tokens=tokens)
    assert found.finish_reason == "length"
    assert len(found.ids) == tokens
    steps = -(-(tokens - 1) // (length + 1))
    assert found.timings.accepted_tokens == found.timings.drafted_tokens == tokens - 1 - steps


@pytest.mark.parametrize("room", range(1, 12))
def test_the_end_of_the_context_within_a_draft(room: int) -> None:
    ids = demo().tokenize(STORY)
    plain = run(demo().session(), ids, None)
    with Model(MODEL, threads=1, context=len(ids) + room) as model:
        session = model.session()
        found = run(session, ids, Oracle(plain.ids))
    assert found.ids == plain.ids[:room]
    assert found.finish_reason == "context"
    assert session.position == len(ids) + room - 1  # the last token is not run


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_an_end_within_a_draft(ignore_eos: bool) -> None:
    prompt = PROMPTS[5]
    plain = run(demo().session(), demo().tokenize(prompt), None)
    assert demo().tokenizer.eos_ids & set(plain.ids[2:])
    found = check(prompt, Oracle(plain.ids), ignore_eos=ignore_eos)
    assert found.finish_reason == ("length" if ignore_eos else "eos")
    assert found.timings.accepted_tokens == found.timings.drafted_tokens > 0


@pytest.mark.parametrize("wrong", [(), range(40), range(3, 40, 4)])
def test_a_stop_string_within_a_draft(wrong: Sequence[int]) -> None:
    plain = run(demo().session(), demo().tokenize(STORY), None)
    for start in range(0, len(plain.text) - 9, 7):
        stop = plain.text[start : start + 9]
        found = check(STORY, Oracle(plain.ids, wrong=wrong), stop=(stop, "never said"))
        assert found.finish_reason == "stop"


@pytest.mark.parametrize("length", [1, 3, 7])
def test_wrong_guesses_leave_no_trace(length: int) -> None:
    ids = demo().tokenize(STORY)
    session, plain = demo().session(), demo().session()
    text = run(plain, ids, None)
    found = run(session, ids, Oracle(text.ids, length=length, wrong=range(40)))
    assert_same(found, text)
    assert found.timings.accepted_tokens == 0
    assert found.timings.drafted_tokens == sum(min(length, 38 - step) for step in range(39))
    assert session.position == plain.position == len(ids) + 39
    assert_same_bits(session.step([5, 6, 7], logits="all"), plain.step([5, 6, 7], logits="all"))


def test_a_stream_that_is_left_early() -> None:
    plain = run(demo().session(), demo().tokenize(STORY), None)
    stream = demo().stream(STORY, max_tokens=40, ignore_eos=True)
    stream._run.decoder._speculation = Oracle(plain.ids)
    text = next(stream) + next(stream)
    result = stream.result
    assert (result.text, result.finish_reason) == (text, "interrupted")
    assert result.ids == plain.ids[: len(result.ids)]
    assert text == demo().detokenize(result.ids)


@EACH
@given(st.data())
def test_any_guesses_on_the_odd_model(data: Any) -> None:
    """Right, wrong, long and short ones, next to every limit, on every tier."""
    isa = data.draw(st.sampled_from(TIERS))
    vocab = odd_weights(isa).config.vocab_size
    tokens = st.integers(0, vocab - 1)
    ids = data.draw(st.lists(tokens, min_size=1, max_size=8))
    context = data.draw(st.integers(len(ids) + 1, 40))
    options = {
        "max_tokens": data.draw(st.integers(1, 40)),
        "ignore_eos": data.draw(st.booleans()),
        "stop": tuple(data.draw(st.lists(st.text("aeinrst ", min_size=1, max_size=2), max_size=2))),
        "sampling": Sampling(repetition_penalty=data.draw(st.sampled_from([1.0, 1.5, 0.8]))),
    }
    plain_session, session = odd_session(isa, context), odd_session(isa, context)
    plain = run(plain_session, ids, None, **options)
    full = [*plain.ids, *[0] * 8]
    wrong = data.draw(st.lists(st.integers(0, len(full) - 1)))
    lying = Oracle(full, length=data.draw(st.integers(0, 7)), wrong=wrong)
    told = Told(data.draw(st.lists(st.lists(tokens, max_size=7), max_size=20)))
    for speculation in (lying, told, Eager([*ids, *plain.ids, *ids])):
        assert_same(run(session, ids, speculation, **options), plain)
        session.rewind(len(ids))
        plain_session.rewind(len(ids))
        probe = [ids[0]]
        assert_same_bits(session.step(probe), plain_session.step(probe))
        session.rewind(0)


@EACH
@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 12))
def test_what_is_guessed_was_said_after_the_same_tokens(ids: list[int], most: int) -> None:
    speculation = Eager(ids[: len(ids) // 2])
    for at in range(len(ids) // 2, len(ids)):
        speculation.learn(ids[at : at + 1])
        speculation.time(1, 1, 1.0)
        draft = speculation.draft(most)
        assert len(draft) <= min(most, 7)
        seen, matched = ids[: at + 1], min(speculation._matched, 3)
        assert not draft or any(
            seen[place - matched : place] == seen[len(seen) - matched :]
            and (seen[place:] * most)[: len(draft)] == draft
            for place in range(matched, len(seen))
        )


@pytest.mark.parametrize("period", [1, 2, 3, 5, 40])
def test_a_loop_is_guessed_beyond_what_was_said(period: int) -> None:
    speculation = Eager([])
    loop = list(range(period))
    for _ in range(-(-100 // period) + 2):
        speculation.learn(loop)
        speculation.time(1, 1, 1.0)
    assert speculation.draft(7) == (loop * 7)[:7]
    assert speculation.draft(2) == (loop * 2)[:2]
    assert speculation.draft(0) == []


@pytest.mark.parametrize("cost", [0.5, 0.9, 1.5])
def test_what_wrong_guesses_may_cost(cost: float) -> None:
    """Text that teases: it repeats four tokens and then goes on differently, for ever."""
    rng = np.random.default_rng(0)
    speculation = Speculation([])
    plain = spent = 0.0
    text: list[int] = []
    while plain < 2000:
        at = int(rng.integers(0, max(1, len(text) - 4)))
        coming = [*text[at : at + 4], int(rng.integers(10**6))]
        while coming:
            draft = speculation.draft(7)
            right = 0
            while right < min(len(draft), len(coming) - 1) and draft[right] == coming[right]:
                right += 1
            step = 1 + cost * len(draft)
            speculation.learn(coming[: right + 1])
            assert speculation.time(1 + len(draft), right + 1, step)
            text += coming[: right + 1]
            del coming[: right + 1]
            plain += right + 1
            spent += step
    assert spent <= 1.02 * plain


@pytest.mark.parametrize(("seconds", "worth"), [(0.0009, False), (0.0011, True)])
def test_guessing_ends_where_steps_are_too_short(seconds: float, worth: bool) -> None:
    speculation = Speculation([1, 2])
    answers = [speculation.time(1, 1, seconds * disturbed) for disturbed in (3, 1, 2)]
    assert answers == [True, True, worth]


def test_a_stream_ends_guessing_of_a_very_small_model() -> None:
    found = run(Fake([5, 6, 7]), [3], Speculation([3]), max_tokens=60)
    assert found.ids == (5, 6, 7) * 20
    assert found.timings.drafted_tokens == 0


def test_right_guesses_pay() -> None:
    """A text that repeats its prompt of 600 tokens, at the costs that were measured."""
    ids = np.random.default_rng(0).integers(0, 128_000, 600).tolist()
    speculation = Speculation([*ids, *ids[:3]])
    at, spent = 3, 0.0
    while at < 600:
        draft = speculation.draft(600 - at - 1)
        assert draft == ids[at : at + len(draft)]
        step = 1 + 0.37 * len(draft)
        speculation.learn(ids[at : at + len(draft) + 1])
        speculation.time(1 + len(draft), len(draft) + 1, step)
        at += len(draft) + 1
        spent += step
    assert 597 / spent > 2


def test_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    asked: list[bool] = []
    stream = Model.stream
    monkeypatch.setattr(
        Model, "stream", lambda *a, **k: [asked.append(k["speculate"]), stream(*a, **k)][1]
    )
    said = []
    for flags in ([], ["--no-speculate"]):
        assert main(["run", "-n", "30", "--ignore-eos", *flags, STORY]) == 0
        said.append(capsys.readouterr().out)
    assert asked == [True, False]
    assert said[0] == said[1]


def test_only_greedy_choice_guesses() -> None:
    def guesses(**options: Any) -> bool:
        return demo().stream("a", **options)._run.decoder._speculation is not None

    assert not guesses(sampling=Sampling(temperature=0.5))
    assert not guesses(speculate=False)
    assert guesses(sampling=Sampling(repetition_penalty=2))
