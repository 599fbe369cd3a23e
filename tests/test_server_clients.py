"""Clients of others against the server, as their users would run them; none needs a network."""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from serving import served

from bitnet_lut import Model
from bitnet_lut.demo import MODEL

# What others warn of at their import is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

QUESTION = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": QUESTION}]


@pytest.fixture(autouse=True)
def leftovers() -> Iterator[None]:
    """Have what clients leave open closed here, where warnings of it do not count."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(MODEL, threads=2)


@pytest.fixture(scope="module")
def address(model: Model) -> Iterator[str]:
    with served(model) as (found, _):
        yield found


@pytest.fixture(scope="module")
def expected(model: Model) -> str:
    return model.chat(MESSAGES, max_tokens=20).text


LITELLM = """
import sys
import litellm

common = {
    "model": "openai/demo",
    "api_base": sys.argv[1],
    "api_key": "none",
    "messages": [{"role": "user", "content": sys.argv[2]}],
    "temperature": 0,
    "max_tokens": 20,
}
print(litellm.completion(**common).choices[0].message.content)
pieces = litellm.completion(**common, stream=True)
print("".join(piece.choices[0].delta.content or "" for piece in pieces))
"""


def test_litellm(address: str, expected: str) -> None:
    """In a process of its own: it leaves event loops open."""
    if find_spec("litellm") is None:
        pytest.skip("NO LITELLM: that client is not tried")
    done = subprocess.run(
        [sys.executable, "-c", LITELLM, f"{address}/v1", QUESTION],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [expected, expected]


def test_langchain(address: str, expected: str) -> None:
    langchain = pytest.importorskip("langchain_openai", reason="NO LANGCHAIN: it is not tried")
    chat = langchain.ChatOpenAI(
        model="demo", base_url=f"{address}/v1", api_key="none", temperature=0, max_tokens=20
    )
    assert chat.invoke(QUESTION).content == expected
    assert "".join(piece.content for piece in chat.stream(QUESTION)) == expected


def test_llm(address: str, expected: str, tmp_path: Path) -> None:
    """The command line program of that name."""
    pytest.importorskip("llm", reason="NO LLM: that client is not tried")
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: demo\n  model_name: demo\n  api_base: {address}/v1\n", encoding="utf-8"
    )
    (tmp_path / "keys.json").write_text('{"openai": "none"}', encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "llm", "-m", "demo", "-o", "temperature", "0", QUESTION],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"LLM_USER_PATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == expected


def test_lm_eval(address: str, model: Model) -> None:
    """Its log-likelihoods over HTTP are those of the logits of `Model.forward`."""
    completions = pytest.importorskip(
        "lm_eval.models.openai_completions", reason="NO LM_EVAL: it is not tried over HTTP"
    )
    from lm_eval.api.instance import Instance

    remote = completions.LocalCompletionsAPI(
        base_url=f"{address}/v1/completions", model="demo", tokenizer_backend="remote"
    )
    pairs = [("The capital of France is", " Paris."), ("Once upon a time", " there was a mouse")]
    requests = [
        Instance("loglikelihood", {}, pair, index, ("task", index, 1))
        for index, pair in enumerate(pairs)
    ]
    for (context, continuation), (total, greedy) in zip(
        pairs, remote.loglikelihood(requests), strict=True
    ):
        before, ids = (
            model.tokenize(text, add_bos=False) for text in (context, context + continuation)
        )
        logits = model.forward(ids).astype(np.float64)[:, : model.tokenizer.vocab_size]
        shifted = logits - logits.max(axis=1, keepdims=True)
        scores = [
            float(shifted[at - 1, ids[at]]) - float(np.log(np.exp(shifted[at - 1]).sum()))
            for at in range(len(before), len(ids))
        ]
        assert total == pytest.approx(sum(scores), abs=1e-6)
        best = [int(logits[at - 1].argmax()) == ids[at] for at in range(len(before), len(ids))]
        assert greedy == all(best)


def test_schemathesis(address: str, tmp_path: Path) -> None:
    """Bodies made up from the server's own document never make it fail."""
    pytest.importorskip("schemathesis", reason="NO SCHEMATHESIS: no bodies are made up")
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("run", f"{address}/openapi.json", "--checks", "not_a_server_error"),
            *("--max-examples", os.environ.get("BITNET_LUT_SCHEMATHESIS", "15")),
            *("--phases", "fuzzing", "--seed", "7", "--request-timeout", "60"),
        ],
        capture_output=True,
        text=True,
        timeout=1200,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_openai_structured_output(address: str) -> None:
    """What the client parses into a type, by a schema that it makes itself."""
    openai: Any = pytest.importorskip("openai")
    pydantic = pytest.importorskip("pydantic")
    # Of values that end: a small model may write a text for ever.
    kind = pydantic.create_model("City", name=(Literal["Paris", "Rome"], ...), big=(bool, ...))
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none") as client:
        answer = client.chat.completions.parse(
            model="demo", messages=MESSAGES, response_format=kind, temperature=0
        )
    message = answer.choices[0].message
    assert message.parsed == kind(**json.loads(message.content))
