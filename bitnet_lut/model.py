"""A model: open a file, then tokenize, run, generate."""

import os
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import _native
from bitnet_lut._native import Cache
from bitnet_lut.checkpoint import Checkpoint, hub, open_checkpoint
from bitnet_lut.demo import MODEL
from bitnet_lut.families import ModelConfig
from bitnet_lut.formats.i2_s import Layout
from bitnet_lut.formats.tiles import Shape, Tile
from bitnet_lut.runtime.arguments import bad_words as checked_bad_words
from bitnet_lut.runtime.arguments import (
    callables,
    int32_ids,
    is_many,
    named,
    prompt_ids,
    refuse_beside_format,
    stop_strings,
    token_set,
    whole_number,
)
from bitnet_lut.runtime.bad_words import BadWords
from bitnet_lut.runtime.chatting import TEMPLATE_KEY, Chatting, TextPlace
from bitnet_lut.runtime.choose import choose_kernels, named_kernel
from bitnet_lut.runtime.cpu import choose_isa, default_threads
from bitnet_lut.runtime.decoder import Decoder
from bitnet_lut.runtime.default_sampling import GGUF_PREFIX, default_sampling
from bitnet_lut.runtime.dry import sequence_breakers
from bitnet_lut.runtime.engine import BATCH, Engine
from bitnet_lut.runtime.generation import Generation
from bitnet_lut.runtime.info import ModelInfo, measure_model
from bitnet_lut.runtime.layers import Layer, kernel_names, make_layers
from bitnet_lut.runtime.likelihood import Likelihood
from bitnet_lut.runtime.options import Options, refuse_unknown
from bitnet_lut.runtime.packing import pack_tensors, suited
from bitnet_lut.runtime.sampling import LogitsProcessor, Sampler, Sampling
from bitnet_lut.runtime.saved import load_cache
from bitnet_lut.runtime.scheduler import Run, Scheduler
from bitnet_lut.runtime.session import Session, SessionBatch
from bitnet_lut.runtime.speculation import Speculation
from bitnet_lut.runtime.stopping import StopRules
from bitnet_lut.runtime.stream import TextStream
from bitnet_lut.runtime.tracing import trace_ops
from bitnet_lut.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bitnet_lut.text.grammar import ResponseFormat

__all__ = ["Model"]

Source = str | os.PathLike[str] | bytes | memoryview
Prompts = list[str] | list[list[int]] | tuple[str, ...] | tuple[list[int], ...]
# A context nobody asked for is not longer than this, whatever the model could do.
DEFAULT_CONTEXT = 4096


class Model(Chatting, Likelihood):
    """A language model, ready to run.

    source: a GGUF file, its bytes, a folder of a Hugging Face checkpoint, or a Hugging Face repo id
        (owner/name, hf://owner/name or hf://owner/name/file.gguf; needs huggingface_hub). None: the
        small demonstration model inside the package, with a warning that says so.
    threads: default: the cores this process may use.
    kernel, isa: which ternary kernel and which instruction-set tier compute; "auto" chooses.
    context: most positions of a session; default: the model's limit, at most 4096.
    kv: what sessions keep keys and values in, "f16" or "f32".
    mmap: False reads the file into memory of this process. A file that is mapped (the default)
        shares its pages with other processes and opens faster, but must not change while the model
        is in use: when a mapped file shrinks, the operating system ends the process (SIGBUS).
    i2_s_layout: of I2_S tensors: "128x32" (nearly every file), "64x16", "1x4" or "sequential".
    tiles: {(rows, cols): (BM, BK, bm)} for TL1 and TL2 files of shapes bitnet.cpp does not list.
    pre_tokenizer: overrides the file's; "default" gives bitnet.cpp's ids for the official 2B file.
    progress: called with the bytes of the file's tensors read so far and in all.

    Raises FormatError for a file that is damaged, not supported, or changes while it is read,
    OSError for one that cannot be read, TypeError or ValueError for an argument that is not what is
    expected or out of its range, MemoryError, with the numbers, if a session would not fit, and
    ImportError for a repo id without huggingface_hub.
    """

    def __init__(
        self,
        source: Source | None = None,
        *,
        threads: int | None = None,
        kernel: str = "auto",
        isa: str = "auto",
        context: int | None = None,
        kv: Literal["f16", "f32"] = "f16",
        mmap: bool = True,
        i2_s_layout: Layout = "128x32",
        tiles: Mapping[Shape, Tile] | None = None,
        pre_tokenizer: str = "auto",
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Open *source* and pack what cannot be used in place."""
        if kv not in _native.CACHE_KINDS:
            kinds = " or ".join(map(repr, _native.CACHE_KINDS))
            raise ValueError(f"kv is {kv!r}, it must be {kinds}")
        threads = default_threads() if threads is None else threads
        threads = whole_number("threads", threads, 1, _native.MAX_THREADS)
        isa = choose_isa(isa)
        named_kernel(kernel)  # an unknown name is refused before a file is read
        if source is None:
            warnings.warn(f"no model given: using {MODEL}, a small demonstration", stacklevel=2)
            source = MODEL
        if isinstance(source, str) and hub.is_repo_id(source):
            source = hub.download(source)
        pool = _native.Pool(threads)
        with (
            open_checkpoint(
                source, i2_s_layout=i2_s_layout, tiles=tiles, mapped=mmap
            ) as checkpoint,
            ThreadPoolExecutor(1) as beside,
        ):
            tokenizer = beside.submit(_tokenizer, checkpoint, pre_tokenizer)
            self._config = checkpoint.config
            self._context = self._checked_context(context)
            kernels = choose_kernels(checkpoint.config, kernel, isa, threads)
            as_packed = suited(checkpoint.layouts, kernels).union(checkpoint.strips)
            read = checkpoint.tensors(progress, as_packed=as_packed, threads=threads)
            release = checkpoint.release
            tensors = pack_tensors(read, kernels, isa=isa, threads=threads, release=release)
            weights = _native.Weights(checkpoint.config, tensors, isa=isa, threads=threads)
            if weights.strip_bytes:
                release()
            self._tokenizer = tokenizer.result()
            self._breakers = lru_cache(8)(partial(sequence_breakers, self._tokenizer))
            self._bad_words = lru_cache(8)(partial(BadWords, self._tokenizer))
            self._text_place = _text_place(checkpoint)
            self._read_default_sampling = partial(
                default_sampling,
                checkpoint.name,
                checkpoint.folder,
                {k: v for k, v in checkpoint.metadata.items() if k.startswith(GGUF_PREFIX)},
            )
            checkpoint.check_unchanged()
        self._engine = Engine(weights, pool, kind=kv, context=self._context)
        self._layers = make_layers(tensors)
        self._info = measure_model(
            read, tensors, self._engine, context=self._context, kernels=kernel_names(self._layers)
        )
        self._engine.refuse_cache(self._context)

    def __repr__(self) -> str:
        """What it is and what computes it."""
        info = self._info
        name = f"{self._config.name!r} " if self._config.name else ""
        return (
            f"<Model {name}({self._config.architecture}): {_rounded(info.parameters)} parameters, "
            f"{info.computed_by}, {info.threads} threads, context {self._context}"
            f"{'' if self._engine.is_open else ', closed'}>"
        )

    @property
    def config(self) -> ModelConfig:
        """The model's graph and sizes."""
        return self._config

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The weights of the linear layers as they lie in memory: ``layers[3].ffn_down.packed``."""
        return self._layers

    @property
    def info(self) -> ModelInfo:
        """How much memory it takes, by part, and what computes."""
        return self._info

    @property
    def context(self) -> int:
        """Most positions of a session, unless one is made with fewer."""
        return self._context

    @cached_property
    def default_sampling(self) -> Sampling:
        """How the makers of the model would choose tokens; greedy where its files say nothing.

        It is read from generation_config.json of a folder: do_sample, temperature, top_k, top_p,
        min_p, typical_p and repetition_penalty, in the order of transformers, and with its defaults
        where do_sample is true. From a GGUF file: the keys general.sampling.* but those of
        mirostat and of the sequence. Raises FormatError for values that make no sense.
        """
        return self._read_default_sampling()

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary and its rules."""
        return self._tokenizer

    def tokenize(
        self, text: str, *, add_bos: bool | None = None, special: bool = True
    ) -> list[int]:
        """The ids of *text*; see `Tokenizer.encode`."""
        return self._tokenizer.encode(text, add_bos=add_bos, special=special)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of *ids*; see `Tokenizer.decode`."""
        return self._tokenizer.decode(ids)

    def session(self, *, context: int | None = None) -> Session:
        """Start a sequence at position 0; *context* is its room (default: the model's).

        Raises TypeError or ValueError for a context that the model does not allow, or if the model
        was closed, and MemoryError, with the numbers, if its cache would not fit.
        """
        context = self._context if context is None else self._checked_context(context)
        return Session(self._engine, self._engine.cache(context))

    def load_session(self, path: str | os.PathLike[str], *, context: int | None = None) -> Session:
        """Go on with a session that `Session.save` wrote; the next logits are the same bits.

        Raises FormatError for a file that is damaged, of another model or of another kind of cache,
        ValueError if *context* is too short for it, OSError, and what `session` raises.
        """
        context = self._context if context is None else self._checked_context(context)
        _, cache, ids = load_cache(path, self._engine, context, "session")
        session = Session(self._engine, cache)
        session._ids = ids
        return session

    def session_batch(self, count: int, *, context: int | None = None) -> SessionBatch:
        """Start *count* sequences that can step together, at most 128; see `session`."""
        if not 1 <= whole_number("count", count, -(2**63)) <= BATCH:
            raise ValueError(f"{count} sequences: 1 to {BATCH} can step together")
        return SessionBatch([self.session(context=context) for _ in range(count)])

    @overload
    def forward(self, ids: Sequence[int]) -> NDArray[np.float32]: ...
    @overload
    def forward(
        self, ids: Sequence[int], *, hidden: Literal[True]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
    def forward(
        self, ids: Sequence[int], *, hidden: bool = False
    ) -> NDArray[np.float32] | tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits of every position, float32 (n, vocab), of *ids* (n) alone.

        With hidden=True also float32 (layers + 1, n, embedding): the input of layer 0, then the
        residual stream after each layer. Raises what `Session.step` raises.
        """
        tokens = int32_ids(ids)
        config = self._config
        logits = np.empty((len(tokens), config.vocab_size), np.float32)
        shape = (config.block_count + 1, len(tokens), config.embedding_length)
        states = np.empty(shape, np.float32) if hidden else None
        session = self.session(context=max(1, len(tokens)))
        if len(tokens):
            session._run(tokens, logits, states)
        return logits if states is None else (logits, states)

    def trace(self, ids: Sequence[int]) -> dict[tuple[int, str], NDArray[np.float32]]:
        """Results of every op for *ids* (n): {(layer, op): float32 (n, width)}, layer -1 outside.

        `bitnet_lut.diagnose.OPS` has the names. Results that are not finite are kept, and not an
        error as in `Session.step`, which raises for ids as this does.
        """
        return trace_ops(self.session(context=max(1, len(ids))), ids)

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
        self,
        ids: list[int],
        choice: int,
        *,
        max_tokens: int = 256,
        sampling: Sampling | Literal["model"] | None = None,
        stop: str | Sequence[str] = (),
        stop_token_ids: Collection[int] = (),
        min_tokens: int = 0,
        ignore_eos: bool = False,
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
        bad_words: str | Collection[str | Sequence[int]] = (),
        logits_processors: Sequence[LogitsProcessor] = (),
        response_format: "ResponseFormat | None" = None,
        n: int = 1,
        speculate: bool = True,
        reused: int = 0,
    ) -> tuple[Decoder, int]:
        """Make a decoder for the text number *choice*; also the positions its cache needs."""
        known = self._tokenizer.vocab_size
        chosen = self._chosen_sampling(sampling)
        sampler = self._sampler(chosen, choice, bad_words, logits_processors)
        if response_format is not None:
            refuse_beside_format(ignore_eos or min_tokens, bad_words or logits_processors)
        rules = StopRules(
            max_tokens=whole_number("max_tokens", max_tokens, 0),
            room=self._context - len(ids),
            strings=stop_strings(stop),
            end_ids=frozenset() if ignore_eos else self._tokenizer.eos_ids,
            stop_ids=token_set("stop_token_ids", stop_token_ids, known),
            min_tokens=whole_number("min_tokens", min_tokens, 0),
        )
        token_set("logit_bias", chosen.logit_bias, known)
        speculate = speculate and chosen.temperature == 0 and n == 1 and response_format is None
        decoder = Decoder(
            self._tokenizer,
            ids,
            sampler=sampler,
            stop=rules,
            speculation=Speculation(ids) if speculate else None,
            logprobs=None if logprobs is None else whole_number("logprobs", logprobs, 0, known),
            prompt_logprobs=(
                None
                if prompt_logprobs is None or choice
                else whole_number("prompt_logprobs", prompt_logprobs, 0, known)
            ),
            follower=None if response_format is None else self._follower(response_format),
            reused=reused,
        )
        return decoder, len(ids) + rules.limit

    def _chosen_sampling(self, sampling: Any) -> Sampling:
        if sampling is None:
            return Sampling()
        if isinstance(sampling, str) and sampling == "model":
            return self.default_sampling
        if not isinstance(sampling, Sampling):
            raise TypeError(f"sampling is {sampling!r}: it must be a Sampling, 'model' or None")
        return sampling

    def _sampler(self, sampling: Sampling, choice: int, bad_words: Any, processors: Any) -> Sampler:
        """What chooses the tokens of text number *choice*."""
        if sampling.seed is not None:
            sampling = replace(sampling, seed=sampling.seed + choice)
        words = checked_bad_words(bad_words, self._tokenizer.vocab_size)
        strings = tuple(sampling.dry_sequence_breakers)
        return Sampler(
            sampling,
            breakers=self._breakers(strings) if sampling.is_dry else None,
            bad_words=self._bad_words(words) if words else None,
            processors=callables("logits_processors", processors),
        )

    def _prompt_ids(self, prompt: Any) -> list[int]:
        vocab_size = self._engine.weights.config.vocab_size
        ids = self.tokenize(prompt) if isinstance(prompt, str) else prompt_ids(prompt, vocab_size)
        if not ids:
            raise ValueError("the prompt is empty: give some text, or at least one id")
        if len(ids) >= self._context:
            raise ValueError(
                f"the prompt has {len(ids)} tokens, the context holds {self._context}: shorten the "
                "prompt or open the model with a longer context"
            )
        return ids

    def warm_up(self) -> None:
        """Run one token, so that the first text does not wait for the file and for memory."""
        self.session(context=1).step([0])

    def close(self) -> None:
        """Free the weights, as soon as no session uses them any more."""
        self._engine.close()

    def __enter__(self) -> Self:
        """Return the model itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _checked_context(self, context: int | None) -> int:
        limit = self._config.context_length
        if context is None:
            return min(limit, DEFAULT_CONTEXT)
        if not 1 <= whole_number("context", context, -(2**63)) <= limit:
            raise ValueError(f"context is {context}, this model allows 1 to {limit}")
        return context


def _tokenizer(checkpoint: Checkpoint, pre_tokenizer: str) -> Tokenizer:
    if checkpoint.folder is None:
        return Tokenizer.from_gguf(checkpoint.metadata, name=checkpoint.name, pre=pre_tokenizer)
    if pre_tokenizer != "auto":
        raise ValueError(
            f"pre_tokenizer {pre_tokenizer!r} is for GGUF files; a folder says its own"
        )
    return Tokenizer.from_folder(checkpoint.folder)


def _text_place(checkpoint: Checkpoint) -> TextPlace:
    """Where the chat templates are found, once they are needed."""
    found = {k: v for k, v in checkpoint.metadata.items() if k.startswith(TEMPLATE_KEY)}
    return TextPlace(checkpoint.name, checkpoint.folder, found)


def _rounded(count: int) -> str:
    """A large number as people say it."""
    for unit, name in ((10**9, "billion"), (10**6, "million")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{count:,}"
