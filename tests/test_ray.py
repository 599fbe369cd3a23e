"""Ray on this machine: two workers, of which one is killed midway. Nothing is lost or changed."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bitnet_lut import Model
from bitnet_lut.demo import MODEL

ray = pytest.importorskip("ray", reason="NO RAY: nothing is tried on several workers")
pytest.importorskip("ray.serve", reason="NO RAY SERVE: nothing is tried on several workers")
openai = pytest.importorskip("openai")

# Ray leaves sockets and files to the end of the process.
pytestmark = pytest.mark.filterwarnings("ignore")

PROMPTS = [f"Once upon a time there were {count} mice" for count in range(120)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two workers. They would find the sources of the package in the folder where Ray starts."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("ray"))
    try:
        ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        os.chdir(before)


def kill_one(name: str) -> None:
    """End one of several workers as a machine that fails would."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if line.startswith(b"ray::" + name.encode()):
            found.append(int(folder.name))
    assert len(found) == 2, found
    os.kill(found[0], signal.SIGKILL)


def test_a_dataset_of_which_a_worker_is_lost(cluster: None, tmp_path: Path) -> None:
    import ray.data

    from bitnet_lut.ray import generate

    rows = ray.data.from_items(
        [{"number": n, "prompt": text} for n, text in enumerate(PROMPTS)], override_num_blocks=12
    )
    options: dict[str, Any] = {"max_tokens": 60, "ignore_eos": True}
    found = []
    for row in generate(rows, str(MODEL), workers=2, batch=10, **options).iter_rows():
        if not found:
            kill_one("MapWorker")
        found.append(row)
    alone = Model(MODEL, threads=1).generate(PROMPTS, **options)
    texts = {row["number"]: row["text"] for row in found}
    assert len(found) == len(PROMPTS)
    assert [texts[n] for n in range(len(PROMPTS))] == [one.text for one in alone]


def test_a_service_of_which_a_replica_is_lost(cluster: None) -> None:
    from ray import serve

    from bitnet_lut.ray import application
    from bitnet_lut.server import Settings

    serve.run(application(str(MODEL), Settings(name="demo"), replicas=2))
    with (
        openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none", max_retries=8) as client,
        ThreadPoolExecutor(8) as pool,
    ):

        def ask(prompt: str) -> str:
            answer = client.completions.create(
                model="demo", prompt=prompt, max_tokens=60, temperature=0
            )
            return str(answer.choices[0].text)

        asked = [pool.submit(ask, prompt) for prompt in PROMPTS[:60]]
        while not asked[4].done():
            time.sleep(0.01)
        kill_one("ServeReplica:default:")
        found = [one.result() for one in asked]
    serve.shutdown()
    alone = Model(MODEL, threads=1).generate(PROMPTS[:60], max_tokens=60)
    assert found == [one.text for one in alone]
