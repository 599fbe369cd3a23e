"""``bitnet-lut run``: every option does what the argument of the same name does in Python."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from model_files import rewritten

from bitnet_lut import Lark, Model, Regex, Sampling
from bitnet_lut.cli import main
from bitnet_lut.demo import MODEL

PROMPT = "Once upon a time"
WARM = {"temperature": 0.9, "seed": 7}
DRY = {"dry_multiplier": 3.0, "dry_allowed_length": 1}


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(MODEL)


def run(capsys: Any, *options: object, code: int = 0) -> tuple[str, str]:
    """What the command prints for these options: (standard output, standard error)."""
    assert main(["run", "-m", str(MODEL), "-n", "24", *map(str, options)]) == code
    return capsys.readouterr()


@pytest.mark.parametrize(
    ("options", "same"),
    [
        (["--bad-word", "there", "--bad-word", " was"], {"bad_words": ["there", " was"]}),
        (["--stop-token-id", "11"], {"stop_token_ids": [11]}),
        (["--min-tokens", "20"], {"min_tokens": 20}),
        (["--logit-bias=11=-inf", "--logit-bias=12=2.5"], {"logit_bias": {11: -1e9, 12: 2.5}}),
        (["--dry-multiplier=3", "--dry-allowed-length=1"], DRY),
        (
            ["--dry-multiplier=3", "--dry-allowed-length=1", "--dry-sequence-breaker=e"],
            {**DRY, "dry_sequence_breakers": ["e"]},
        ),
        (["--temperature=0.9", "--seed=7"], WARM),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_are_those_of_python(
    model: Model, capsys: Any, options: list[str], same: dict[str, Any]
) -> None:
    ours = {"bad_words", "stop_token_ids", "min_tokens"}
    sampling = Sampling(**{name: value for name, value in same.items() if name not in ours})
    rest = {name: value for name, value in same.items() if name in ours}
    expected = model.generate(PROMPT, max_tokens=24, sampling=sampling, **rest)
    assert run(capsys, *options, PROMPT)[0] == expected.text + "\n"


def test_what_options_become(model: Model, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    stream = Model.stream

    def note(self: Model, prompt: Any, **options: Any) -> Any:
        asked.append(options)
        return stream(self, prompt, **options)

    monkeypatch.setattr(Model, "stream", note)
    given = ["--dry-sequence-breaker=e", "--dry-sequence-breaker=. ", "--logit-bias=7=-inf"]
    run(capsys, *given, "--bad-word= was", "--bad-word=a", PROMPT)
    (options,) = asked
    assert options["sampling"].dry_sequence_breakers == ("e", ". ")
    assert dict(options["sampling"].logit_bias) == {7: -math.inf}
    assert options["bad_words"] == [" was", "a"]
    assert " was" in model.generate(PROMPT, max_tokens=24).text


@pytest.mark.parametrize(
    ("options", "response_format"),
    [
        (["--regex", r"\d{3}-\d{2}"], Regex(r"\d{3}-\d{2}")),
        (["--choice", " Rome", "--choice", " Oslo"], [" Rome", " Oslo"]),
        (["--json"], "json"),
        (["--grammar", "grammar.lark"], Lark('start: "yes" | "no"')),
    ],
    ids=lambda value: str(value)[:12],
)
def test_formats(
    model: Model,
    capsys: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    response_format: Any,
) -> None:
    pytest.importorskip("llguidance")
    (tmp_path / "grammar.lark").write_text('start: "yes" | "no"')
    monkeypatch.chdir(tmp_path)
    expected = model.generate(PROMPT, max_tokens=24, response_format=response_format)
    assert run(capsys, *options, PROMPT)[0] == expected.text + "\n"


def test_two_formats_are_refused(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        run(capsys, "--json", "--regex", "a", PROMPT)
    assert "not allowed with argument --json" in capsys.readouterr().err


def test_several_texts(model: Model, capsys: Any) -> None:
    out, err = run(capsys, "--texts=3", "--temperature=0.9", "--seed=7", PROMPT)
    found = model.generate(PROMPT, max_tokens=24, n=3, sampling=Sampling(**WARM))
    assert out == "\n---\n".join(choice.text for choice in found.choices) + "\n"
    assert err.count("ended by") == 3


def test_the_prompt_is_scored(model: Model, capsys: Any) -> None:
    _, err = run(capsys, "--prompt-logprobs=1", PROMPT)
    scored = model.generate(PROMPT, max_tokens=1, prompt_logprobs=1).prompt_logprobs
    assert scored is not None
    expected = [one.logprob for one in scored if one is not None]
    assert [float(line.split()[0]) for line in err.splitlines()[1:-1]] == pytest.approx(
        expected, abs=1e-3
    )


def test_a_template_by_name(capsys: Any) -> None:
    pytest.importorskip("jinja2")
    named, _ = run(capsys, "--chat", "--template=default", "Hello")
    assert named == run(capsys, "--chat", "Hello")[0]
    _, err = run(capsys, "--chat", "--template=none", "Hello", code=2)
    assert "no chat template 'none': this model has default" in err
    assert "--template is for a chat" in run(capsys, "--template=x", "Hello", code=2)[1]


@pytest.mark.parametrize("command", ["run", "chat"])
@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--temperature=-1", "temperature is -1.0"),
        ("--temperature=nan", "temperature is nan"),
        ("--top-p=0", "top_p is 0.0"),
        ("--top-k=-1", "top_k is -1"),
        ("--seed=-1", "seed is -1"),
        ("--dry-sequence-breaker=", "dry_sequence_breakers holds ''"),
    ],
)
def test_numbers_that_make_no_sense_are_told_before_a_model_is_opened(
    capsys: Any, command: str, option: str, text: str
) -> None:
    rest = ["Hello"] if command == "run" else []
    assert main([command, "-m", "there-is-no-such-file.gguf", option, *rest]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("value", ["5", "x=1", "5=x", "-1=2"])
def test_biases_that_make_no_sense(capsys: Any, value: str) -> None:
    with pytest.raises(SystemExit):
        run(capsys, f"--logit-bias={value}", PROMPT)
    assert re.search("of the form ID=NUMBER|not a positive", capsys.readouterr().err)


def test_what_the_model_recommends(capsys: Any, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    keys = {"general.sampling.temp": 0.0, "general.sampling.penalty_repeat": 4.0}
    rewritten(MODEL, file, keys=keys)
    model = Model(file)
    assert model.default_sampling == Sampling(repetition_penalty=4.0)
    expected = [
        model.generate(PROMPT, max_tokens=24, sampling=sampling).text + "\n"
        for sampling in ("model", Sampling(repetition_penalty=4.0, top_k=3, **WARM), None)
    ]
    assert len(set(expected)) == 3
    command = ["run", "-m", str(file), "-n", "24", PROMPT]
    warm = ["--model-sampling", "--temperature=0.9", "--seed=7", "--top-k=3"]
    for options, text in zip((["--model-sampling"], warm, []), expected, strict=True):
        assert main([*command, *options]) == 0
        assert capsys.readouterr().out == text
