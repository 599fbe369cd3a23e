"""A model: open a file, then tokenize, run, generate."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Literal, Self, overload

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import _native
from bitnet_lut.checkpoint import Checkpoint, hub, open_checkpoint
from bitnet_lut.demo import MODEL
from bitnet_lut.families import ModelConfig
from bitnet_lut.formats.i2_s import Layout
from bitnet_lut.formats.tiles import Shape, Tile
from bitnet_lut.runtime.arguments import int32_ids, whole_number
from bitnet_lut.runtime.chatting import TEMPLATE_KEY, Chatting, TextPlace
from bitnet_lut.runtime.choose import choose_kernels, named_kernel
from bitnet_lut.runtime.cpu import choose_isa, default_threads
from bitnet_lut.runtime.default_sampling import GGUF_PREFIX, default_sampling
from bitnet_lut.runtime.engine import BATCH, Engine
from bitnet_lut.runtime.info import ModelInfo, as_html, in_words, measure_model
from bitnet_lut.runtime.layers import Layer, kernel_names, make_layers
from bitnet_lut.runtime.likelihood import Likelihood
from bitnet_lut.runtime.packing import copy_tensors, pack_tensors, suited
from bitnet_lut.runtime.progress import Progress, shown
from bitnet_lut.runtime.sampling import Sampling
from bitnet_lut.runtime.saved import load_cache
from bitnet_lut.runtime.session import Session, SessionBatch
from bitnet_lut.runtime.tracing import trace_ops
from bitnet_lut.text.tokenizer import Tokenizer

__all__ = ["Model"]

Source = str | os.PathLike[str] | bytes | memoryview
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
    kv: what sessions keep keys and values in: "f16", "f32", or "q8" (8 bits), which takes half of
        the memory and of the time of attention of "f16", and changes the logits a little.
    mmap: True uses weights that need no packing where they lie in the mapped file: it opens faster
        and shares them with other processes. None (the default) copies them to huge pages of memory
        where the system has them and half of the free memory is enough: tokens then come up to a
        quarter faster. False reads the file instead of mapping it. A mapped file must not change
        while the model is in use: when it shrinks, the operating system ends the process (SIGBUS).
    i2_s_layout: of I2_S tensors: "128x32" (nearly every file), "64x16", "1x4" or "sequential".
    tiles: {(rows, cols): (BM, BK, bm)} for TL1 and TL2 files of shapes bitnet.cpp does not list.
    pre_tokenizer: overrides the file's; "default" gives bitnet.cpp's ids for the official 2B file.
    progress: called with the bytes of the file's tensors read so far and in all; True shows a bar,
        False none; None shows one after a second, in a terminal or a notebook.

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
        kv: Literal["f16", "f32", "q8"] = "f16",
        mmap: bool | None = None,
        i2_s_layout: Layout = "128x32",
        tiles: Mapping[Shape, Tile] | None = None,
        pre_tokenizer: str = "auto",
        progress: Progress | bool | None = None,
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
            shown(progress, "B") as report,
            open_checkpoint(
                source, i2_s_layout=i2_s_layout, tiles=tiles, mapped=mmap is not False
            ) as checkpoint,
            ThreadPoolExecutor(1) as beside,
        ):
            tokenizer = beside.submit(_tokenizer, checkpoint, pre_tokenizer)
            self._context = _checked_context(checkpoint.config, context)
            kernels = choose_kernels(checkpoint.config, kernel, isa, threads)
            self._engine = self._load(checkpoint, kernels, isa, pool, kv, mmap, report)
            self._tokenizer = tokenizer.result()
            self._text_place = _text_place(checkpoint)
            self._read_default_sampling = _default_sampling(checkpoint)
            checkpoint.check_unchanged()
        self._engine.refuse_cache(self._context)

    def _load(
        self,
        checkpoint: Checkpoint,
        kernels: Mapping[str, str],
        isa: str,
        pool: _native.Pool,
        kv: str,
        mmap: bool | None,
        report: Progress,
    ) -> Engine:
        """Read and pack the weights; also notes what they take."""
        threads = pool.threads
        as_packed = suited(checkpoint.layouts, kernels).union(checkpoint.strips)
        read = checkpoint.tensors(report, as_packed=as_packed, threads=threads)
        release = checkpoint.release
        tensors = pack_tensors(read, kernels, isa=isa, threads=threads, release=release)
        if mmap is None:
            in_place = {name: tensor for name, tensor in tensors.items() if tensor is read[name]}
            tensors |= copy_tensors(in_place, threads=threads, release=release)
        weights = _native.Weights(checkpoint.config, tensors, isa=isa, threads=threads)
        if weights.strip_bytes:
            release()
        engine = Engine(weights, pool, kind=kv, context=self._context)
        self._layers = make_layers(tensors)
        self._info = measure_model(
            read,
            tensors,
            engine,
            types=checkpoint.types,
            context=self._context,
            kernels=kernel_names(self._layers),
        )
        return engine

    def __repr__(self) -> str:
        """What it is and what computes it."""
        config, info = self.config, self._info
        name = f"{config.name!r} " if config.name else ""
        return (
            f"<Model {name}({config.architecture}): {in_words(info.parameters)} parameters, "
            f"{info.computed_by}, {info.threads} threads, context {self._context}"
            f"{'' if self._engine.is_open else ', closed'}>"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the same and more as a table."""
        return as_html(self.config, self._info, self._context, is_open=self._engine.is_open)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The weights of the linear layers as they lie in memory: ``layers[3].ffn_down.packed``."""
        return self._layers

    @property
    def info(self) -> ModelInfo:
        """How much memory it takes, by part, and what computes."""
        return self._info

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
        context = self._context if context is None else _checked_context(self.config, context)
        return Session(self._engine, self._engine.cache(context))

    def load_session(self, path: str | os.PathLike[str], *, context: int | None = None) -> Session:
        """Go on with a session that `Session.save` wrote; the next logits are the same bits.

        Raises FormatError for a file that is damaged, of another model or of another kind of cache,
        ValueError if *context* is too short for it, OSError, and what `session` raises.
        """
        context = self._context if context is None else _checked_context(self.config, context)
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
        config = self.config
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


def _checked_context(config: ModelConfig, context: int | None) -> int:
    limit = config.context_length
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


def _default_sampling(checkpoint: Checkpoint) -> Callable[[], Sampling]:
    """Reads what the makers recommend, once it is asked for."""
    found = {k: v for k, v in checkpoint.metadata.items() if k.startswith(GGUF_PREFIX)}
    return partial(default_sampling, checkpoint.name, checkpoint.folder, found)
