"""How fast a model runs: medians and spreads, compared with the roofs of the machine."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bitnet_lut.bench.energy import EnergyMeter
from bitnet_lut.bench.machine import Machine, machine
from bitnet_lut.bench.profile import Clock, Profile
from bitnet_lut.bench.roofs import ReadRoof, integer_gmac_s
from bitnet_lut.model import Model

__all__ = ["AboveRoofError", "ModelFigure", "Report", "bench", "bytes_per_token"]

# A median may exceed the measured roof by this factor before it is refused.
TOLERANCE = 1.05
# Runs of a roof that is measured again.
_ROOF_RUNS_AGAIN = 7
_PROFILED_TOKENS = 16  # of the generation that is profiled


class AboveRoofError(ValueError):
    """A result is above the measured roof of the machine: it, or the count behind it, is wrong."""


@dataclass(frozen=True)
class ModelFigure:
    """One thing, measured in several rounds.

    what: "prompt" (all tokens at once) or "generate" (one after the other).
    position: where the first token stands in the context.
    seconds, joules: one value for each round; joules is None where no counter can be read.
    bytes_per_token: what generating one token reads, by part of the model; empty for a prompt,
        which reads them once for many tokens.
    macs_per_token: multiply-adds of the ternary layers.
    read_roof_gb_s, integer_roof_gmac_s: measured between the rounds.
    """

    what: str
    tokens: int
    position: int
    threads: int
    isa: str
    kernel: str
    seconds: tuple[float, ...]
    joules: tuple[float, ...] | None
    bytes_per_token: Mapping[str, int]
    macs_per_token: int
    read_roof_gb_s: float
    integer_roof_gmac_s: float

    @property
    def name(self) -> str:
        """Such as "prompt 128" or "generate 64 at 4000"."""
        return f"{self.what} {self.tokens}" + (f" at {self.position}" if self.position else "")

    @property
    def tokens_per_second(self) -> float:
        """The median."""
        return self.tokens / statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """Tokens per second of the slowest and of the fastest round."""
        return self.tokens / max(self.seconds), self.tokens / min(self.seconds)

    @property
    def gb_s(self) -> float | None:
        """Bytes read, 1e9 a second; None for a prompt."""
        if self.what == "prompt":
            return None
        return self.tokens_per_second * sum(self.bytes_per_token.values()) / 1e9

    @property
    def gmac_s(self) -> float:
        """Multiply-adds of the ternary layers, 1e9 a second."""
        return self.tokens_per_second * self.macs_per_token / 1e9

    @property
    def share_of_roof(self) -> float:
        """Fraction of the roof reached: of reads for generation, of multiply-adds for a prompt."""
        if self.gb_s is None:
            return self.gmac_s / self.integer_roof_gmac_s
        return self.gb_s / self.read_roof_gb_s

    @property
    def roof(self) -> str:
        """The roof that `share_of_roof` compares with."""
        if self.gb_s is None:
            return f"{self.integer_roof_gmac_s:.3g} G multiply-adds/s"
        return f"{self.read_roof_gb_s:.3g} GB/s read"

    @property
    def joules_per_token(self) -> float | None:
        """The median; None where no counter can be read."""
        return None if self.joules is None else statistics.median(self.joules) / self.tokens


@dataclass(frozen=True)
class Report:
    """All figures of a model, and the machine; weight_bytes is that of `ModelInfo`."""

    machine: Machine
    model: str
    weight_bytes: Mapping[str, int]
    figures: tuple[ModelFigure, ...]
    profiles: tuple[Profile, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON, including the properties of the figures."""
        found = asdict(self)
        for figure, values in zip(self.figures, found["figures"], strict=True):
            values |= {
                name: getattr(figure, name)
                for name in ("name", "tokens_per_second", "spread", "gb_s", "gmac_s")
            }
            values["share_of_roof"] = figure.share_of_roof
            values["joules_per_token"] = figure.joules_per_token
        return found


def bench(
    source: str | os.PathLike[str],
    *,
    threads: Sequence[int] = (1,),
    prompt: Sequence[int] = (128, 512),
    generate: Sequence[int] = (64,),
    position: int = 0,
    rounds: int = 5,
    isa: str = "auto",
    kernel: str = "auto",
    profiled: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Measure prompts of these lengths from position 0 on, and generation from *position* on.

    Everything runs once unmeasured. Then each round runs everything and the roofs in turn, so that
    a machine that slows down affects all of them. The tokens are random: speed does not depend on
    them.

    profiled: also measure where the time goes, by part of the model.
    progress: called with the rounds done so far and the total.
    Raises AboveRoofError for a result faster than this machine can be, ValueError if there is
    nothing to measure or the model has no room for it, and what `Model` raises.
    """
    if rounds < 1 or not threads or not (prompt or generate):
        raise ValueError(
            "nothing to measure: give at least one prompt or generation, and one round"
        )
    figures: list[ModelFigure] = []
    profiles: list[Profile] = []
    for index, count in enumerate(threads):

        def advance(done: int, index: int = index) -> None:
            progress(index * rounds + done, len(threads) * rounds)

        with Model(source, threads=count, isa=isa, kernel=kernel) as model:
            name, weight_bytes = model.config.name, model.info.weight_bytes
            workload = _Workload(model, prompt, generate, position)
            measured = [believable(figure) for figure in workload.measure(rounds, advance)]
            figures += measured
            profiles += map(workload.profile, measured if profiled else ())
            del workload  # its sessions keep the weights, and the next model needs the room
    return Report(machine(), name, weight_bytes, tuple(figures), tuple(profiles))


def bytes_per_token(model: Model, position: int) -> dict[str, int]:
    """Bytes that generating one token at *position* must read, by part.

    The ternary and other matrices, the head (the embedding where it is tied), the vectors of the
    norms, and keys and values of the positions before. A row of the embedding is not counted.
    """
    info, config = model.info, model.config
    sizes = info.weight_bytes
    per_position = info.kv_bytes // model.session().context
    found = {
        "ternary": sizes.get("ternary", 0),
        "dense": sizes.get("dense", 0),
        "head": sizes.get("embedding", 0) if config.tied_head else sizes.get("head", 0),
        "norms": sizes.get("vectors", 0),
        "kv": per_position * position,
    }
    return {part: size for part, size in found.items() if size}


def believable(figure: ModelFigure) -> ModelFigure:
    """Return *figure*; if it is above its roof, measure the roof again.

    Raises AboveRoofError if it is above the new roof too.
    """
    if _within(figure):
        return figure
    again = _beside_a_new_roof(figure)
    if _within(again):
        return again
    raise AboveRoofError(
        f"{again.name} with {again.threads} threads on {again.isa} would be at "
        f"{again.share_of_roof:.0%} of what this machine can do ({again.roof}, measured twice), "
        "which is impossible: measure again on an idle machine; if that does not help, bytes or "
        "multiply-adds are counted wrongly"
    )


def _beside_a_new_roof(figure: ModelFigure) -> ModelFigure:
    if figure.what == "prompt":
        runs = [integer_gmac_s(figure.isa, figure.threads) for _ in range(_ROOF_RUNS_AGAIN)]
        best = max(figure.integer_roof_gmac_s, statistics.median(runs))
        return replace(figure, integer_roof_gmac_s=best)
    read = ReadRoof(sum(figure.bytes_per_token.values()))
    runs = [read.gb_s(figure.threads) for _ in range(_ROOF_RUNS_AGAIN)]
    best = max(figure.read_roof_gb_s, statistics.median(runs))
    return replace(figure, read_roof_gb_s=best)


def _within(figure: ModelFigure) -> bool:
    return figure.share_of_roof <= TOLERANCE


class _Workload:
    """Prompts and generations of one model, and their random tokens."""

    def __init__(
        self, model: Model, prompt: Sequence[int], generate: Sequence[int], position: int
    ) -> None:
        """Fill the cache up to *position*."""
        self._model, self._position = model, position if generate else 0
        self._tasks = [("prompt", n) for n in prompt] + [("generate", n) for n in generate]
        self._session = model.session()
        needed = max((*prompt, *(self._position + n for n in generate)))
        if needed > self._session.context:
            raise ValueError(
                f"{needed} positions do not fit the model's context of {self._session.context}"
            )
        ids = np.random.default_rng(0).integers(0, model.config.vocab_size, needed)
        self._ids: list[int] = ids.tolist()
        self._prompts = model.session(context=max(prompt, default=1))
        if self._position:
            self._session.step(self._ids[: self._position])

    def measure(self, rounds: int, progress: Callable[[int], None]) -> list[ModelFigure]:
        """Run everything once, then *rounds* times in turn, the roofs too."""
        isa, threads = self._model.info.isa, self._model.info.threads
        meter = EnergyMeter()
        read_roof = ReadRoof(sum(bytes_per_token(self._model, self._position).values()))
        for what, tokens in self._tasks:
            self._run(what, tokens)
        seconds: list[list[float]] = [[] for _ in self._tasks]
        joules: list[list[float | None]] = [[] for _ in self._tasks]
        read, integer = [], []
        for done in range(rounds):
            for index, (what, tokens) in enumerate(self._tasks):
                energy, start = meter.read(), time.perf_counter()
                self._run(what, tokens)
                seconds[index].append(time.perf_counter() - start)
                joules[index].append(meter.joules(energy, meter.read()))
            read.append(read_roof.gb_s(threads))
            integer.append(integer_gmac_s(isa, threads))
            progress(done + 1)
        roofs = statistics.median(read), statistics.median(integer)
        return [
            self._figure(*task, seconds[index], joules[index], roofs)
            for index, task in enumerate(self._tasks)
        ]

    def _run(self, what: str, tokens: int, clock: Clock | None = None) -> None:
        if what == "prompt":
            session, ids = self._prompts, [self._ids[:tokens]]
        else:
            first = self._position
            session, ids = self._session, [[id] for id in self._ids[first : first + tokens]]
        session.rewind(0 if what == "prompt" else self._position)
        for piece in ids:
            if clock is None:
                session.step(piece)
            else:
                clock.time(session.trace, piece)

    def _figure(
        self,
        what: str,
        tokens: int,
        seconds: Sequence[float],
        joules: Sequence[float | None],
        roofs: tuple[float, float],
    ) -> ModelFigure:
        info = self._model.info
        known = tuple(energy for energy in joules if energy is not None)
        middle = self._position + tokens // 2
        ternary_bits = 8 * info.weight_bytes.get("ternary", 0)
        return ModelFigure(
            what=what,
            tokens=tokens,
            position=self._position if what == "generate" else 0,
            threads=info.threads,
            isa=info.isa,
            kernel=info.kernel,
            seconds=tuple(seconds),
            joules=known if len(known) == len(joules) else None,
            bytes_per_token=bytes_per_token(self._model, middle) if what == "generate" else {},
            macs_per_token=round(ternary_bits / (info.ternary_bits_per_weight or 1)),
            read_roof_gb_s=roofs[0],
            integer_roof_gmac_s=roofs[1],
        )

    def profile(self, figure: ModelFigure) -> Profile:
        """Where the time goes in what *figure* measured."""
        tokens = figure.tokens
        if figure.what == "generate":
            tokens = min(tokens, _PROFILED_TOKENS)
        clock = Clock()
        self._run(figure.what, tokens, clock)
        return Profile(
            name=figure.name,
            threads=figure.threads,
            isa=figure.isa,
            kernel=figure.kernel,
            tokens=tokens,
            parts=clock.parts,
            untraced=tokens / figure.tokens_per_second,
        )
