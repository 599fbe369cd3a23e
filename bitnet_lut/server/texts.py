"""Texts on their way: the queue and its limits, the engine's thread, and the event loop."""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

from bitnet_lut._native import PAGE
from bitnet_lut.model import Model
from bitnet_lut.runtime.decoder import Decoder
from bitnet_lut.runtime.generation import Generation
from bitnet_lut.runtime.logprobs import TokenLogprob
from bitnet_lut.runtime.memory import available_memory
from bitnet_lut.runtime.options import Options
from bitnet_lut.runtime.prefixes import Prefixes
from bitnet_lut.runtime.scheduler import Run
from bitnet_lut.runtime.worker import Worker
from bitnet_lut.server.errors import RequestError
from bitnet_lut.server.metrics import Metrics
from bitnet_lut.server.settings import Settings

__all__ = ["Job", "Piece", "Texts"]

_RECENT = 32  # requests that the wait for a place is estimated from


class Piece(NamedTuple):
    """What came of text number *choice*: more text, the scores of its tokens, or its end."""

    choice: int
    text: str
    logprobs: tuple[TokenLogprob, ...]
    ended: bool = False


class Texts:
    """Runs the texts of all requests together, as many as the limits allow.

    pages: what their caches are made of.
    """

    def __init__(self, model: Model, settings: Settings, metrics: Metrics) -> None:
        """Run on *model*; ValueError if the settings leave no memory for caches."""
        self.model, self._settings, self._metrics = model, settings, metrics
        prefixes = Prefixes(settings.prefix_bytes) if settings.prefix_bytes else None
        self.pages = model._engine.pages(_cache_bytes(model, settings))
        self._worker = Worker(
            model._engine,
            prefixes=prefixes,
            budget=settings.step_seconds,
            pages=self.pages,
            on_preempt=metrics.preempted.inc,
        )
        self._jobs: set[Job] = set()
        self._ends: deque[float] = deque(maxlen=_RECENT)

    @property
    def count(self) -> int:
        """How many requests run or wait."""
        return len(self._jobs)

    def admit(self, owner: str) -> "Job":
        """A place for a request; RequestError 429, with the time to wait, if there is none."""
        if len(self._jobs) >= self._settings.most_requests:
            raise self._refusal(f"{len(self._jobs)} requests run or wait")
        job = Job(self, self._worker, self._metrics, owner)
        self._jobs.add(job)
        return job

    def check_prompts(self, new: int) -> None:
        """RequestError 429 if *new* tokens of prompts are too many beside those that wait."""
        known = sum(job.prompt_tokens for job in self._jobs)
        if known and known + new > self._settings.most_prompt_tokens:
            raise self._refusal(f"prompts of {known} tokens run or wait")

    def leave(self, job: "Job") -> None:
        """Give a place back."""
        self._jobs.discard(job)
        self._ends.append(time.monotonic())

    def cancel(self) -> None:
        """End all texts where they are."""
        for job in list(self._jobs):
            job.interrupt()

    def _refusal(self, why: str) -> RequestError:
        self._metrics.refused.inc()
        wait = {"Retry-After": str(self._wait())}
        return RequestError(429, f"{why}: try again later", code="queue_full", headers=wait)

    def _wait(self) -> int:
        """Seconds until a place is free, by how fast requests have ended lately."""
        if len(self._ends) < 2:
            return 1
        each = (time.monotonic() - self._ends[0]) / len(self._ends)
        return min(max(math.ceil(each), 1), 60)


def _cache_bytes(model: Model, settings: Settings) -> int:
    """Bytes of the caches of all texts: of whole pages, one text of the whole context at least."""
    if settings.cache_bytes is not None:
        return settings.cache_bytes
    engine = model._engine
    least = engine.cache_bytes(-(-model.context // PAGE) * PAGE)
    return max(least, (available_memory() or 0) // 2)


class Job:
    """The texts of one request. It has its place until `close`.

    prompt_tokens: of all its prompts, once they are known.
    """

    def __init__(self, texts: Texts, worker: Worker, metrics: Metrics, owner: str) -> None:
        """`Texts.admit` makes one."""
        self._texts, self._worker, self._metrics = texts, worker, metrics
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Piece | Exception] = asyncio.Queue()
        self._runs: list[Run] = []
        self._started = time.perf_counter()
        self.prompt_tokens = 0

    async def start(
        self, prompts: Sequence[Sequence[int]], choices: int, options: Options, *, stream: bool
    ) -> None:
        """Begin *choices* texts for each of *prompts* (ids).

        stream: whether `pieces` will tell of every token, or only of the ends.
        Raises what `Model.generate` raises, before anything runs, and RequestError 429.
        """
        self._texts.check_prompts(sum(map(len, prompts)))
        self.prompt_tokens = sum(map(len, prompts))
        # A grammar may take a while to compile.
        made = await asyncio.to_thread(self._decoders, prompts, choices, options)
        for group in made:
            (first, context), *others = group
            place = len(self._runs)
            siblings = [
                (decoder, self._listener(decoder, place + at, stream))
                for at, (decoder, _) in enumerate(others, 1)
            ]
            listener = self._listener(first, place, stream)
            run = self._worker.start(first, context, listener, siblings=siblings, owner=self._owner)
            self._runs += [run, *run.siblings]

    async def pieces(self) -> AsyncIterator[Piece]:
        """Everything that comes, until all texts have ended; raises what made one fail."""
        left = len(self._runs)
        while left:
            event = await self._events.get()
            if isinstance(event, Exception):
                raise event
            left -= event.ended
            yield event

    async def results(self) -> list[Generation]:
        """All texts, when they have ended."""
        async for _ in self.pieces():
            pass
        return [run.result for run in self._runs]

    @property
    def decoders(self) -> list[Decoder]:
        """The decoder of every text."""
        return [run.decoder for run in self._runs]

    def interrupt(self) -> None:
        """End its texts; whoever waits for them gets an error."""
        error = RequestError(503, "the server is shutting down", code="shutting_down")
        self._events.put_nowait(error)

    def close(self) -> None:
        """End what still runs, and leave the queue."""
        for run in self._runs:
            if not run.ended:
                self._worker.cancel(run)
                self._metrics.canceled.inc()
        for decoder in self.decoders:
            self._metrics.prompt_tokens.inc(decoder.position and len(decoder.prompt))
            self._metrics.reused_tokens.inc(decoder.reused)
            self._metrics.generated_tokens.inc(len(decoder.ids))
        self._texts.leave(self)

    def _decoders(
        self, prompts: Sequence[Sequence[int]], choices: int, options: Options
    ) -> list[list[tuple[Decoder, int]]]:
        model = self._texts.model
        return [
            [model._decoder(list(ids), choice, **options) for choice in range(choices)]
            for ids in prompts
        ]

    def _listener(
        self, decoder: Decoder, choice: int, stream: bool
    ) -> Callable[[str | Exception | None], None]:
        """What the engine's thread calls with all that comes of a text."""
        told = 0
        post = self._loop.call_soon_threadsafe
        clock = self._metrics.clock(self._started)

        def listen(what: str | Exception | None) -> None:
            nonlocal told
            if isinstance(what, Exception):
                post(self._events.put_nowait, what)
                return
            if what is not None:
                clock()
            if what is None or stream:
                scores = decoder.logprobs_from(told) if stream else ()
                told += len(scores)
                piece = Piece(choice, what or "", scores, what is None)
                post(self._events.put_nowait, piece)

        return listen
