"""How a model generates text: what is asked for, checked, becomes decoders; `Model` inherits it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, Unpack, overload

from bitnet_lut._native import Cache
from bitnet_lut.families import ModelConfig
from bitnet_lut.runtime.arguments import bad_words as checked_bad_words
from bitnet_lut.runtime.arguments import (
    callables,
    is_many,
    named,
    prompt_ids,
    refuse_beside_format,
    stop_strings,
    token_set,
    whole_number,
)
from bitnet_lut.runtime.bad_words import BadWords
from bitnet_lut.runtime.decoder import Decoder
from bitnet_lut.runtime.dry import Breakers, sequence_breakers
from bitnet_lut.runtime.engine import BATCH, Engine
from bitnet_lut.runtime.generation import Generation
from bitnet_lut.runtime.options import Options, refuse_unknown
from bitnet_lut.runtime.sampling import Sampler, Sampling
from bitnet_lut.runtime.scheduler import Run, Scheduler
from bitnet_lut.runtime.speculation import Speculation
from bitnet_lut.runtime.stopping import StopRules
from bitnet_lut.runtime.stream import TextStream
from bitnet_lut.text.tokenizer import Tokenizer

if TYPE_CHECKING:  # these are loaded when they are needed
    from bitnet_lut.runtime.follower import Follower
    from bitnet_lut.text.grammar import Grammars, ResponseFormat

__all__ = ["Generating"]

Prompts = list[str] | list[list[int]] | tuple[str, ...] | tuple[list[int], ...]


class Generating:
    """Texts from a model: prompts in, texts out."""

    _engine: Engine
    _tokenizer: Tokenizer
    _context: int
    _read_default_sampling: Callable[[], Sampling]

    @property
    def config(self) -> ModelConfig:
        """The model's graph and sizes."""
        return self._engine.config

    @property
    def context(self) -> int:
        """Most positions of a session, unless one is made with fewer."""
        return self._context

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary and its rules."""
        return self._tokenizer

    @cached_property
    def default_sampling(self) -> Sampling:
        """How the makers of the model would choose tokens; greedy where its files say nothing.

        It is read from generation_config.json of a folder: do_sample, temperature, top_k, top_p,
        min_p, typical_p and repetition_penalty, in the order of transformers, and with its defaults
        where do_sample is true. From a GGUF file: the keys general.sampling.* but those of
        mirostat and of the sequence. Raises FormatError for values that make no sense.
        """
        return self._read_default_sampling()

    def stream(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> TextStream:
        """Generate text piece by piece; arguments and errors as for `generate`, except *n*.

        The stream's ``result`` holds what was generated so far, with its timings.
        """
        scheduler = Scheduler(self._engine)
        return TextStream(scheduler, scheduler.add(*self._make_one(prompt, options)))

    @overload
    def generate(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> Generation: ...
    @overload
    def generate(self, prompt: Prompts, **options: Unpack[Options]) -> list[Generation]: ...
    def generate(
        self, prompt: str | Sequence[int] | Prompts, **options: Unpack[Options]
    ) -> Generation | list[Generation]:
        """Continue *prompt*, a text or ids; or each of a list or tuple of them, all at once.

        max_tokens: most tokens to generate (256); 0 only runs the prompt.
        sampling: how tokens are chosen; "model": as `default_sampling` says; default: greedy.
        stop: a string, or several, that end the text and are cut off.
        stop_token_ids: tokens that end the text and are not part of it.
        min_tokens: end tokens and stop tokens are not chosen before so many others.
        ignore_eos: run on past the model's end tokens.
        logprobs: with each token, the logarithm of its probability, and those of so many of the
            likeliest tokens; None: without. prompt_logprobs: the same for the tokens of the prompt.
        bad_words: texts that the text must not hold, however they are cut into tokens, and
            sequences of ids; a token that would complete one is not chosen. One that the prompt
            begins counts too.
        logits_processors: functions (ids, logits) -> logits, called before each choice, in order:
            ids are those of prompt and text, logits float32 (vocab,), which they may change and
            return. They run before all steps of *sampling*. What they raise ends the text.
        response_format: what the text must follow: a JSON schema, "json", a `Regex`, a list of
            texts, a `Lark` grammar, or a type such as a dataclass; see `Grammars.compile`. Its
            value is ``parsed`` of the result. Needs llguidance: ``bitnet_lut[grammar]``.
        n: how many texts to generate from a prompt, which runs once; text i, ``choices[i]`` of the
            result, is the one that the seed plus i gives alone.
        speculate: guess tokens from what the text said before and check several in one step, where
            that promises to be faster; the text is the same. For greedy choice of one text only.

        Of many texts up to 128 run at once, as memory allows; each is what it would be alone. An
        error that one of them causes ends them all and names its prompt, counted from 0.
        Raises TypeError or ValueError for an argument that is not what is expected, ValueError for
        an empty prompt or one that does not fit, GrammarError for a format that cannot be followed
        (before anything is generated, or if it becomes too complex on the way), NumericsError if
        the model produces NaN or Inf, MemoryError if there is no room for a single text, and what
        logits processors raise.
        """
        scheduler = Scheduler(self._engine)
        if is_many(prompt):
            options = {**options, "speculate": False}
            runs = [
                self._add(scheduler, one, options, name=f"prompt {place}: ")
                for place, one in enumerate(prompt)
            ]
            scheduler.finish()
            return [run.result for run in runs]
        run = self._add(scheduler, prompt, options)
        scheduler.finish()
        return run.result

    def _add(self, scheduler: Scheduler, prompt: Any, options: Options, *, name: str = "") -> Run:
        """Queue what `generate` asks for, checked; errors of the prompt begin with *name*."""
        refuse_unknown(options)
        n = whole_number("n", options.get("n", 1), 1, BATCH)
        try:
            ids = self._prompt_ids(prompt)
        except (TypeError, ValueError) as error:
            raise named(error, name) from None
        (decoder, context), *siblings = [
            self._decoder(ids, choice, **options) for choice in range(n)
        ]
        return scheduler.add(decoder, context, siblings=[one for one, _ in siblings], name=name)

    def _make_one(self, prompt: Any, options: Options, *, reused: int = 0) -> tuple[Decoder, int]:
        """What `Scheduler.add` needs for one text; the cache will hold *reused* ids already."""
        refuse_unknown(options)
        if whole_number("n", options.get("n", 1), 1) != 1:
            raise ValueError("n is for generate: a stream is one text")
        if is_many(prompt) and isinstance(prompt[0], str | list | tuple):
            raise TypeError("a list of prompts is for generate: a stream is one text")
        return self._decoder(self._prompt_ids(prompt), 0, reused=reused, **options)

    def _stream_on(
        self, cache: Cache, prompt: Sequence[int], reused: int, options: Options
    ) -> TextStream:
        """Generate on a *cache* that will hold the first *reused* ids of *prompt*."""
        scheduler = Scheduler(self._engine)
        made = self._make_one(prompt, options, reused=reused)
        return TextStream(scheduler, scheduler.add(*made, cache=cache))

    def _decoder(
        self, ids: list[int], choice: int, *, reused: int = 0, **options: Unpack[Options]
    ) -> tuple[Decoder, int]:
        """Make a decoder for the text number *choice*; also the positions its cache needs."""
        known = self._tokenizer.vocab_size
        chosen = self._chosen_sampling(options.get("sampling"))
        response_format = options.get("response_format")
        sampler = self._sampler(chosen, choice, options)
        if response_format is not None:
            refuse_beside_format(
                options.get("ignore_eos") or options.get("min_tokens"),
                options.get("bad_words") or options.get("logits_processors"),
            )
        rules = self._stop_rules(self._context - len(ids), options)
        token_set("logit_bias", chosen.logit_bias, known)
        logprobs, prompt_logprobs = (
            None if number is None else whole_number(name, number, 0, known)
            for name in ("logprobs", "prompt_logprobs")
            for number in [options.get(name)]
        )
        speculate = options.get("speculate", True) and options.get("n", 1) == 1
        decoder = Decoder(
            self._tokenizer,
            ids,
            sampler=sampler,
            stop=rules,
            speculation=(
                Speculation(ids)
                if speculate and chosen.temperature == 0 and response_format is None
                else None
            ),
            logprobs=logprobs,
            prompt_logprobs=None if choice else prompt_logprobs,
            follower=None if response_format is None else self._follower(response_format),
            reused=reused,
        )
        return decoder, len(ids) + rules.limit

    def _stop_rules(self, room: int, options: Options) -> StopRules:
        """When a text ends for which the context has *room* for so many tokens."""
        stop_ids = options.get("stop_token_ids", ())
        return StopRules(
            max_tokens=whole_number("max_tokens", options.get("max_tokens", 256), 0),
            room=room,
            strings=stop_strings(options.get("stop", ())),
            end_ids=frozenset() if options.get("ignore_eos") else self._tokenizer.eos_ids,
            stop_ids=token_set("stop_token_ids", stop_ids, self._tokenizer.vocab_size),
            min_tokens=whole_number("min_tokens", options.get("min_tokens", 0), 0),
        )

    def _chosen_sampling(self, sampling: Any) -> Sampling:
        if sampling is None:
            return Sampling()
        if isinstance(sampling, str) and sampling == "model":
            return self.default_sampling
        if not isinstance(sampling, Sampling):
            raise TypeError(f"sampling is {sampling!r}: it must be a Sampling, 'model' or None")
        return sampling

    def _sampler(self, sampling: Sampling, choice: int, options: Options) -> Sampler:
        """What chooses the tokens of text number *choice*."""
        if sampling.seed is not None:
            sampling = replace(sampling, seed=sampling.seed + choice)
        words = checked_bad_words(options.get("bad_words", ()), self._tokenizer.vocab_size)
        strings = tuple(sampling.dry_sequence_breakers)
        return Sampler(
            sampling,
            breakers=self._breakers(strings) if sampling.is_dry else None,
            bad_words=self._bad_words(words) if words else None,
            processors=callables("logits_processors", options.get("logits_processors", ())),
        )

    # What is made of a vocabulary is kept for the next texts.

    @cached_property
    def _breakers(self) -> Callable[[tuple[str, ...]], Breakers]:
        return lru_cache(8)(partial(sequence_breakers, self._tokenizer))

    @cached_property
    def _bad_words(self) -> Callable[[tuple[str | tuple[int, ...], ...]], BadWords]:
        return lru_cache(8)(partial(BadWords, self._tokenizer))

    @cached_property
    def _grammars(self) -> "Grammars":
        from bitnet_lut.text.grammar import Grammars

        return Grammars(self._tokenizer)

    def _follower(self, response_format: "ResponseFormat") -> "Follower":
        """What keeps one text to a format; raises what `Grammars.compile` raises."""
        from bitnet_lut.runtime.follower import Follower

        return Follower(self._grammars.compile(response_format))

    def _prompt_ids(self, prompt: Any) -> list[int]:
        vocab_size = self._engine.weights.config.vocab_size
        if isinstance(prompt, str):
            ids = self._tokenizer.encode(prompt)
        else:
            ids = prompt_ids(prompt, vocab_size)
        if not ids:
            raise ValueError("the prompt is empty: give some text, or at least one id")
        if len(ids) >= self._context:
            raise ValueError(
                f"the prompt has {len(ids)} tokens, the context holds {self._context}: shorten the "
                "prompt or open the model with a longer context"
            )
        return ids
