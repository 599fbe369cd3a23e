"""Chats with every option: the same answers alone, in a batch, on a prefix and after a save."""

from pathlib import Path
from typing import Any

import pytest
from model_files import rewritten

from bitnet_lut import Conversation, Generation, Lark, Model, Regex, Sampling
from bitnet_lut.demo import MODEL
from bitnet_lut.runtime.engine import Engine

pytest.importorskip("jinja2")

WARM = Sampling(temperature=0.9, top_k=40, seed=11)
SAYINGS = ["Tell me a story", "What is the capital of France?", "And another one"]


def without_even(ids: Any, logits: Any) -> Any:
    """Hardly any token with an even number but the control tokens, which end answers."""
    logits[20::2] -= 4 * (len(ids) % 3)
    return logits


OPTIONS: dict[str, dict[str, Any]] = {
    "bad words": {"bad_words": ["the", " was", ".", [14]], "sampling": WARM},
    "bad words, greedy": {"bad_words": [" the", "a"]},
    "processors": {"logits_processors": [without_even], "sampling": WARM},
    "processors, greedy": {"logits_processors": [without_even]},
    "the model's own sampling": {"sampling": "model"},
    "a schema": {
        "response_format": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome", "Oslo"]}, "big": {"type": "boolean"}},
            "required": ["city", "big"],
            "additionalProperties": False,
        },
        "sampling": WARM,
    },
    "a regex": {"response_format": Regex("[a-z]{3,9} [0-9]{2}"), "sampling": WARM},
    "a grammar, greedy": {"response_format": Lark('start: "yes" | "no" /[a-z ]{5,20}/')},
    "choices": {"response_format": ["Paris", "Rome", "Oslo"], "sampling": WARM},
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration model in a file that recommends how to choose tokens."""
    path = tmp_path_factory.mktemp("recommending") / "model.gguf"
    keys = {"general.sampling.temp": 0.0, "general.sampling.penalty_repeat": 1.3}
    rewritten(MODEL, path, keys=keys)
    return path


@pytest.fixture(scope="module")
def model(file: Path) -> Model:
    return Model(file, threads=1)


def same(one: Generation, other: Generation) -> bool:
    """Whether texts, ids, what they are parsed as and all log-probabilities are the same bits."""
    return (
        (one.text, one.ids, one.finish_reason, one.parsed)
        == (other.text, other.ids, other.finish_reason, other.parsed)
    ) and one.logprobs == other.logprobs


@pytest.mark.parametrize("name", OPTIONS)
def test_answers_are_the_same_alone_in_a_batch_on_a_prefix_and_after_a_save(
    model: Model, file: Path, tmp_path: Path, name: str
) -> None:
    options = {**OPTIONS[name], "max_tokens": 24, "logprobs": 2}
    if "response_format" in options:
        pytest.importorskip("llguidance")
    chat = model.conversation(system="Be brief.", **options)
    prompts, results = [], []
    for place, text in enumerate(SAYINGS):
        answer = chat.say(text)
        assert "".join(answer) == answer.result.text
        assert (answer.result.timings.reused_tokens > 0) == (place > 0)
        prompts.append(list(chat.turns[-1].prompt))
        results.append(answer.result)
        if place == 1:
            chat.save(tmp_path / "chat")
    alone = [model.generate(prompt, **options) for prompt in prompts]
    assert all(map(same, results, alone))
    assert all(map(same, results, model.generate(prompts, **options)))
    loaded = Conversation.load(Model(file, threads=2), tmp_path / "chat", **options)
    answer = loaded.say(SAYINGS[2])
    assert answer.text == results[2].text
    assert same(answer.result, results[2])
    assert answer.result.timings.reused_tokens == results[2].timings.reused_tokens
    again = chat.regenerate()
    assert again.text == results[2].text
    assert same(again.result, results[2])


def test_the_options_matter(model: Model) -> None:
    """So that the answers above are not all those of plain greedy choice."""
    plain = model.conversation(max_tokens=24).say(SAYINGS[0]).text
    for name, options in OPTIONS.items():
        if "response_format" not in options:
            found = model.conversation(max_tokens=24, **options).say(SAYINGS[0]).text
            assert found != plain, name


@pytest.mark.parametrize(
    "ends", [{"ignore_eos": True}, {"bad_words": ["a"]}, {"logits_processors": [without_even]}]
)
def test_what_does_not_go_with_a_format_leaves_the_chat_as_it_was(
    model: Model, ends: dict[str, Any]
) -> None:
    pytest.importorskip("llguidance")
    chat = model.conversation(max_tokens=10, response_format=["yes", "no"])
    before = chat.say("Hello").text
    with pytest.raises(ValueError, match="do not go with a response_format"):
        chat.say("Hello", **ends)
    assert [turn.answer for turn in chat.turns] == [before]
    assert chat.say("Hello", response_format=None, **ends).text


def test_an_error_of_a_processor_keeps_the_chat(model: Model) -> None:
    def fail(ids: Any, logits: Any) -> Any:
        raise ArithmeticError("no")

    chat = model.conversation(max_tokens=10)
    first = chat.say("Hello").text
    with pytest.raises(ArithmeticError):
        _ = chat.say("Hello", logits_processors=[fail]).text
    again = model.conversation(max_tokens=10)
    chat.undo()
    assert again.say("Hello").text == first
    assert chat.say("What?").text == again.say("What?").text
    assert len(chat.turns) == 2


def test_every_turn_runs_its_new_tokens_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten turns: prompt and answer of each run in as few steps as if the chat had just begun."""
    ran: list[int] = []
    step = Engine.step

    def count(self: Engine, chunks: Any, *rest: Any, **named: Any) -> Any:
        ran.append(sum(len(ids) for _, ids in chunks))
        return step(self, chunks, *rest, **named)

    monkeypatch.setattr(Engine, "step", count)
    chat = model.conversation(max_tokens=8, speculate=False)
    known = 0
    for number in range(10):
        ran.clear()
        _ = chat.say(f"Why {number}?").text
        turn = chat.turns[-1]
        # One step for all that is new, then one for each token of the answer but the last.
        cut = turn.finish_reason != "eos"
        assert ran == [len(turn.prompt) - known] + [1] * (len(turn.ids) - cut)
        known = len(turn.prompt) + len(turn.ids) - cut
    assert number == 9
    assert known > 5 * ran[0]
