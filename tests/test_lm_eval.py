"""The adapter for lm-eval, against lm-eval's own hf model on the same golden file."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from bitnet_lut import Model
from bitnet_lut.convert import convert

NEEDED = ("lm_eval", "torch", "transformers", "accelerate", "gguf")
if missing := [name for name in NEEDED if not find_spec(name)]:
    reason = f"NOT COMPARED WITH lm-eval: {', '.join(missing)} cannot be imported"
    pytest.skip(reason, allow_module_level=True)

TASKS = {
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}, {"metric": "word_perplexity"}],
    },
    "writing": {
        "output_type": "generate_until",
        "doc_to_text": "{{text[:40]}}",
        "doc_to_target": "x",
        "generation_kwargs": {"until": ["\n", "the"], "max_gen_toks": 24},
        "metric_list": [{"metric": "exact_match"}],
    },
}
SOURCE = Path(__file__).read_text(encoding="utf-8")
TEXTS = [{"text": SOURCE[start : start + n]} for start, n in ((0, 1500), (90, 300), (400, 40))]
QUESTIONS = [
    {"question": "def f(x):\n    return ", "choices": ["x", "x + 1", "None"], "answer": 0},
    {"question": "import ", "choices": ["os", "sys"], "answer": 1},
    {"question": "A long beginning " * 6, "choices": ["one", "two", "three\n"], "answer": 1},
]

PROGRAM = """
import json, sys
import bitnet_lut.evaluate.lm_eval
import lm_eval
from lm_eval.tasks import TaskManager

folder, file, tasks, names = json.loads(sys.argv[1])
found = {}
for model, arguments in {
    "hf": f"pretrained={folder},gguf_file={file},dtype=float32",
    "bitnet_lut": f"model={folder}/{file},kv=f32,threads=1",
}.items():
    results = lm_eval.simple_evaluate(
        model=model, model_args=arguments, tasks=names, device="cpu", bootstrap_iters=0,
        task_manager=TaskManager(include_path=tasks, include_defaults=False), log_samples=True,
    )
    rows = {task: [one["resps"] for one in rows] for task, rows in results["samples"].items()}
    found[model] = [results["results"], rows]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tasks, in JSON, which YAML is a superset of."""
    folder = tmp_path_factory.mktemp("tasks")
    for task, config in TASKS.items():
        data = folder / f"{task}.json"
        data.write_text(json.dumps(QUESTIONS if task == "choice" else TEXTS))
        place = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}}
        whole = {"task": task, "test_split": "test", **place, **config}
        (folder / f"{task}.yaml").write_text(json.dumps(whole))
    return folder


def python(tasks: Path, *arguments: str) -> str:
    """Run Python without a network, its caches in a temporary folder."""
    home = str(tasks / "home")
    offline = {"HF_HOME": home, "HF_HUB_OFFLINE": "1", "TORCHDYNAMO_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_figures_are_those_of_hf(golden: Path, tasks: Path) -> None:
    place = [str(golden / "qwen2-plain"), "model-q8_0.gguf", str(tasks), list(TASKS)]
    printed = python(tasks, "-c", PROGRAM, json.dumps(place))
    found = json.loads(printed.splitlines()[-1])
    (figures, rows), (our_figures, ours) = found["hf"], found["bitnet_lut"]
    assert our_figures["choice"] == figures["choice"]
    for metric in ("bits_per_byte,none", "word_perplexity,none"):
        assert our_figures["rolling"][metric] == pytest.approx(figures["rolling"][metric], rel=1e-5)
    assert ours["writing"] == rows["writing"]
    assert len(rows["choice"]) == len(rows["rolling"]) == 3
    for task in ("choice", "rolling"):
        assert flat(ours[task]) == pytest.approx(flat(rows[task]), abs=2e-4, rel=1e-6)


def flat(values: object) -> list[float]:
    """The numbers in nested lists, in order."""
    if isinstance(values, list):
        return [number for value in values for number in flat(value)]
    assert isinstance(values, int | float)
    return [float(values)]


# Short ones, in none of which an activation lies near a rounding tie (see tests/data/README.md).
PAIRS = [
    ["", "import os"],
    ["def f(x):\n    return ", " x"],
    ["import", "os.path"],
    ["class Foo(", "Bar):"],
    ["for i in range(n):\n", "    print(i)"],
    ["if x is None:  ", "return"],
    ["<|begin_of_text|>hello", "there"],
    ["raise ", "ValueError"],
]
PAIRS_PROGRAM = """
import json, sys
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from bitnet_lut.evaluate.lm_eval import BitnetLM

folder, pairs = json.loads(sys.argv[1])
requests = [Instance("loglikelihood", {}, tuple(pair), at) for at, pair in enumerate(pairs)]
models = [HFLM(folder, device="cpu", dtype="float32"), BitnetLM(folder, kv="f32", threads=1)]
print(json.dumps([model.loglikelihood(requests, disable_tqdm=True) for model in models]))
"""


def test_tokens_are_those_of_hf_with_bos(golden: Path, tasks: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    convert(golden / "bitnet-b1.58/model-i2_s.gguf", folder, type="hf")
    printed = python(tasks, "-c", PAIRS_PROGRAM, json.dumps([str(folder), PAIRS]))
    expected, ours = json.loads(printed.splitlines()[-1])
    assert flat(ours) == pytest.approx(flat(expected), abs=1e-4)
    with Model(folder, kv="f32") as model:
        alone = [[*model.loglikelihood(*pair)] for pair in PAIRS]
    assert flat(alone) == pytest.approx(flat(expected), abs=1e-4)


def test_the_command_of_the_page(golden: Path, tasks: Path) -> None:
    printed = python(
        tasks,
        "-m",
        "bitnet_lut.evaluate.lm_eval",
        *("--model", "bitnet_lut"),
        *("--model_args", f"model={golden}/bitnet-b1.58/model-i2_s.gguf,threads=1"),
        *("--tasks", "choice", "--include_path", str(tasks)),
    )
    assert "|choice" in printed
    assert "acc_norm" in printed
