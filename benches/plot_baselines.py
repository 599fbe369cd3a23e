"""Draw the baselines over time: python benches/plot_baselines.py [-o FILE.svg] [FILE.json ...]."""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from bitnet_lut.bench.plot import Axis, Series, plot

BASELINES = Path(__file__).with_name("baselines")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="default: all of benches/baselines")
    parser.add_argument("-o", "--output", type=Path, default=BASELINES / "history.svg")
    parser.add_argument("--what", default="generate 64", help="default: generate 64")
    parser.add_argument("--threads", type=int, help="default: the most of each file")
    options = parser.parse_args()
    files = options.files or sorted(BASELINES.glob("*.json"))
    runs = [json.loads(path.read_text()) for path in files]
    options.output.write_text(draw(runs, options.what, options.threads))
    print(options.output)


def draw(runs: Sequence[dict], what: str, threads: int | None) -> str:
    """SVG of tokens/s over time, a line for every engine."""
    speeds: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    dates = []
    for run in runs:
        date = datetime.fromisoformat(run["date"])
        dates.append((date.timestamp() / 86400, f"{date:%d %b %H:%M}"))
        most = max((one["threads"] for one in run["comparisons"]), default=0)
        for one in run["comparisons"]:
            if f"{one['what']} {one['tokens']}" != what or one["threads"] != (threads or most):
                continue
            ours = f"bitnet_lut {one['kernel']} {one['isa']}"
            speeds[ours][dates[-1][0]] += one["tokens_per_second"]
            speeds[one["peer"]][dates[-1][0]] += one["peer_tokens_per_second"]
    series = [
        Series(name, [(day, statistics.median(of_day[day])) for day in sorted(of_day)])
        for name, of_day in speeds.items()
    ]
    count = "all threads" if threads is None else f"threads: {threads}"
    return plot(
        series,
        title=f"{what}, {count}",
        x=Axis("", ticks=dates),
        y=Axis("tokens/s", zero=True),
    )


if __name__ == "__main__":
    main()
