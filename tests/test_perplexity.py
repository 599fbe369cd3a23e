"""Log-probabilities and perplexity, against single forward passes and against transformers."""

import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import refused

from bitnet_lut import Model
from bitnet_lut.cli import main
from bitnet_lut.convert import convert
from bitnet_lut.evaluate import perplexity
from bitnet_lut.runtime.engine import Engine
from bitnet_lut.runtime.scoring import Passage, score

B158 = "bitnet-b1.58/model-i2_s.gguf"
QWEN = "qwen2-plain/model-q8_0.gguf"
# In no window of 12 by 6 and of llama.cpp's windows of 12 is an activation near a rounding tie, on
# either side of which two programs would go on with other numbers (see tests/data/README.md).
IDS = [624, 75, 12, 72, 17, 553, 82, 301, 381, 377, 67, 220, 220, 81, 370, 473, 304, 267, 38, 52]
IDS += [37, 572, 82, 365, 265, 220, 48, 21, 62, 42, 365, 556, 301, 395, 261, 82, 67, 568, 82, 14]
IDS += [75, 322, 77, 288, 88, 342, 33, 329]
# Qwen's float layers have no such ties: any text will do.
TEXT = Path(__file__).read_text(encoding="utf-8")[:1500]


@pytest.fixture(scope="module")
def b158(golden: Path) -> Model:
    return Model(golden / B158, kv="f32", threads=2)


@pytest.fixture(scope="module")
def qwen(golden: Path) -> Model:
    return Model(golden / QWEN, kv="f32", threads=2)


def losses(logits: np.ndarray, targets: Any) -> np.ndarray:
    """Negative log-probabilities in float64."""
    logits = logits.astype(np.float64)
    sums = np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1))
    return sums + logits.max(axis=1) - logits[np.arange(len(logits)), np.asarray(targets)]


def alone(model: Model, ids: list[int], start: int) -> tuple[np.ndarray, np.ndarray]:
    logits = model.forward(ids[:-1])[start - 1 :]
    return -losses(logits, ids[start:]), logits.argmax(axis=1) == ids[start:]


def test_many_passages_are_what_each_is_alone(b158: Model) -> None:
    """Short and long ones, some with a beginning in common, some of them equal."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, b158.config.vocab_size, (30, 200)).tolist()
    ids = [one[: 2 + place * 6] for place, one in enumerate(ids)]
    stem = ids[-1][:90]
    ids += [stem + ids[place] for place in (3, 4, 5)] + [stem + ids[3], stem[:40], stem]
    passages = [Passage(one, int(rng.integers(1, len(one)))) for one in ids]
    passages += [Passage([*stem, *more], 90) for more in ([7], [8], [9, 7])]
    steps: list[tuple[int, int]] = []
    found = score(b158._engine, passages, lambda done, total: steps.append((done, total)))
    for (one, start), scores in zip(passages, found, strict=True):
        logprobs, greedy = alone(b158, list(one), start)
        np.testing.assert_allclose(scores.logprobs, logprobs, rtol=0, atol=2e-6)
        np.testing.assert_array_equal(scores.greedy, greedy)
    assert steps[-1][0] == steps[-1][1] < sum(len(one) - 1 for one, _ in passages) - 300


def test_choices_of_one_token_take_a_single_run(b158: Model) -> None:
    stem = np.random.default_rng(3).integers(0, b158.config.vocab_size, 50).tolist()
    passages = [Passage([*stem, id], start) for id in (5, 6, 7, 6) for start in (50, 48)]
    passages += [Passage([*stem, 6, 8], 50), Passage([*stem[:40], 9], 40), Passage(stem, 49)]
    steps: list[tuple[int, int]] = []
    found = score(b158._engine, passages, lambda done, total: steps.append((done, total)))
    for (one, start), scores in zip(passages, found, strict=True):
        logprobs, greedy = alone(b158, list(one), start)
        np.testing.assert_allclose(scores.logprobs, logprobs, rtol=0, atol=2e-6)
        np.testing.assert_array_equal(scores.greedy, greedy)
    # The stem once, and what each start has to see again before its first scored id.
    assert steps[-1][0] == steps[-1][1] <= 50 + 10


def test_greedy_is_what_generate_writes(b158: Model) -> None:
    written = list(b158.generate("import", max_tokens=8, ignore_eos=True).ids)
    context = b158.tokenize("import")
    assert b158.loglikelihood(context, written).is_greedy
    assert not b158.loglikelihood(context, [*written[:-1], written[-1] ^ 1]).is_greedy


def test_steps_are_full_and_hold_few_logits(b158: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    step = Engine.step

    def counted(self: Engine, chunks: Any, rows: Any, logits: Any) -> Any:
        seen.append((sum(len(ids) for _, ids in chunks), len(logits)))
        return step(self, chunks, rows, logits)

    monkeypatch.setattr(Engine, "step", counted)
    rng = np.random.default_rng(2)
    ids = rng.integers(0, b158.config.vocab_size, (64, 17)).tolist()
    score(
        b158._engine,
        [*(Passage(one, 1) for one in ids[20:]), Passage(np.ravel(ids[:20]).tolist(), 300)],
    )
    assert [tokens for tokens, _ in seen[:-1]] == [128] * (len(seen) - 1)
    assert max(rows for _, rows in seen) <= 128


def test_loglikelihood(b158: Model) -> None:
    one = b158.loglikelihood("import ", "os\n")
    ids = b158.tokenize("import os\n")
    start = len(b158.tokenize("import"))  # the space belongs to the continuation
    assert one.logprob == pytest.approx(alone(b158, ids, start)[0].sum(), abs=1e-5)
    assert one == b158.loglikelihood(ids[:start], ids[start:])
    many = b158.loglikelihood(["import ", "", "import "], ["os\n", "def", "sys"])
    assert many[0] == one
    bos = b158.tokenizer.bos_id
    assert bos is not None
    assert many[1] == b158.loglikelihood([bos], b158.tokenize("def", add_bos=False))
    assert many[1] == b158.loglikelihood("<|begin_of_text|>", "def")
    assert b158.loglikelihood("import ", ["os\n", "sys"]) == [many[0], many[2]]


def test_errors_name_the_pair(b158: Model) -> None:
    with pytest.raises(ValueError, match="pair 1: the continuation has no tokens of its own"):
        b158.loglikelihood(["a", "a"], ["b", ""])
    with pytest.raises(ValueError, match="2 contexts for 1 continuations"):
        b158.loglikelihood(["a", "a"], ["b"])
    with pytest.raises(TypeError, match="must both be texts, or both be ids"):
        b158.loglikelihood("a", [5])
    with pytest.raises(ValueError, match="token 0 is 9999"):
        b158.loglikelihood([1], [9999])
    with pytest.raises(ValueError, match=f"do not fit the context of {b158.context}"):
        b158.loglikelihood([1] * b158.context, [2, 3])
    assert b158.loglikelihood([1] * b158.context, [2]).logprob < 0  # the last one does not run


def test_the_windows_of_llama_cpp(qwen: Model, b158: Model) -> None:
    for model, text in ((qwen, TEXT), (b158, IDS)):
        found = perplexity(model, text, context=12)
        ids = model.tokenize(text) if isinstance(text, str) else text
        all_losses = []
        for start in range(0, len(ids) - 11, 12):
            window = list(ids[start : start + 12])
            if model.tokenizer.add_bos:
                window[0] = model.tokenizer.bos_id
            logits = model.forward(window)
            all_losses.append(losses(logits[6:11], window[7:]))
        every = np.concatenate(all_losses)
        assert found.perplexity == pytest.approx(math.exp(every.mean()), rel=1e-5)
        spread = every.std() / math.sqrt(len(every) - 1)
        assert found.error == pytest.approx(math.exp(every.mean()) * spread, rel=1e-5)
        assert found.tokens == len(every) == 5 * found.windows
        assert (found.context, found.stride, found.like) == (12, 12, "llama.cpp")
        nbytes = sum(
            len(model.tokenizer.piece(id))
            for start in range(0, len(ids) - 11, 12)
            for id in ids[start + 7 : start + 12]
        )
        bits = every.sum() / math.log(2) / nbytes
        assert found.bits_per_byte == pytest.approx(bits, rel=1e-5)


# Written from the two definitions: https://huggingface.co/docs/transformers/perplexity, and
# perplexity() of llama.cpp's tools/perplexity/perplexity.cpp.
TRANSFORMERS = """
import json, sys, torch, transformers
where, text, likes = json.loads(sys.stdin.read())
load = {"dtype": torch.float32, **where}
model = transformers.AutoModelForCausalLM.from_pretrained(**load, attn_implementation="eager")
tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
ids = tokenizer(text).input_ids if isinstance(text, str) else text

def sliding(context, stride):
    total, count, before = 0.0, 0, 0
    for start in range(0, len(ids), stride):
        end = min(start + context, len(ids))
        window = torch.tensor([ids[start:end]])
        labels = window.clone()
        labels[:, : -(end - before)] = -100
        new = int((labels != -100).sum()) - 1
        if new:
            total += model(window, labels=labels).loss.item() * new
        count += new
        before = end
        if end == len(ids):
            break
    return total / count

def halves(context, stride):
    found = []
    for start in range(0, len(ids) - context + 1, context):
        window = torch.tensor(ids[start : start + context])
        if bos is not None:
            window[0] = bos
        logits = model(window[None]).logits[0, context // 2 : -1].double()
        found.append(torch.nn.functional.cross_entropy(logits, window[context // 2 + 1 :]))
    return torch.stack(found).mean().item()

torch.set_num_threads(1)
bos = tokenizer.bos_token_id if tokenizer("a").input_ids[0] == tokenizer.bos_token_id else None
definitions = {"transformers": sliding, "llama.cpp": halves}
with torch.no_grad():
    print(json.dumps([definitions[like](*sizes) for like, *sizes in likes]))
"""


def of_transformers(where: dict[str, str], text: str | list[int], likes: Any) -> list[float]:
    missing = [name for name in ("torch", "transformers", "accelerate") if not find_spec(name)]
    if missing:
        pytest.skip(f"NOT COMPARED WITH transformers: {', '.join(missing)} cannot be imported")
    done = subprocess.run(
        [sys.executable, "-c", TRANSFORMERS],
        input=json.dumps([where, text, likes]),
        env={**os.environ, "TORCHDYNAMO_DISABLE": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [math.exp(mean) for mean in json.loads(done.stdout)]


def check(model: Model, text: str | list[int], where: dict[str, str], likes: Any) -> None:
    expected = of_transformers(where, text, likes)
    for (like, context, stride), figure in zip(likes, expected, strict=True):
        found = perplexity(model, text, like=like, context=context, stride=stride)
        assert found.perplexity == pytest.approx(figure, rel=1e-4)


def test_perplexity_of_a_dense_model_is_that_of_transformers(golden: Path, qwen: Model) -> None:
    pytest.importorskip("gguf")
    where = {
        "pretrained_model_name_or_path": str(golden / "qwen2-plain"),
        "gguf_file": "model-q8_0.gguf",
    }
    sliding = [("transformers", *sizes) for sizes in ((200, 50), (64, 64), (40, 39))]
    check(qwen, TEXT, where, [*sliding, ("llama.cpp", 32, None)])


def test_perplexity_of_a_ternary_model_is_that_of_transformers(
    golden: Path, b158: Model, tmp_path: Path
) -> None:
    convert(golden / B158, tmp_path / "folder", type="hf")
    where = {"pretrained_model_name_or_path": str(tmp_path / "folder")}
    check(b158, IDS, where, [("transformers", 12, 6), ("llama.cpp", 12, None)])


def test_a_single_window_has_the_golden_perplexity(golden: Path, b158: Model) -> None:
    results = np.load(golden / "bitnet-b1.58/reference.npz")
    ids = results["ids__40"].tolist()
    expected = math.exp(losses(results["logits_transformers__40"][:-1], ids[1:]).mean())
    found = perplexity(b158, ids, like="transformers", context=40)
    assert found.perplexity == pytest.approx(expected, rel=1e-4)
    assert (found.tokens, found.text_tokens, found.windows) == (39, 40, 1)


def test_arguments_are_checked(b158: Model) -> None:
    for message, options in (
        ("48 tokens, two windows of 100 are the least", {"context": 100}),
        ("stride is for like='transformers'", {"stride": 4}),
        ("stride is 13, it must be 1 to 12", {"like": "transformers", "context": 12, "stride": 13}),
        ("context is 3, it must be 4 to", {"context": 3}),
        ("like is 'other', it must be 'llama.cpp' or 'transformers'", {"like": "other"}),
    ):
        with pytest.raises(ValueError, match=message):
            perplexity(b158, IDS, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the text has 1 tokens, at least three"):
        perplexity(b158, "", like="transformers")


def test_the_command(golden: Path, tmp_path: Path, qwen: Model, capsys: Any) -> None:
    (tmp_path / "text").write_text(TEXT, encoding="utf-8")
    command = ["perplexity", "-m", str(golden / QWEN), "--text", str(tmp_path / "text")]
    command += ["--kv", "f32", "--context", "64"]
    assert main(command) == 0
    expected = perplexity(qwen, TEXT, context=64)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"perplexity     {expected.perplexity:.4f} +/- {expected.error:.4f}"
    assert lines[2] == f"tokens         {expected.tokens:,} scored of {expected.text_tokens:,}"
    assert lines[3] == f"windows        {expected.windows}, context 64, stride 64"
    assert main([*command, "--like", "transformers", "--stride", "32", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = perplexity(qwen, TEXT, like="transformers", context=64, stride=32)
    assert found["perplexity"] == expected.perplexity
    assert (found["stride"], found["kv"], found["tokens"]) == (32, "f32", expected.tokens)


def test_a_file_that_is_no_text(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "text").write_bytes(b"abc\xff")
    said = refused(capsys, "perplexity", "--text", tmp_path / "text")
    assert said.endswith("text: not UTF-8 text at byte 3")
