"""Draw the baselines over time: python benches/plot_baselines.py [-o FILE.png] [FILE.json ...]."""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from matplotlib.figure import Figure

from bitnet_lut.bench.pictures import new_figure, save

BASELINES = Path(__file__).with_name("baselines")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="default: all of benches/baselines")
    parser.add_argument("-o", "--output", type=Path, default=BASELINES / "history.svg")
    parser.add_argument("--what", default="generate 64", help="default: generate 64")
    parser.add_argument("--threads", type=int, help="default: the most of all files")
    options = parser.parse_args()
    files = options.files or sorted(BASELINES.glob("*.json"))
    runs = [json.loads(path.read_text()) for path in files]
    save(draw(runs, options.what, options.threads), options.output)
    print(options.output)


def draw(runs: Sequence[dict], what: str, threads: int | None) -> Figure:
    """Tokens/s of every engine: medians joined by a line, and bars from slowest to fastest.

    Runs stand side by side, however much time lies between them, and only those that measured this
    with so many threads.
    """
    threads = threads or max(
        (one["threads"] for run in runs for one in run["comparisons"]), default=0
    )
    speeds: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    names: list[str] = []
    for run in sorted(runs, key=lambda run: run["date"]):
        wanted = [
            one
            for one in run["comparisons"]
            if f"{one['what']} {one['tokens']}" == what and one["threads"] == threads
        ]
        for one in wanted:
            ours = f"bitnet_lut {one['kernel']} {one['isa']}"
            speeds[ours][len(names)] += one["tokens_per_second"]
            speeds[one["peer"]][len(names)] += one["peer_tokens_per_second"]
        if wanted:
            names.append(_name(run))
    if not names:
        raise ValueError(f"no baseline holds {what!r} with these threads")
    return _picture(speeds, names, f"{what}, threads {threads}")


def _name(run: dict) -> str:
    """When it was, of which commit, on which processor, beside which load."""
    load = run.get("load_average")
    cpu, _, model = run.get("machine", {}).get("cpu", "").partition(" (")
    lines = [
        f"{datetime.fromisoformat(run['date']):%d %b %H:%M}",
        run.get("commit", "")[:9],
        cpu[:24],
        model.rstrip(")"),
        "" if load is None else f"load {load[0]:.1f}",
    ]
    return "\n".join(line for line in lines if line)


def _picture(speeds: dict[str, dict[int, list[float]]], names: Sequence[str], title: str) -> Figure:
    figure, axes = new_figure(max(8, 3.5 + 1.1 * len(names)), 6)
    for index, (engine, by_run) in enumerate(speeds.items()):
        places = sorted(by_run)
        medians = [statistics.median(by_run[place]) for place in places]
        below = [median - min(by_run[at]) for at, median in zip(places, medians, strict=True)]
        above = [max(by_run[at]) - median for at, median in zip(places, medians, strict=True)]
        # Beside each other, so that no bar hides another.
        shifted = [place + 0.08 * (index - (len(speeds) - 1) / 2) for place in places]
        axes.errorbar(
            shifted, medians, yerr=(below, above), marker="o", capsize=3, linewidth=1, label=engine
        )
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("tokens/s, medians; bars from slowest to fastest")
    axes.set_title(title)
    axes.grid(axis="y", color="#ececec")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


if __name__ == "__main__":
    main()
