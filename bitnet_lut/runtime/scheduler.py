"""One loop for all texts: it admits them, steps them together, and feeds their decoders."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitnet_lut._native import PAGE, Cache, Pages
from bitnet_lut.runtime.arguments import named
from bitnet_lut.runtime.decoder import Chunk, Decoder
from bitnet_lut.runtime.engine import BATCH, Engine
from bitnet_lut.runtime.generation import Generation, Timings
from bitnet_lut.runtime.logprobs import Score
from bitnet_lut.runtime.prefixes import Prefix, Prefixes
from bitnet_lut.runtime.sampling import Drawing

__all__ = ["Run", "Scheduler"]

# Tokens of prompts that every step has room for, however many texts generate beside them.
_LEAST_OF_PROMPTS = 32
_LEAST_IN_TIME = 8  # the same where texts that generate may wait only for so long


class Run:
    """A decoder on its way through a scheduler.

    context: positions that its cache needs. cache: its keys and values, only while it runs.
    ended: whether the text has ended, failed or was canceled. A text without a cache that has not
    ended waits: for its start, or to go on after it had to give its cache back.
    siblings: texts that begin where the prompt of this one ends. origin: where a sibling begins.
    owner: whose prefixes it may go on from.
    """

    def __init__(
        self,
        decoder: Decoder,
        context: int,
        cache: Cache | None,
        siblings: Sequence["Run"] = (),
        *,
        name: str = "",
        owner: str = "",
        prefixes: Prefixes | None = None,
    ) -> None:
        """For `Scheduler.add`."""
        self._name, self.owner, self._prefixes = name, owner, prefixes
        self.decoder, self.context, self.cache = decoder, context, cache
        self.siblings = siblings
        self._continues = cache is not None
        self.ended = False
        self.origin: _Origin | None = None
        self._first_position = 0
        self._error: Exception | None = None
        self._started = self._first = self._last = 0.0

    @property
    def result(self) -> Generation:
        """Everything taken so far."""
        decoder = self.decoder
        timings = Timings(
            len(decoder.prompt),
            self._first - self._started if self._first else 0.0,
            len(decoder.ids),
            self._last - self._first,
            decoder.drafted,
            decoder.accepted,
            decoder.reused,
        )
        found = Generation(
            decoder.text,
            tuple(decoder.ids),
            decoder.finish_reason,
            timings,
            decoder.logprobs,
            decoder.prompt_logprobs,
            parsed=decoder.parsed,
        )
        if not self.siblings:
            return found
        return replace(found, choices=(found, *(sibling.result for sibling in self.siblings)))

    def take(self) -> str | None:
        """The next piece of text, perhaps empty; None if it has ended or a step must come first.

        Raises, once, what made the text fail: NumericsError, MemoryError, ValueError if there was
        no token to choose, or what a logits processor raised.
        """
        piece = self.decoder.take()
        if self.decoder.finished:
            self._finish()
        if piece is None and self._error is not None:
            error, self._error = self._error, None
            raise error
        return piece

    def cancel(self) -> None:
        """Free the cache; nothing more will come."""
        self.ended, self.cache, self.origin = True, None, None

    def _finish(self) -> None:
        if self._prefixes is not None and self.cache is not None:
            self._prefixes.keep(self.owner, self.decoder.ran, self.cache)
        self.cancel()

    def start(self, cache: Cache) -> None:
        """Run on *cache* from now on; a sibling chooses its first token at once."""
        self.cache, self._started = cache, self._started or time.perf_counter()
        origin, self.origin = self.origin, None
        if origin is not None:
            self._first_position = cache.position - len(self.decoder.prompt)
            self.decoder.skip_prompt()
            self.feed(origin.logits, None)
        elif self._continues:
            self._first_position = cache.position - self.decoder.position

    @property
    def in_prompt(self) -> bool:
        """Whether it has ids to run before its next token: of its prompt, or once more."""
        assert self.cache is not None
        done = self.cache.position - self._first_position
        return self.decoder.in_prompt or done < self.decoder.position

    def plan(self, most: int) -> "_Planned":
        """Run at most *most* of the ids before its next token."""
        assert self.cache is not None
        done = self.cache.position - self._first_position
        if done < self.decoder.position:
            lost = Chunk(self.decoder.ran[done : done + most], 0)
            return _Planned(self, self.cache, lost, again=True)
        return _Planned(self, self.cache, self.decoder.next(most))

    def drawing(self, logits: NDArray[np.float32]) -> Drawing | None:
        """What `Decoder.drawing` says; ends the text with what it raises."""
        try:
            return self.decoder.drawing(logits)
        except ValueError as error:
            self.fail(error)
            return None

    def feed(
        self,
        logits: NDArray[np.float32],
        seconds: float | None,
        drawn: tuple[Drawing, int] | None = None,
        scores: list[Score | None] | None = None,
    ) -> None:
        """Hand the decoder the *logits* of its chunk, and forget the guesses that were wrong.

        drawn: what `drawing` gave, and the id that was drawn. scores: those of `Decoder.scorings`.
        """
        assert self.cache is not None
        in_prompt = self.decoder.in_prompt
        try:
            id = None if drawn is None else drawn[0].checked(drawn[1])
            self.decoder.feed(logits, seconds, drawn=id, scores=scores)
        except Exception as error:  # a logits processor may raise anything
            self.fail(error)
            return
        if not self.decoder.in_prompt:
            self._last = time.perf_counter()
            self._first = self._first or self._last
        if in_prompt and not self.decoder.in_prompt:
            self._begin_siblings(self.cache, logits[-1:].copy())
        position = self._first_position + self.decoder.position
        if position < self.cache.position:
            self.cache.rewind(position)

    def _begin_siblings(self, cache: Cache, logits: NDArray[np.float32]) -> None:
        if self.siblings:
            origin = _Origin(cache.fork(), cache.position, logits)
            for sibling in self.siblings:
                sibling.origin = origin

    def fail(self, error: Exception) -> None:
        """End with *error*, which `take` will raise."""
        self._error = named(error, self._name)
        self.cancel()
        if self.decoder.in_prompt:  # so that its siblings cannot start
            for sibling in self.siblings:
                sibling.fail(error)


class _Origin(NamedTuple):
    """The end of a prompt that several texts share: *position* in *cache*, and what follows it."""

    cache: Cache
    position: int
    logits: NDArray[np.float32]


class _Planned(NamedTuple):
    run: Run
    cache: Cache
    chunk: Chunk
    again: bool = False  # whether the decoder has seen what comes of it


class Scheduler:
    """Steps any number of decoders of one model, many at once, each on a cache of its own.

    Every text is, bit for bit and seed for seed, what it is alone. Texts start in the order in
    which they were added, as soon as there is a place and memory for them. A step runs the next
    token of every text that generates, and beside them pieces of the prompts of new ones.

    Where there is no page left for the next token of a text, the youngest text gives its cache back
    and waits. It computes its keys and values again when there is room, and goes on as if nothing
    had happened. The oldest one always goes on.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        most: int = BATCH,
        prefixes: Prefixes | None = None,
        budget: float | None = None,
        pages: Pages | None = None,
        on_preempt: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin with no texts.

        most: how many texts may run at once. prefixes: keeps texts that end, for others to go on
        from. budget: seconds that a step with texts that generate should take at most, whatever
        prompts wait beside them; None: no limit. pages: what caches are made of; None: as many as
        there is memory for, and texts wait until all that they may need is free. on_preempt: called
        when a text gives its cache back.
        """
        self._engine, self._most = engine, most
        self._prefixes, self._budget = prefixes, budget
        self._pages, self._on_preempt = pages, on_preempt
        self._seconds = 0.0  # that one token of a prompt takes
        self._waiting: deque[Run] = deque()
        self._running: list[Run] = []
        self._logits = np.empty((0, engine.config.vocab_size), np.float32)

    def add(
        self,
        decoder: Decoder,
        context: int,
        *,
        cache: Cache | None = None,
        siblings: Sequence[Decoder] = (),
        name: str = "",
        owner: str = "",
    ) -> Run:
        """Queue a text, whose cache will hold at most *context* positions.

        cache: goes on from its position in place of a new one.
        siblings: more texts of the same prompt, which runs only once.
        name: what their errors begin with. owner: whose prefixes they share.
        Raises ValueError if all pages are too few for a single one.
        """
        self._refuse_beyond_pages(context)
        prefixes = self._prefixes
        others = [
            Run(one, context, None, name=name, owner=owner, prefixes=prefixes) for one in siblings
        ]
        run = Run(decoder, context, cache, others, name=name, owner=owner, prefixes=prefixes)
        self._waiting.append(run)
        return run

    def finish(self) -> None:
        """Step until every text has ended; raises the first error of any of them."""
        while self._waiting or self._running:
            self.step()
            for run in self._running:
                while run.take() is not None:
                    pass

    def step(self) -> None:
        """Run one step of all texts from which everything was taken.

        What makes a single text fail is kept for its `Run.take`; other errors, such as Ctrl-C, are
        raised from here, and then nothing has moved.
        """
        self._running = [run for run in self._running if not run.ended]
        self._admit()
        planned = self._plan()
        if not planned:
            return
        start = time.perf_counter()
        ids = [np.array(one.chunk.ids, np.int32) for one in planned]
        rows = _rows(planned)
        logits = self._room(len(rows))
        chunks = [(one.cache, some) for one, some in zip(planned, ids, strict=True)]
        finite = self._engine.step(chunks, rows, logits).tolist()
        took = time.perf_counter() - start
        self._time(took, sum(map(len, ids)))
        seconds = took if len(self._running) == 1 else None
        at, fed = 0, []
        for one, some, is_finite in zip(planned, ids, finite, strict=True):
            if one.again and is_finite:
                continue
            if is_finite:
                fed.append((one.run, logits[at : at + one.chunk.rows]))
            elif not one.run.decoder.drop_draft():
                one.run.fail(self._engine.fault(one.cache, some, one.chunk.rows))
            at += one.chunk.rows
        self._feed(fed, seconds)

    def _feed(self, fed: list[tuple[Run, NDArray[np.float32]]], seconds: float | None) -> None:
        """Hand texts the logits of their chunks; all are scored together, and drawn where C can."""
        drawings = {run: found for run, rows in fed if (found := run.drawing(rows)) is not None}
        ids = self._engine.draw(list(drawings.values()))
        drawn = dict(zip(drawings, zip(drawings.values(), ids, strict=True), strict=True))
        scorings = [run.decoder.scorings(rows) for run, rows in fed]
        scores = iter(self._engine.score([one for some in scorings for one in some]))
        for (run, rows), some in zip(fed, scorings, strict=True):
            own = list(islice(scores, len(some)))
            if run.ended:
                continue
            in_prompt = run.decoder.in_prompt
            run.feed(rows, seconds, drawn.get(run), own)
            if in_prompt and not run.decoder.in_prompt:
                self._waiting.extendleft(reversed(run.siblings))

    def _admit(self) -> None:
        """Start texts that wait, in their order, while there is a place and memory."""
        while self._waiting and len(self._running) < self._most:
            run = self._waiting[0]
            if not run.ended:
                try:
                    run.start(self._cache_of(run))
                except MemoryError as error:
                    if self._running:
                        return  # until others have ended
                    run.fail(error)
                self._running.append(run)
            self._waiting.popleft()

    def _cache_of(self, run: Run) -> Cache:
        """The cache of a text that starts; MemoryError if there is no room for it."""
        while True:
            try:
                return run.cache or self._new_cache(run)
            except MemoryError:
                if not self._drop(origins=not self._running):
                    raise

    def _drop(self, *, origins: bool) -> bool:
        """Give up something that no text runs on; False if there is nothing.

        That is the prefix used the longest ago, or then, with *origins*, the end of a prompt from
        which a text waits to go on; it will run its prompt itself.
        """
        if self._prefixes is not None and self._prefixes.drop_oldest():
            return True
        for run in self._waiting if origins else ():
            if run.origin is not None:
                run.origin = None
                return True
        return False

    def _new_cache(self, run: Run) -> Cache:
        decoder, found = run.decoder, None
        if run.origin is not None:
            found = Prefix(run.origin.cache, run.origin.position)
        elif self._prefixes is not None and (decoder.may_reuse or decoder.position):
            found = self._prefixes.find(run.owner, decoder.ran or decoder.prompt)
        made = self._empty_cache(run) if found is None else self._fork(run, found)
        if self._pages is not None:
            self._check_pages(run, made)
        if found is not None and run.origin is None and decoder.position == 0:
            decoder.reuse(found.length)
        return made

    def _empty_cache(self, run: Run) -> Cache:
        if self._pages is None:
            return self._engine.cache(run.context, promised=self._promised())
        weights, kind = self._engine.weights, self._engine.kind
        return Cache(weights, run.context, kind=kind, pages=self._pages)

    def _fork(self, run: Run, found: Prefix) -> Cache:
        if self._pages is None:
            self._engine.refuse_cache(run.context, promised=self._promised())
        return found.cache.fork(context=run.context, position=found.length)

    def _refuse_beyond_pages(self, context: int) -> None:
        """ValueError if a text of *context* positions needs more pages than there are."""
        most = None if self._pages is None else self._pages.most
        if most is not None and _pages_of(context) > most:
            raise ValueError(
                f"a text of up to {context} tokens, prompt and answer, needs more memory than all "
                f"texts may take, which is enough for {most * PAGE}: ask for fewer tokens"
            )

    def _check_pages(self, run: Run, cache: Cache) -> None:
        """MemoryError if there are too few pages for a text to come to its next token on *cache*.

        Those count that other texts will take before they come to theirs.
        """
        pages = cache.pages
        wanted = _missing(run, cache) + sum(
            _missing(one, one.cache) for one in self._running if one.cache is not None
        )
        if pages.most is not None and wanted > pages.most - pages.used:
            raise MemoryError(f"{wanted} pages are needed, {pages.most - pages.used} are free")

    def _promised(self) -> int:
        """Bytes that the caches of texts have not taken yet, but may."""
        caches = [run.cache for run in self._running if run.cache is not None]
        return sum(
            max(0, self._engine.cache_bytes(cache.context) - cache.nbytes) for cache in caches
        )

    def _plan(self) -> list[_Planned]:
        """What runs in the next step: texts that generate, then prompts while there is room."""
        alone = len(self._running) == 1
        planned: list[_Planned] = []
        tokens = 0
        prompts: list[Run] = []
        for run in tuple(self._running):
            if run.cache is None:
                continue  # it has just given it back
            if run.in_prompt:
                prompts.append(run)
                continue
            one = _Planned(run, run.cache, run.decoder.next(guess=alone))
            if one.chunk.ids and self._reserve(one):
                planned.append(one)
                tokens += len(one.chunk.ids)
        room = self._room_for_prompts(tokens)
        for run in prompts:
            if room > 0 and run.cache is not None:
                one = run.plan(room)
                if self._reserve(one):
                    planned.append(one)
                    room -= len(one.chunk.ids)
        return [one for one in planned if one.run.cache is not None]

    def _reserve(self, one: _Planned) -> bool:
        """Take the pages for what is planned; False if its text had to give its cache back."""
        while True:
            try:
                one.cache.reserve(len(one.chunk.ids))
            except MemoryError as error:
                if self._drop(origins=True):
                    continue
                alive = [run for run in self._running if run.cache is not None]
                if alive == [one.run]:
                    one.run.fail(error)
                else:
                    self._preempt(alive[-1])
                if one.run.cache is None:
                    return False
            else:
                return True

    def _preempt(self, run: Run) -> None:
        """Have a text give its cache back, and go on before all those that wait."""
        run.cache = None
        self._running.remove(run)
        self._waiting.appendleft(run)
        self._on_preempt()

    def _room_for_prompts(self, tokens: int) -> int:
        """How many tokens of prompts may run beside *tokens* of texts that generate."""
        room = max(self._engine.batch - tokens, _LEAST_OF_PROMPTS)
        if tokens and self._budget is not None and self._seconds:
            affordable = int(self._budget / self._seconds) - tokens
            room = min(room, max(affordable, _LEAST_IN_TIME))
        return room

    def _time(self, seconds: float, tokens: int) -> None:
        """Learn from a step of many tokens what one of them takes, the last steps above all."""
        if tokens >= _LEAST_IN_TIME:
            one = seconds / tokens
            self._seconds = one if not self._seconds else 0.75 * self._seconds + 0.25 * one

    def _room(self, rows: int) -> NDArray[np.float32]:
        """Memory for the logits of a step, used again in the next."""
        if len(self._logits) < rows:
            self._logits = np.empty((rows, self._logits.shape[1]), np.float32)
        return self._logits[:rows]


def _pages_of(positions: int) -> int:
    return -(-positions // PAGE)


def _missing(run: Run, cache: Cache) -> int:
    """Pages that a text has to take before it comes to its next token."""
    wanted = _pages_of(min(run.decoder.length + 1, run.context))
    return max(0, wanted - len(cache.held_pages))


def _rows(planned: list[_Planned]) -> NDArray[np.int64]:
    """The numbers of the tokens whose logits are wanted: of each chunk the last ones."""
    found: list[int] = []
    end = 0
    for one in planned:
        end += len(one.chunk.ids)
        found.extend(range(end - one.chunk.rows, end))
    return np.array(found, np.int64)
