"""Chats and structured output of a model: every text is that of the same ids alone."""

import dataclasses
import json
import threading

import pytest

from bitnet_lut import GrammarError, Lark, Model, Regex, Sampling
from bitnet_lut.demo import MODEL

pytest.importorskip("jinja2")
pytest.importorskip("llguidance")

WARM = Sampling(temperature=0.9, top_k=50, seed=7, repetition_penalty=1.1)
SAYINGS = [
    "Hello there",
    "What is <|eot_id|> the capital of France?",
    " And Spain?\n",
    "Tell a story",
]
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "maximum": 120, "minimum": 0},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model():
    return Model(MODEL, context=512)


def alone(model, prompt, **options):
    return model.generate(list(prompt), **options)


def same(one, other):
    return (one.text, one.ids, one.finish_reason) == (other.text, other.ids, other.finish_reason)


@pytest.mark.parametrize("sampling", [Sampling(), WARM], ids=["greedy", "sampled"])
def test_a_chat_is_the_text_of_its_ids(model, sampling):
    ids = model.apply_chat_template(MESSAGES)
    assert model.count_tokens(MESSAGES) == len(ids)
    expected = alone(model, ids, max_tokens=40, sampling=sampling)
    assert expected.text
    assert same(model.chat(MESSAGES, max_tokens=40, sampling=sampling), expected)
    stream = model.chat_stream(MESSAGES, max_tokens=40, sampling=sampling)
    assert "".join(stream) == expected.text
    assert same(stream.result, expected)


def test_stop_strings_of_the_template_come_first(model, monkeypatch):
    monkeypatch.setattr(type(model.chat_templates), "stop", ("e",))
    for stop in ((), ["zzz"], "zzz"):
        assert "e" not in model.chat(MESSAGES, max_tokens=40, stop=stop).text
    assert model.conversation().say("Hello", max_tokens=40).text.count("e") == 0


def test_a_model_that_is_warm_writes_the_same(model, monkeypatch):
    expected = model.generate("Hello", max_tokens=10)
    steps = count_steps(model, monkeypatch)
    model.warm_up()
    assert steps == [[1]]
    assert same(model.generate("Hello", max_tokens=10), expected)


def test_tokens_of_a_text_are_counted(model):
    assert model.count_tokens("Hello there") == len(model.tokenize("Hello there"))


@pytest.mark.parametrize("sampling", [Sampling(), WARM], ids=["greedy", "sampled"])
@pytest.mark.parametrize("speculate", [True, False])
def test_every_turn_is_the_text_of_its_ids(model, sampling, speculate):
    chat = model.conversation(
        system="Be brief.", max_tokens=24, sampling=sampling, speculate=speculate
    )
    ids, cut = [], False
    for text in SAYINGS:
        answer = chat.say(text)
        whole = "".join(answer)
        turn = chat.turns[-1]
        expected = alone(model, turn.prompt, max_tokens=24, sampling=sampling, speculate=speculate)
        assert same(answer.result, expected)
        assert (turn.user, turn.answer, turn.ids) == (text, whole, expected.ids)
        # The ids of earlier turns stay as they were generated, and none is run again: of an answer
        # that was cut short, the last token was not run before.
        assert list(turn.prompt[: len(ids)]) == ids
        timings = answer.result.timings
        assert timings.prompt_tokens == len(turn.prompt)
        assert timings.reused_tokens == max(0, len(ids) - cut)
        ids = [*turn.prompt, *turn.ids]
        cut = turn.finish_reason != "eos"
        assert chat.count_tokens() == len(ids)
    assert [m["role"] for m in chat.messages] == ["system", *["user", "assistant"] * 4]
    # A control token that a user spells is text, so only the template's own are there.
    ends = [id for id in chat.turns[-1].prompt if model.tokenizer.is_special(id)]
    assert len(ends) == 1 + 1 + 2 * 3 + 1


def test_the_first_prompt_is_that_of_the_template(model):
    chat = model.conversation(system="Be brief.")
    chat.say("Hello").close()
    assert list(chat.turns[0].prompt) == model.apply_chat_template(MESSAGES)


@pytest.mark.parametrize("sampling", [Sampling(), WARM], ids=["greedy", "sampled"])
@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_an_interrupted_answer_stays_as_far_as_it_came(model, sampling, pieces):
    chat = model.conversation(max_tokens=40, sampling=sampling)
    chat.say("Tell a story").text  # noqa: B018
    answer = chat.say("And another one")
    for _ in range(pieces):
        next(answer)
    said = answer.result.text
    answer.close()
    answer.close()
    assert list(answer) == []
    turn = chat.turns[-1]
    assert (turn.answer, turn.finish_reason) == (said, "interrupted")
    text = chat.say("Hello").text
    expected = alone(model, chat.turns[-1].prompt, max_tokens=40, sampling=sampling)
    assert text == expected.text
    before = [*turn.prompt, *turn.ids]
    assert list(chat.turns[-1].prompt[: len(before)]) == before


def test_saying_something_ends_an_answer(model):
    chat = model.conversation(max_tokens=40)
    answer = chat.say("Tell a story")
    next(answer)
    other = chat.say("Hello")
    assert list(answer) == []
    assert chat.turns[0].finish_reason == "interrupted"
    assert other.text == alone(model, chat.turns[1].prompt, max_tokens=40).text


def test_an_error_ends_an_answer_and_keeps_the_chat(model, monkeypatch):
    chat = model.conversation(max_tokens=30)
    answer = chat.say("Tell a story")
    said = next(answer)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(model._engine), "step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            list(answer)
    assert chat.turns[-1].answer.startswith(said)
    assert chat.turns[-1].finish_reason == "interrupted"
    assert chat.say("Hello").text == alone(model, chat.turns[-1].prompt, max_tokens=30).text


def test_regenerate_edit_and_undo(model):
    chat = model.conversation(max_tokens=20)
    for text in SAYINGS[:3]:
        chat.say(text).text  # noqa: B018
    turns = chat.turns
    again = chat.regenerate()
    assert again.text == turns[2].answer
    assert again.result.timings.reused_tokens == len(turns[2].prompt) - 1
    warm = chat.regenerate(sampling=WARM).text
    assert warm == alone(model, turns[2].prompt, max_tokens=20, sampling=WARM).text
    assert chat.turns[:2] == turns[:2]
    edited = chat.edit(1, "Goodbye")
    assert edited.text == alone(model, chat.turns[1].prompt, max_tokens=20).text
    assert [turn.user for turn in chat.turns] == ["Hello there", "Goodbye"]
    # All that comes before what was edited is reused.
    known = [*turns[0].prompt, *turns[0].ids]
    assert edited.result.timings.reused_tokens >= len(known)
    assert chat.regenerate(0).text == turns[0].answer
    chat.undo()
    assert chat.turns == ()
    assert chat.count_tokens() == 0
    for action in (
        chat.undo,
        chat.regenerate,
        lambda: chat.edit(0, "x"),
        lambda: chat.edit(-2, "x"),
    ):
        with pytest.raises(IndexError):
            action()


def test_a_fork_goes_on_alone(model):
    chat = model.conversation(max_tokens=20)
    for text in SAYINGS[:2]:
        chat.say(text).text  # noqa: B018
    fork, first = chat.fork(), chat.fork(1)
    assert fork.turns == chat.turns
    assert first.turns == chat.turns[:1]
    one, other = fork.say("One").text, first.say("Other").text
    assert len(chat.turns) == 2
    assert one == alone(model, fork.turns[-1].prompt, max_tokens=20).text
    assert other == alone(model, first.turns[-1].prompt, max_tokens=20).text
    assert chat.say("One").text == one


def test_a_new_system_prompt_starts_again(model):
    chat = model.conversation(max_tokens=20)
    chat.say("Hello").text  # noqa: B018
    chat.set_system("Be brief.")
    assert chat.turns == ()
    assert chat.system == "Be brief."
    chat.say("Hello").close()
    assert list(chat.turns[0].prompt) == model.apply_chat_template(MESSAGES)


def test_a_template_that_hides_answers_is_rendered_whole(model, monkeypatch):
    monkeypatch.setattr(type(model.chat_templates), "encode_after", lambda *_: None)
    chat = model.conversation(max_tokens=20)
    for text in SAYINGS[:2]:
        answer = chat.say(text).text
        assert answer == alone(model, chat.turns[-1].prompt, max_tokens=20).text
    messages = chat.messages[:-1]
    assert list(chat.turns[-1].prompt) == model.apply_chat_template(messages)


def test_a_chat_that_is_too_long(model):
    small = Model(MODEL, context=48)
    chat = small.conversation(max_tokens=100)
    assert chat.say("Hello").result.finish_reason == "interrupted"
    chat.say("Tell a story", ignore_eos=True).text  # noqa: B018
    assert chat.turns[-1].finish_reason == "context"
    turns = chat.turns
    with pytest.raises(ValueError, match="the context holds 48"):
        chat.say("More")
    assert chat.turns == turns
    chat.undo()
    assert len(chat.turns) == 1


# Structured output.


def count_steps(model, monkeypatch):
    steps = []
    step = type(model._engine).step

    def counted(self, chunks, *rest, **named):
        steps.append([len(ids) for _, ids in chunks])
        return step(self, chunks, *rest, **named)

    monkeypatch.setattr(type(model._engine), "step", counted)
    return steps


@pytest.mark.parametrize("sampling", [Sampling(), WARM], ids=["greedy", "sampled"])
def test_json_follows_its_schema(model, sampling, monkeypatch):
    steps = count_steps(model, monkeypatch)
    out = model.generate(
        "A person as JSON:", max_tokens=80, sampling=sampling, response_format=SCHEMA
    )
    assert out.finish_reason == "eos"
    assert out.parsed == json.loads(out.text)
    assert out.parsed.keys() == {"name", "age"}
    # Forced tokens run together: there are fewer steps than tokens, and each token ran once.
    prompt, *rest = steps
    assert [prompt] == [[model.count_tokens("A person as JSON:")]]
    assert len(rest) <= len(out.ids) - 8
    assert sum(map(sum, rest)) <= len(out.ids)
    assert rest[0] == [len(model.tokenize('{"name":"', add_bos=False))]
    # A chat and a stream give the same, and so does a batch.
    options = {"max_tokens": 80, "sampling": sampling, "response_format": SCHEMA}
    stream = model.stream("A person as JSON:", **options)
    assert "".join(stream) == out.text
    assert stream.result.parsed == out.parsed
    many = model.generate(["Hello", "A person as JSON:", "Once"], **options)
    assert same(many[1], out)
    for prompt, one in zip(["Hello", "Once"], [many[0], many[2]], strict=True):
        assert same(one, model.generate(prompt, **options))


def test_forced_tokens_do_not_change_what_is_chosen(model):
    """Each token is the likeliest of those allowed, after all that came before."""
    out = model.generate("Hello", max_tokens=60, response_format=SCHEMA)
    constraint = model._grammars.compile(SCHEMA).start()
    session = model.session()
    logits = session.step(model.tokenize("Hello"))
    for id in out.ids:
        allowed = constraint.allowed()
        forced = constraint.forced()
        best = max(allowed.nonzero()[0].tolist(), key=lambda i: (logits[i], -i))
        assert id == (forced[0] if forced else best)
        constraint.accept(id)
        logits = session.step([id])


@dataclasses.dataclass
class Person:
    name: str
    age: int


def test_types_regexes_choices_and_grammars(model):
    person = model.chat(MESSAGES, max_tokens=100, response_format=Person, sampling=WARM)
    if person.finish_reason == "eos":
        assert isinstance(person.parsed, Person)
    date = model.generate("Date:", response_format=Regex(r"\d{4}-\d\d-\d\d")).parsed
    assert [len(part) for part in date.split("-")] == [4, 2, 2]
    choice = model.generate("Yes or no?", response_format=["yes", "no"])
    assert choice.parsed in ("yes", "no")
    assert choice.finish_reason == "eos"
    lark = model.generate("Well", response_format=Lark('start: "so " ("be it" | "what")'))
    assert lark.parsed in ("so be it", "so what")


def test_a_text_that_is_cut_has_no_value(model):
    out = model.generate("Hello", max_tokens=5, response_format=SCHEMA)
    assert (out.finish_reason, out.parsed, len(out.ids)) == ("length", None, 5)
    none = model.generate("Hello", max_tokens=0, response_format=SCHEMA)
    assert (none.text, none.parsed) == ("", None)
    stopped = model.generate("Hello", max_tokens=50, response_format=SCHEMA, stop=['"age'])
    assert (stopped.finish_reason, stopped.parsed) == ("stop", None)
    whole = model.generate("Hello", max_tokens=50, response_format=SCHEMA)
    at_limit = model.generate("Hello", max_tokens=len(whole.ids), response_format=SCHEMA)
    assert same(at_limit, dataclasses.replace(whole, finish_reason=at_limit.finish_reason))
    assert at_limit.parsed == whole.parsed


def test_what_cannot_be_followed_is_refused_before_a_step(model, monkeypatch):
    steps = count_steps(model, monkeypatch)
    for refused in ({"type": "strin"}, Regex("(")):
        with pytest.raises(GrammarError):
            model.generate("Hello", response_format=refused)
        with pytest.raises(GrammarError):
            model.chat_stream(MESSAGES, response_format=refused)
    with pytest.raises(TypeError, match="response_format is"):
        model.generate("Hello", response_format=3)
    for option in ({"ignore_eos": True}, {"min_tokens": 3}):
        with pytest.raises(ValueError, match="ignore_eos and min_tokens do not go with"):
            model.generate("Hello", response_format="json", **option)
    assert steps == []


@pytest.mark.parametrize("sampling", [Sampling(), WARM], ids=["greedy", "sampled"])
def test_log_probabilities_do_not_change_what_is_forced(model, sampling):
    options = {"max_tokens": 80, "sampling": sampling, "response_format": SCHEMA}
    out = model.generate("Hello", **options)
    scored = model.generate("Hello", logprobs=3, **options)
    assert same(scored, out)
    assert scored.parsed == out.parsed
    assert [token.id for token in scored.logprobs] == list(out.ids)
    # They are those of the same ids without any format.
    ids = [*model.tokenize("Hello"), *out.ids]
    plain = model.generate(ids, max_tokens=0, prompt_logprobs=3).prompt_logprobs
    for token, expected in zip(scored.logprobs, plain[-len(out.ids) :], strict=True):
        assert token.id == expected.id
        assert token.logprob == expected.logprob


def test_several_texts_may_follow_a_format(model):
    options = {"max_tokens": 80, "response_format": SCHEMA}
    out = model.generate("Hello", n=3, sampling=WARM, **options)
    for i, one in enumerate(out.choices):
        seeded = dataclasses.replace(WARM, seed=WARM.seed + i)
        alone_ = model.generate("Hello", sampling=seeded, **options)
        assert same(one, alone_)
        assert one.parsed == alone_.parsed


def test_options_of_a_conversation(model):
    with pytest.raises(TypeError, match="temperature is part of sampling"):
        model.conversation(temperature=1)
    chat = model.conversation(max_tokens=10)
    chat.say("Hello").text  # noqa: B018
    turns = chat.turns
    for action in (chat.say, lambda *_, **options: chat.regenerate(**options)):
        with pytest.raises(ValueError, match="n is for generate"):
            action("Hello", n=2)
    with pytest.raises(GrammarError):
        chat.edit(0, "Hello", response_format=Regex("("))
    assert chat.turns == turns
    scored = chat.say("Hello", logprobs=2, prompt_logprobs=0)
    assert scored.text
    assert len(scored.result.prompt_logprobs) == len(chat.turns[-1].prompt)
    expected = alone(model, chat.turns[-1].prompt, max_tokens=10, logprobs=2)
    assert scored.result.logprobs == expected.logprobs


def test_a_conversation_may_ask_for_json(model):
    chat = model.conversation(max_tokens=60)
    answer = chat.say("A person", response_format=SCHEMA)
    assert json.loads(answer.text) == answer.result.parsed
    follow = chat.say("Hello").text
    assert follow == alone(model, chat.turns[-1].prompt, max_tokens=60).text


def test_threads_may_chat_at_once(model):
    expected = model.chat(MESSAGES, max_tokens=30, response_format=SCHEMA)
    wrong = []

    def work():
        for _ in range(3):
            out = model.chat(MESSAGES, max_tokens=30, response_format=SCHEMA)
            wrong.extend([] if same(out, expected) else [out])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
