"""Fuzz the readers: python tests/fuzz/run.py [TARGET ...] [--executions N] [--seed S]

The same seed gives the same inputs. An input that raises what it should not, or takes seconds, is
put into the folder of --failures; so is the current one, as TARGET.last, for what ends the process.
C is reached by "native" and "checkpoint": run them with a build for BITNET_LUT_DEBUG=1 and
LD_PRELOAD=$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0.
"""

import argparse
import os
import random
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from targets import TARGETS, Target  # noqa: E402

from bitnet_lut.errors import FormatError  # noqa: E402

_SLOW = 5.0  # seconds


def inputs(target: Target, count: int, seed: int) -> Iterator[bytes]:
    """The seeds themselves, and then *count* inputs made of them."""
    yield from target.seeds
    rng = random.Random(seed)
    for _ in range(count):
        yield target.mutate(rng.choice(target.seeds), rng, target.seeds)


def fuzz(name: str, count: int, seed: int, failures: Path) -> int:
    """Run a target; returns how many inputs failed."""
    failed = refused = done = 0
    last = (failures / f"{name}.last").open("wb", buffering=0)
    began = time.monotonic()
    for data in inputs(TARGETS[name], count, seed):
        last.seek(0)
        last.write(data)
        last.truncate()
        start = time.monotonic()
        fault = None
        try:
            TARGETS[name].execute(data)
        except FormatError:
            refused += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            fault = traceback.format_exc()
        if time.monotonic() - start > _SLOW:
            fault = f"took {time.monotonic() - start:.1f} s\n"
        done += 1
        if fault is not None:
            failed += 1
            path = failures / f"{name}-{seed}-{done}"
            path.write_bytes(data)
            print(f"{path}: {fault}", flush=True)
        if done % 20_000 == 0:
            print(f"{name}: {done}, {time.monotonic() - began:.0f} s", flush=True)
    seconds = time.monotonic() - began
    print(
        f"{name}: {done} executions, {refused} refused, {failed} failed, {seconds:.0f} s",
        flush=True,
    )
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--executions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--failures", type=Path, default=Path("failures"))
    options = parser.parse_args()
    options.failures.mkdir(parents=True, exist_ok=True)
    os.environ["RUST_BACKTRACE"] = "0"
    names = options.targets or list(TARGETS)
    return sum(fuzz(name, options.executions, options.seed, options.failures) for name in names)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
