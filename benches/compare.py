"""Compare the speed of two commits or builds: python benches/compare.py REV_A REV_B.

Each is a revision of this repository, which is built in a folder of its own, or a folder that holds
a build (where bitnet_lut/ lies with its compiled module). Both open the same model in a process of
their own and take turns, so that a machine whose speed varies treats them alike.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

from bitnet_lut.bench.machine import machine
from bitnet_lut.bench.report import table
from bitnet_lut.cli.options import numbers, positive
from bitnet_lut.convert.synth import synthesize

ROOT = Path(__file__).parents[1]
_HEADER = ("what", "threads", "A", "B", "B / A", "of single rounds")

# Uses only what the package has had from its first version on.
_WORKER = """
import json, sys, time
import bitnet_lut
print(json.dumps(bitnet_lut.__file__), flush=True)
models = {}
for line in sys.stdin:
    what, n, threads = json.loads(line)
    if threads not in models:
        models[threads] = bitnet_lut.Model(sys.argv[1], threads=threads)
    session = models[threads].session(context=n + 1)
    if what == "prompt":
        start = time.perf_counter()
        session.step([i % 500 for i in range(n)])
    else:
        session.step([0])
        start = time.perf_counter()
        for i in range(n):
            session.step([i % 500])
    print(time.perf_counter() - start, flush=True)
"""


@dataclass(frozen=True)
class Comparison:
    """Tokens per second of both, round by round; A and B of one round followed each other."""

    what: str
    tokens: int
    threads: int
    a: Sequence[float]
    b: Sequence[float]

    @property
    def ratio(self) -> float:
        """How many times as fast B is, by medians."""
        return statistics.median(self.b) / statistics.median(self.a)

    @property
    def ratios(self) -> list[float]:
        """The same of every round."""
        return [b / a for a, b in zip(self.a, self.b, strict=True)]


class Worker:
    """A process that runs one of the builds."""

    def __init__(self, folder: Path, model: Path) -> None:
        """Start it; ValueError if it does not import the package from *folder*."""
        # Without an empty entry, which would be the current folder.
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _WORKER, str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        found = Path(json.loads(self._line()))
        if not found.is_relative_to(folder.resolve()):
            self.close()
            raise ValueError(f"{folder} holds no build: Python found {found}")

    def seconds(self, what: str, tokens: int, threads: int) -> float:
        """Run *tokens* once."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([what, tokens, threads]) + "\n")
        self._process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        """End it."""
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ValueError(f"a build ended with code {self._process.wait()}; see above")
        return line


def compare(
    a: Worker, b: Worker, tasks: Sequence[tuple[str, int, int]], rounds: int
) -> list[Comparison]:
    """Measure each of *tasks* (what, tokens, threads), after one round that does not count."""
    speeds: list[tuple[list[float], list[float]]] = [([], []) for _ in tasks]
    for turn in range(rounds + 1):
        for (what, tokens, threads), found in zip(tasks, speeds, strict=True):
            pair = ((a, found[0]), (b, found[1]))
            for worker, kept in pair if turn % 2 else reversed(pair):
                seconds = worker.seconds(what, tokens, threads)
                if turn:
                    kept.append(tokens / seconds)
    return [Comparison(*task, *found) for task, found in zip(tasks, speeds, strict=True)]


def build(revision: str, builds: Path) -> tuple[str, Path]:
    """The name and the folder of a build, made if need be; a folder is one already."""
    if Path(revision).is_dir():
        return revision, Path(revision).resolve()
    command = ["git", "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{revision} is neither a folder nor a revision of this repository")
    commit = done.stdout.strip()
    folder = builds.resolve() / commit
    if not folder.exists():
        half = folder.with_suffix(".half")
        shutil.rmtree(half, ignore_errors=True)
        archive = subprocess.run(
            ["git", "archive", commit], cwd=ROOT, capture_output=True, check=True
        )
        with tarfile.open(fileobj=BytesIO(archive.stdout)) as tar:
            tar.extractall(half, filter="data")
        print(f"building {commit[:9]} ...", file=sys.stderr)
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        subprocess.run(command, cwd=half, check=True, stdout=sys.stderr)
        half.rename(folder)
    return f"{revision} ({commit[:9]})", folder


@contextmanager
def _place(given: Path | None) -> Iterator[Path]:
    """The folder given, or one for the time being."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="bitnet_lut-compare-") as folder:
        yield Path(folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", metavar="REV_A")
    parser.add_argument("b", metavar="REV_B")
    parser.add_argument(
        "-m",
        "--model",
        type=Path,
        default=os.environ.get("BITNET_LUT_BENCH_MODEL"),
        help="default: BITNET_LUT_BENCH_MODEL, or the 2B-4T shape, synthesized",
    )
    parser.add_argument("--builds", type=Path, help="keep builds here, for the next time")
    parser.add_argument("--threads", type=numbers, default=[1], help="such as 1,2; default 1")
    parser.add_argument("--prompt", type=numbers, default=[128], help="tokens; '' for none")
    parser.add_argument("--generate", type=numbers, default=[64], help="tokens; '' for none")
    parser.add_argument("--rounds", type=positive, default=7, help="default 7")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    return parser.parse_args()


def main() -> None:
    options = _arguments()
    kinds = (("prompt", options.prompt), ("generate", options.generate))
    tasks = [(what, n, t) for t in options.threads for what, ns in kinds for n in ns]
    with ExitStack() as stack:
        folder = stack.enter_context(_place(options.builds))
        names, folders = zip(*(build(one, folder) for one in (options.a, options.b)), strict=True)
        model = options.model
        if model is None:
            model = folder / "2b-4t.gguf"
            if not model.exists():
                synthesize(model, "2b-4t")
        workers = []
        for one in folders:
            workers.append(Worker(one, model))
            stack.callback(workers[-1].close)
        load = os.getloadavg()[0]
        found = compare(*workers, tasks, options.rounds)
    if options.json:
        rows = [asdict(one) | {"ratio": one.ratio, "ratios": one.ratios} for one in found]
        shown = {"a": names[0], "b": names[1], "machine": asdict(machine()), "load": load}
        print(json.dumps({**shown, "comparisons": rows}, indent=1))
        return
    print(f"machine  {machine()}; load {load:.1f}")
    print(f"A        {names[0]}\nB        {names[1]}\n")
    for line in table([_HEADER, *map(_cells, found)]):
        print(line)


def _cells(one: Comparison) -> tuple[str, ...]:
    speeds = (f"{statistics.median(some):.1f} tokens/s" for some in (one.a, one.b))
    spread = f"{min(one.ratios):.2f} to {max(one.ratios):.2f}"
    return (f"{one.what} {one.tokens}", str(one.threads), *speeds, f"{one.ratio:.3f}", spread)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"compare.py: error: {error}")
