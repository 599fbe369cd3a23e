"""One text in the making: it says which ids to run, is fed logits, and says which text came.

A decoder does no input or output and knows no model. Whoever drives it, usually the scheduler, runs
the ids on a cache:

    while (chunk := decoder.next()).ids:
        logits = run(chunk.ids)  # (n, vocab)
        decoder.feed(logits[len(chunk.ids) - chunk.rows :])
        forget(decoder.position)  # tokens of the cache beyond that
        while (piece := decoder.take()) is not None:
            print(piece, end="")
"""

import sys
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.runtime.drawer import drawer
from bitnet_lut.runtime.generation import FinishReason
from bitnet_lut.runtime.logprobs import Score, Scoring, TokenLogprob
from bitnet_lut.runtime.sampling import Drawing, Sampler
from bitnet_lut.runtime.speculation import Speculation
from bitnet_lut.runtime.stopping import StoppedText, StopRules
from bitnet_lut.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bitnet_lut.runtime.follower import Follower

__all__ = ["Chunk", "Decoder"]


class Chunk(NamedTuple):
    """Ids to run, and of how many of them, the last ones, the logits are wanted."""

    ids: Sequence[int]
    rows: int


_NOTHING = Chunk((), 0)
Scored = Iterator[tuple[Scoring, Score | None]]


class Decoder:
    """Turns logits into tokens and tokens into text, until a stop rule ends it.

    prompt: the ids before the text. ids: those generated and taken so far, without an end token.
    position: how many tokens, prompt and generated, have been run and stand.
    reused: how many tokens of the prompt were in the cache before.
    drafted, accepted: guesses checked so far, and those that were right.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        *,
        sampler: Sampler,
        stop: StopRules,
        speculation: Speculation | None = None,
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
        follower: "Follower | None" = None,
        reused: int = 0,
    ) -> None:
        """Begin before the prompt, *prompt* (at least one id), or after its first *reused* ids.

        speculation: guesses tokens, which are checked several in a step; the text is the same with
            it. For greedy choice only, and not with a follower. None: one token in a step.
        logprobs, prompt_logprobs: score the tokens of the text and of the prompt, and name so many
            of the likeliest beside each; None: do not.
        follower: of the grammar of the text; tokens that it forces are run together in one step.
        reused: at most all but one id of the prompt, which the cache already holds.
        """
        self.prompt = list(prompt)
        self.ids: list[int] = []
        self.position = self.reused = reused
        self.drafted = self.accepted = 0
        self.finish_reason: FinishReason = "interrupted"
        self._sampler, self._stop, self._speculation = sampler, stop, speculation
        self._top, self._prompt_top = logprobs, prompt_logprobs
        self._scores: list[TokenLogprob] = []  # of all that was chosen
        self._prompt_scores: list[TokenLogprob] = []  # of all but the first
        self._known = tokenizer.vocab_size  # a matrix may be padded with rows that are not tokens
        self._text = StoppedText(stop.strings)
        self._characters = tokenizer.stream(skip_special=True, start=False)
        self._follower = follower
        self._history = array("q", prompt)  # NumPy reads it as it is
        self._chunk, self._skip_draft = _NOTHING, False
        self._chosen: deque[int] = deque()  # and not taken yet

    @property
    def in_prompt(self) -> bool:
        """Whether a part of the prompt has not run yet."""
        return self.position < len(self.prompt)

    @property
    def finished(self) -> bool:
        """Whether the text has ended."""
        return self.finish_reason != "interrupted"

    @property
    def text(self) -> str:
        """The text taken so far."""
        return str(self._text)

    @property
    def parsed(self) -> Any:
        """The value of the text by its grammar; None if it is not whole, or there is no grammar."""
        whole = self.finish_reason in ("eos", "length", "context")
        return self._follower.parse(self.text) if whole and self._follower else None

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...] | None:
        """The scores of `ids`; None if they were not asked for."""
        return None if self._top is None else tuple(self._scores[: len(self.ids)])

    def logprobs_from(self, start: int) -> tuple[TokenLogprob, ...]:
        """The scores of `ids` from number *start* on; none if they were not asked for."""
        return () if self._top is None else tuple(self._scores[start : len(self.ids)])

    @property
    def end_logprob(self) -> TokenLogprob | None:
        """The score of the end token or stop token that ended the text, if one did."""
        ended = self.finish_reason in ("eos", "stop") and not self._text.stopped
        return self._scores[len(self.ids)] if ended and self._top is not None else None

    @property
    def prompt_logprobs(self) -> tuple[TokenLogprob | None, ...] | None:
        """The scores of the prompt so far, None for its first id; None if not asked for."""
        return None if self._prompt_top is None else (None, *self._prompt_scores)

    @property
    def ran(self) -> list[int]:
        """The ids that have been run and stand: those of the first `position` positions."""
        return self._history[: self.position].tolist()

    @property
    def length(self) -> int:
        """How many ids prompt and text have, those that were not run or not taken yet too."""
        return len(self._history)

    @property
    def may_reuse(self) -> bool:
        """Whether a cache may hold the beginning of the prompt: the prompt is not to be scored."""
        return self.position == 0 and self._prompt_top is None

    def reuse(self, count: int) -> None:
        """Begin after the first *count* ids of the prompt, at most all but one: a cache has them.

        For a text that has not begun, and only if `may_reuse`.
        """
        self.position = self.reused = count

    def next(self, most: int = sys.maxsize, *, guess: bool = True) -> Chunk:
        """The ids to run now, at `position`; none if the text has ended or tokens wait for `take`.

        most: how many tokens of the prompt to ask for. guess: whether guesses may follow a token.
        """
        if self.in_prompt:
            ids = self.prompt[self.position : self.position + most]
            is_last = self.position + len(ids) == len(self.prompt)
            rows = int(is_last and self._stop.limit > 0)
            self._chunk = Chunk(ids, rows if self._prompt_top is None else len(ids))
        elif self.finished or self._chosen or len(self.ids) >= self._stop.limit:
            self._chunk = _NOTHING
        else:
            draft = self._draft() if guess else []
            ids = self.ids[self.position - len(self.prompt) :]  # one, or several that were forced
            self._chunk = Chunk([*ids, *draft], 1 + len(draft))
        return self._chunk

    def drawing(self, logits: NDArray[np.float32]) -> Drawing | None:
        """The only draw that `feed` makes of *logits*; None if it makes none, others or more.

        It takes a random number: draw, and hand `feed` what is drawn. Raises what `feed` raises.
        """
        rows = self._to_choose_from(logits)
        if not self._sampler.is_plain or len(rows) != 1:
            return None
        if self._follower and self._follower.is_forced:
            return None
        return self._sampler.drawing(rows[0, : self._known], self._history, **self._options())

    def scorings(self, logits: NDArray[np.float32]) -> list[Scoring]:
        """The rows of *logits* that `feed` scores: those of the prompt, and of what is chosen."""
        known = logits[:, : self._known]
        following = known[: len(self.prompt) - 1 - self.position] if self.in_prompt else known[:0]
        parts = ((following, self._prompt_top), (self._to_choose_from(known), self._top))
        return [
            Scoring(row, min(top, self._known))
            for rows, top in parts
            if top is not None
            for row in rows
        ]

    def _to_choose_from(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self.in_prompt:
            return logits
        is_last = self.position + len(self._chunk.ids) == len(self.prompt)
        return logits[-1:] if is_last and self._stop.limit > 0 else logits[:0]

    def feed(
        self,
        logits: NDArray[np.float32],
        seconds: float | None = None,
        *,
        drawn: int | None = None,
        scores: list[Score | None] | None = None,
    ) -> None:
        """Choose tokens from the *logits* (rows, vocab) of the chunk that `next` gave.

        seconds: how long the step took, if it was for this text alone; guesses are made by that.
        drawn: the token that `drawing` gave, if it gave one.
        scores: those of `scorings`; None: score them here.
        Raises ValueError if there is nothing to choose from, and what logits processors raise;
        nothing has changed then.
        """
        ids, rows = self._chunk
        if logits.shape[0] != rows:
            raise ValueError(f"logits of {logits.shape[0]} tokens, but the chunk wants {rows}")
        draft = () if self.in_prompt else ids[len(ids) - rows + 1 :]
        scorings = self.scorings(logits)
        scores = drawer().score(scorings) if scores is None else scores
        scored = zip(scorings, scores, strict=True)
        if self.in_prompt and self._prompt_top is not None:
            following = self.prompt[self.position + 1 :][:rows]
            self._prompt_scores += [
                scoring.token(id, score)
                for id, (scoring, score) in zip(following, scored, strict=False)
            ]
        logits = self._to_choose_from(logits)
        chosen = self._choose(logits, draft, drawn, scored) if len(logits) else []
        self.drafted += len(draft)
        self.accepted += len(chosen) - 1 if draft else 0
        self._learn(chosen, None if self.in_prompt else seconds)
        self.position += len(ids) - max(0, len(logits) - len(chosen))
        self._chosen.extend(chosen)
        self._chunk, self._skip_draft = _NOTHING, False

    def skip_prompt(self) -> None:
        """Begin after the prompt, which has run for another text: `feed` takes what follows it."""
        self.position = len(self.prompt) - 1
        self._chunk = Chunk(self.prompt[-1:], int(self._stop.limit > 0))

    def drop_draft(self) -> bool:
        """Have the last chunk run again without its guesses; False if it had none.

        A wrong guess may be something that the model cannot compute.
        """
        self._skip_draft = not self.in_prompt and self._chunk.rows > 1
        return self._skip_draft

    def take(self) -> str | None:
        """The text that the next chosen token completes, perhaps empty; None if there is none.

        Where the text ends, the last piece is what was held back until then.
        """
        if self.finished:
            return None
        if not self._chosen:
            at_limit = not self.in_prompt and len(self.ids) >= self._stop.limit
            return self._end(self._stop.reason_at_limit) if at_limit else None
        token = self._chosen.popleft()
        if token in self._stop.end_ids:
            return self._end("eos")
        if token in self._stop.stop_ids:
            return self._end("stop")
        self.ids.append(token)
        return self._show(self._characters.push(token))

    def _show(self, piece: str) -> str:
        shown = self._text.push(piece)
        if self._text.stopped:
            self.finish_reason = "stop"
        return shown

    def _end(self, reason: FinishReason) -> str:
        self.finish_reason = reason
        shown = self._show(self._characters.flush())
        return shown if self._text.stopped else shown + self._text.flush()

    def _draft(self) -> list[int]:
        """Guesses that end before the end of the text."""
        if self._speculation is None or self._skip_draft:
            return []
        draft = self._speculation.draft(self._stop.limit - len(self.ids) - 1)
        ends = self._stop.end_ids | self._stop.stop_ids
        return list(takewhile(lambda token: token not in ends, draft))

    def _choose(
        self,
        logits: NDArray[np.float32],
        draft: Sequence[int],
        drawn: int | None,
        scored: Scored,
    ) -> list[int]:
        """Choose a token after each guess of *draft*, until a choice is not the next guess."""
        if self._follower:
            chosen = self._follow(logits[-1, : self._known], self._follower, drawn)
            self._score(chosen[0], scored)
            return chosen
        chosen = []
        for row, guess in zip(logits[:, : self._known], [*draft, None], strict=True):
            try:
                token = self._sample(row) if drawn is None else drawn
            except Exception:
                if not chosen:
                    raise
                break  # raised again when the tokens before it have been taken
            self._score(token, scored)
            self._history.append(token)
            chosen.append(token)
            if token != guess:
                break
        return chosen

    def _score(self, chosen: int, scored: Scored) -> None:
        if self._top is not None:
            scoring, score = next(scored)
            self._scores.append(scoring.token(chosen, score))

    def _sample(self, row: NDArray[np.float32]) -> int:
        return self._sampler(row, self._history, **self._options())

    def _options(self) -> dict[str, Any]:
        """What the sampler has to know beside the history."""
        prompt = len(self.prompt)
        if self._follower:
            return {"prompt": prompt, "allowed": self._follower.allowed()}
        return {"prompt": prompt, "forbidden": self._stop.forbidden(len(self._history) - prompt)}

    def _follow(
        self, row: NDArray[np.float32], follower: "Follower", drawn: int | None
    ) -> list[int]:
        """What the grammar forces; or a choice from what it allows, and what it then forces."""
        # Every token that is scored needs a row of its own.
        room = self._stop.limit - len(self.ids) if self._top is None else 1
        chosen = follower.forced(room) if drawn is None else []
        if not chosen:
            token = self._sample(row) if drawn is None else drawn
            follower.accept(token)
            chosen = [token]
            if token not in self._stop.end_ids | self._stop.stop_ids:
                chosen += follower.forced(room - 1)
        self._history.extend(chosen)
        return chosen

    def _learn(self, chosen: Sequence[int], seconds: float | None) -> None:
        if self._speculation is None:
            return
        self._speculation.learn(chosen)
        if seconds is not None and not self._speculation.time(
            self._chunk.rows, len(chosen), seconds
        ):
            self._speculation = None
