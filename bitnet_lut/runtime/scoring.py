"""Log-probabilities of the tokens of many texts, which run together as prompts do."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitnet_lut._native import Cache
from bitnet_lut.runtime.engine import BATCH, Engine
from bitnet_lut.runtime.logprobs import Scoring

__all__ = ["Passage", "Scores", "score"]

# Fewer tokens are computed as fast as their keys and values are copied.
_LEAST_SHARED = 16


class Passage(NamedTuple):
    """Some ids (n), of which those from *start* (1 to n - 1) on are scored, given all before."""

    ids: Sequence[int]
    start: int


class Scores(NamedTuple):
    """How likely the model found the scored tokens of a passage.

    logprobs: natural logarithms of their probabilities, float64 (n - start,).
    greedy: whether each was the likeliest token, bool (n - start,).
    """

    logprobs: NDArray[np.float64]
    greedy: NDArray[np.bool_]


class _Run:
    """A passage on its way.

    shared: ids that it takes from the passage before it. twins: passages that differ from it in
    nothing but their last id, which does not run.
    """

    def __init__(self, passage: Passage) -> None:
        self.ids, self.start = np.array(passage.ids, np.int32), passage.start
        scored = len(self.ids) - self.start
        self.scores = Scores(np.empty(scored), np.empty(scored, bool))
        self.shared = 0
        self.twins: list[_Run] = []

    @property
    def inputs(self) -> NDArray[np.int32]:
        """All ids but the last, which nothing follows."""
        return self.ids[:-1]

    def is_twin(self, other: "_Run") -> bool:
        """Whether *other* differs in its last id only."""
        return self.start == other.start and np.array_equal(self.inputs, other.inputs)

    def score_twins(self, engine: Engine, last: NDArray[np.float32]) -> None:
        """Score passages that share everything but the last id, by its logits, (1, vocab)."""
        for twin in self.twins:
            for known, other in zip(self.scores, twin.scores, strict=True):
                other[:-1] = known[:-1]
            found = _look_up(engine, last, twin.ids[-1:])
            twin.scores.logprobs[-1:], twin.scores.greedy[-1:] = found


class _Chain:
    """Passages of which each goes on from the one before it."""

    def __init__(self, first: _Run) -> None:
        self.waiting, self.running = deque([first]), deque[tuple[_Run, Cache]]()
        self._latest: Cache | None = None

    def runs(self, engine: Engine) -> Iterator[tuple[_Run, Cache]]:
        """What can run now; starts passages only as they are asked for."""
        yield from tuple(self.running)
        while self.waiting:
            run, latest = self.waiting[0], self._latest
            if latest is None:
                cache = engine.cache(len(run.inputs))
            elif latest.position < run.shared:
                return  # the passage before it must come so far first
            else:
                cache = engine.fork(latest, context=len(run.inputs), position=run.shared)
            self.waiting.popleft()
            self.running.append((run, cache))
            self._latest = cache
            yield run, cache

    def drop_finished(self) -> bool:
        """Forget passages that have run; returns whether any are left."""
        self.running = deque(
            (run, cache) for run, cache in self.running if cache.position < len(run.inputs)
        )
        return bool(self.running or self.waiting)


class _Piece(NamedTuple):
    """Ids *start* to *end* of a passage, which run in one step."""

    run: _Run
    cache: Cache
    start: int
    end: int

    @property
    def rows(self) -> range:
        """Positions whose logits are wanted: each scores the id after it."""
        return range(max(self.start, self.run.start - 1), self.end)


def score(
    engine: Engine,
    passages: Sequence[Passage],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Scores]:
    """Score every passage, many in a step; the results are those of each alone, bit for bit.

    A beginning that passages have in common runs once, as do passages that differ in their last id
    only. The logits of one step are in memory at a time. Logarithms are off by less than 1e-6, see
    `Scoring`. progress: called with the ids that were run, and how many there are.
    Raises NumericsError if the model gives NaN or Inf, MemoryError if there is no room for one
    passage, and ValueError for ids outside the vocabulary.
    """
    runs = [_Run(passage) for passage in passages]
    chains = _chains(runs)
    started = [run for chain in chains for run in chain.waiting]
    total = sum(len(run.inputs) - run.shared for run in started)
    logits = np.empty((0, engine.config.vocab_size), np.float32)
    done = 0
    while chains:
        pieces = _plan(engine, chains)
        rows = sum(len(piece.rows) for piece in pieces)
        if rows > len(logits):
            logits = np.empty((rows, engine.config.vocab_size), np.float32)
        _step(engine, pieces, logits[:rows])
        done += sum(piece.end - piece.start for piece in pieces)
        progress(done, total)
        chains = [chain for chain in chains if chain.drop_finished()]
    return [run.scores for run in runs]


def _chains(runs: Sequence[_Run]) -> list[_Chain]:
    """Sort passages so that neighbors begin alike, and cut where they do not."""
    chains: list[_Chain] = []
    before: _Run | None = None
    for run in sorted(runs, key=lambda run: (run.inputs.tolist(), run.start)):
        if before is not None and before.is_twin(run):
            before.twins.append(run)
            continue
        common = 0 if before is None else _common(before.inputs, run.inputs)
        shared = min(common, run.start - 1)
        if shared >= _LEAST_SHARED:
            run.shared = shared
            chains[-1].waiting.append(run)
        else:
            chains.append(_Chain(run))
        before = run
    return chains


def _common(one: NDArray[np.int32], other: NDArray[np.int32]) -> int:
    """How many ids both begin with."""
    least = min(len(one), len(other))
    differ = np.flatnonzero(one[:least] != other[:least])
    return int(differ[0]) if differ.size else least


def _plan(engine: Engine, chains: Sequence[_Chain]) -> list[_Piece]:
    """Fill a step, from the first chain on."""
    pieces: list[_Piece] = []
    room = BATCH
    try:
        for chain in chains:
            for run, cache in chain.runs(engine):
                start = cache.position
                end = min(len(run.inputs), start + room)
                pieces.append(_Piece(run, cache, start, end))
                room -= end - start
                if not room:
                    return pieces
    except MemoryError:
        if not pieces:
            raise
    return pieces  # others start when these have ended


def _step(engine: Engine, pieces: Sequence[_Piece], logits: NDArray[np.float32]) -> None:
    """Run *pieces*; fills *logits* and the scores of their runs."""
    chunks = [(piece.cache, piece.run.ids[piece.start : piece.end]) for piece in pieces]
    rows: list[int] = []
    first = 0
    for piece in pieces:
        rows.extend(first + position - piece.start for position in piece.rows)
        first += piece.end - piece.start
    finite = engine.step(chunks, np.array(rows, np.int64), logits)
    if not finite.all():
        bad = int(np.flatnonzero(~finite)[0])
        raise engine.fault(*chunks[bad], len(pieces[bad].rows))
    at = 0
    for piece in pieces:
        wanted = piece.rows
        if wanted:
            targets = piece.run.ids[wanted.start + 1 : wanted.stop + 1]
            place = slice(wanted.start + 1 - piece.run.start, wanted.stop + 1 - piece.run.start)
            found = _look_up(engine, logits[at : at + len(wanted)], targets)
            piece.run.scores.logprobs[place], piece.run.scores.greedy[place] = found
            if piece.end == len(piece.run.inputs):
                piece.run.score_twins(engine, logits[at + len(wanted) - 1 : at + len(wanted)])
        at += len(wanted)


def _look_up(engine: Engine, logits: NDArray[np.float32], targets: NDArray[np.int32]) -> Scores:
    """Score *targets* (n,) by *logits* (n, vocab)."""
    rows = [Scoring(row, 1) for row in logits]
    found = [
        row.token(id, one)
        for row, id, one in zip(rows, targets.tolist(), engine.score(rows), strict=True)
    ]
    logprobs = np.array([token.logprob for token in found])
    return Scores(logprobs, np.array([token.top[0][0] == token.id for token in found]))
