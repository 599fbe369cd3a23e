"""A model: open a file, then tokenize, run, generate."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Literal, Self, TypeGuard, cast, overload

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import _native
from bitnet_lut.checkpoint import Checkpoint, hub, open_checkpoint
from bitnet_lut.demo import MODEL
from bitnet_lut.families import ModelConfig, tensor_shapes
from bitnet_lut.formats.i2_s import Layout
from bitnet_lut.formats.tensors import DenseMatrix, StripMatrix, Tensor
from bitnet_lut.formats.tiles import Shape, Tile
from bitnet_lut.runtime.batch import Lane, generate_together
from bitnet_lut.runtime.choose import choose_kernels, named_kernel
from bitnet_lut.runtime.cpu import choose_isa, default_threads
from bitnet_lut.runtime.generate import Generation, TextStream
from bitnet_lut.runtime.layers import Layer, kernel_names, make_layers
from bitnet_lut.runtime.memory import ModelInfo, refuse_beyond
from bitnet_lut.runtime.packing import pack_tensors, suited
from bitnet_lut.runtime.sampling import Sampling
from bitnet_lut.runtime.session import Probe, Session, SessionBatch, int32_ids, step_lanes
from bitnet_lut.runtime.speculation import Speculation
from bitnet_lut.runtime.steps import BATCH, Steps
from bitnet_lut.text.tokenizer import Tokenizer

__all__ = ["Model", "Probe", "Session", "SessionBatch"]

Source = str | os.PathLike[str] | bytes | memoryview
# A context nobody asked for is not longer than this, whatever the model could do.
DEFAULT_CONTEXT = 4096


class Model:
    """A language model, ready to run.

    source: a GGUF file, its bytes, a folder of a Hugging Face checkpoint, or a Hugging Face repo id
        (owner/name, hf://owner/name or hf://owner/name/file.gguf; needs huggingface_hub). None: the
        small demonstration model inside the package, with a warning that says so.
    threads: default: the cores this process may use.
    kernel, isa: which ternary kernel and which instruction-set tier compute; "auto" chooses.
    context: most positions of a session; default: the model's limit, at most 4096.
    kv: what sessions keep keys and values in, "f16" or "f32".
    i2_s_layout: of I2_S tensors: "128x32" (nearly every file), "64x16", "1x4" or "sequential".
    tiles: {(rows, cols): (BM, BK, bm)} for TL1 and TL2 files of shapes bitnet.cpp does not list.
    pre_tokenizer: overrides the file's; "default" gives bitnet.cpp's ids for the official 2B file.
    progress: called with the bytes of the file's tensors read so far and in all.

    Raises FormatError for a file that is damaged or not supported, OSError for one that cannot be
    read, ValueError for an argument out of its range, MemoryError, with the numbers, if a session
    would not fit, and ImportError for a repo id without huggingface_hub.
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
        i2_s_layout: Layout = "128x32",
        tiles: Mapping[Shape, Tile] | None = None,
        pre_tokenizer: str = "auto",
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Open *source* and pack what cannot be used in place."""
        if kv not in ("f16", "f32"):
            raise ValueError(f"kv is {kv!r}, it must be 'f16' or 'f32'")
        if source is None:
            warnings.warn(f"no model given: using {MODEL}, a small demonstration", stacklevel=2)
            source = MODEL
        isa = choose_isa(isa)
        named_kernel(kernel)  # an unknown name is refused before a file is read
        self._pool = _native.Pool(default_threads() if threads is None else threads)
        if isinstance(source, str) and hub.is_repo_id(source):
            source = hub.download(source)
        with (
            open_checkpoint(source, i2_s_layout=i2_s_layout, tiles=tiles) as checkpoint,
            ThreadPoolExecutor(1) as beside,
        ):
            tokenizer = beside.submit(_tokenizer, checkpoint, pre_tokenizer)
            self._config = checkpoint.config
            self._context = _context(checkpoint.config, context)
            self._kv = kv
            threads = self._pool.threads
            release = checkpoint.release
            kernels = choose_kernels(checkpoint.config, kernel, isa, threads)
            as_packed = suited(checkpoint.layouts, kernels).union(checkpoint.strips)
            read = checkpoint.tensors(progress, as_packed=as_packed, threads=threads)
            tensors = pack_tensors(read, kernels, isa=isa, threads=threads, release=release)
            weights = _native.Weights(checkpoint.config, tensors, isa=isa, threads=threads)
            if weights.strip_bytes:
                release()
            self._tokenizer = tokenizer.result()
        self._open_steps: Steps | None = None
        self._weights: _native.Weights | None = weights
        self._layers = make_layers(tensors)
        self._info = self._measure(read, tensors, isa)
        self._refuse_session(self._context)
        self._open_steps = Steps(weights, self._pool, context=self._context)

    def _measure(
        self, read: Mapping[str, Tensor], tensors: Mapping[str, Tensor], isa: str
    ) -> ModelInfo:
        """Count; *read* are the tensors as they came from the file, before they were packed."""
        shapes = tensor_shapes(self._config)
        sizes = dict.fromkeys(("ternary", "dense", "embedding", "head", "vectors"), 0)
        for name, tensor in tensors.items():
            sizes[_kind(name, tensor)] += tensor.nbytes
        parameters = {name: int(np.prod(shape)) for name, shape in shapes.items()}
        total = sum(parameters.values())
        bits_per_weight = 8 * sum(sizes.values()) / total
        embedding = tensors["token_embd.weight"]
        if self._config.tied_head and isinstance(embedding, DenseMatrix) and embedding.in_strips:
            sizes["head"] = embedding.nbytes
        ternary = sum(
            parameters[name] for name in shapes if _kind(name, tensors[name]) == "ternary"
        )
        kv_bytes, scratch_bytes = self._session_bytes(self._context)
        return ModelInfo(
            parameters=total,
            weight_bytes={kind: size for kind, size in sizes.items() if size},
            mapped_bytes=sum(
                tensor.nbytes
                for name, tensor in tensors.items()
                if tensor is read[name] and _is_mapped(name, tensor)
            ),
            ternary_bits_per_weight=8 * sizes["ternary"] / ternary if ternary else 0.0,
            bits_per_weight=bits_per_weight,
            kv_bytes=kv_bytes,
            scratch_bytes=scratch_bytes,
            isa=isa,
            kernel="+".join(sorted(kernel_names(self._layers))) or "none",
            threads=self._pool.threads,
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
    def tokenizer(self) -> Tokenizer:
        """The vocabulary and its rules."""
        return self._tokenizer

    def tokenize(
        self, text: str, *, add_bos: bool | None = None, special: bool = True
    ) -> list[int]:
        """The ids of *text*; see `Tokenizer.encode`."""
        return self._tokenizer.encode(text, add_bos=add_bos, special=special)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of *ids*."""
        return self._tokenizer.decode(ids)

    def session(self, *, context: int | None = None) -> "Session":
        """Start a sequence at position 0; *context* is its room (default: the model's)."""
        context = self._context if context is None else context
        self._refuse_session(context)
        return Session(self, _native.Cache(self._open(), context, kind=self._kv))

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
        residual stream after each layer.
        """
        tokens = int32_ids(ids)
        config = self._config
        logits = np.empty((len(tokens), config.vocab_size), np.float32)
        states = np.empty(
            (config.block_count + 1, len(tokens), config.embedding_length), np.float32
        )
        cache = self.session(context=max(1, len(tokens)))._cache
        rows = np.arange(len(tokens))
        self._steps.run([(cache, tokens)], rows, logits, states if hidden else None)
        return (logits, states) if hidden else logits

    def session_batch(self, count: int, *, context: int | None = None) -> "SessionBatch":
        """Start *count* sequences that can step together, at most 128; see `session`."""
        if not 1 <= count <= BATCH:
            raise ValueError(f"{count} sequences: 1 to {BATCH} can step together")
        return SessionBatch([self.session(context=context) for _ in range(count)])

    def stream(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int = 256,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        ignore_eos: bool = False,
        speculate: bool = True,
    ) -> TextStream:
        """Generate text piece by piece; arguments as for `generate`.

        The stream's ``result`` holds what was generated so far, with its timings.
        """
        ids = self._prompt_ids(prompt)
        sampling = sampling or Sampling()
        greedy = sampling.temperature == 0
        return TextStream(
            self.session(),
            self._tokenizer,
            ids,
            max_tokens=max_tokens,
            room=self._context - len(ids),
            sampling=sampling,
            stop=(stop,) if isinstance(stop, str) else stop,
            ignore_eos=ignore_eos,
            speculation=Speculation(ids) if speculate and greedy else None,
        )

    def _prompt_ids(self, prompt: str | Sequence[int]) -> list[int]:
        self._open()
        ids = self.tokenize(prompt) if isinstance(prompt, str) else [int(id) for id in prompt]
        if not ids:
            raise ValueError("the prompt is empty and this model adds no BOS token: give some text")
        if len(ids) >= self._context:
            raise ValueError(
                f"the prompt has {len(ids)} tokens, the context holds {self._context}: shorten the "
                "prompt or open the model with a longer context"
            )
        return ids

    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int = 256,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        ignore_eos: bool = False,
        speculate: bool = True,
    ) -> Generation: ...
    @overload
    def generate(
        self,
        prompt: list[str] | list[list[int]],
        *,
        max_tokens: int = 256,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        ignore_eos: bool = False,
        speculate: bool = True,
    ) -> list[Generation]: ...
    def generate(
        self,
        prompt: str | Sequence[int] | list[str] | list[list[int]],
        *,
        max_tokens: int = 256,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        ignore_eos: bool = False,
        speculate: bool = True,
    ) -> Generation | list[Generation]:
        """Continue *prompt*, a text or ids; or each of a list of them, all at once.

        max_tokens: most tokens to generate. sampling: default greedy. stop: strings that end the
        text and are cut off. ignore_eos: run on past end tokens.
        speculate: guess tokens from what the text said before and check several in one step, where
        that promises to be faster; the text is the same. Greedy choice of one text only.
        Texts that are generated at once are those that each would get alone.
        Raises ValueError for an empty prompt or one that does not fit, and NumericsError if the
        model produces NaN or Inf.
        """
        if _is_many(prompt):
            return self._generate_many(prompt, max_tokens, sampling, stop, ignore_eos)
        stream = self.stream(
            cast(str | Sequence[int], prompt),
            max_tokens=max_tokens,
            sampling=sampling,
            stop=stop,
            ignore_eos=ignore_eos,
            speculate=speculate,
        )
        for _ in stream:
            pass
        return stream.result

    def _generate_many(
        self,
        prompts: Sequence[str | Sequence[int]],
        max_tokens: int,
        sampling: Sampling | None,
        stop: Sequence[str],
        ignore_eos: bool,
    ) -> list[Generation]:
        every_ids = [self._prompt_ids(prompt) for prompt in prompts]
        found: list[Generation] = []
        for at in range(0, len(every_ids), BATCH):
            lanes: list[Lane[Session]] = []
            streams: list[TextStream] = []
            for ids in every_ids[at : at + BATCH]:
                room = min(self._context - len(ids), max_tokens)
                lanes.append(Lane(self.session(context=len(ids) + room)))
                stream = TextStream(
                    lanes[-1],
                    self._tokenizer,
                    ids,
                    max_tokens=max_tokens,
                    room=self._context - len(ids),
                    sampling=sampling or Sampling(),
                    stop=(stop,) if isinstance(stop, str) else stop,
                    ignore_eos=ignore_eos,
                )
                streams.append(stream)
            found += generate_together(streams, lanes, step_lanes)
        return found

    def close(self) -> None:
        """Free the weights, as soon as no session uses them any more."""
        self._weights = self._open_steps = None

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

    def _open(self) -> _native.Weights:
        if self._weights is None:
            raise ValueError("this model was closed: open it again to use it")
        return self._weights

    @property
    def _steps(self) -> Steps:
        self._open()
        assert self._open_steps is not None
        return self._open_steps

    def _session_bytes(self, context: int) -> tuple[int, int]:
        """Bytes of a cache, and of the scratch that all sessions share."""
        weights = self._open()
        scratch = _native.workspace_bytes(
            weights, context=context, batch=BATCH, threads=self._pool.threads
        )
        return _native.cache_bytes(weights, context, kind=self._kv), scratch

    def _refuse_session(self, context: int) -> None:
        if not 1 <= context <= self._config.context_length:
            limit = self._config.context_length
            raise ValueError(f"context is {context}, this model allows 1 to {limit}")
        refuse_beyond(
            sum(self._session_bytes(context)),
            f"a session with a context of {context}",
            "ask for a shorter context",
        )


def _is_many(
    prompt: str | Sequence[int] | list[str] | list[list[int]],
) -> TypeGuard[list[str] | list[list[int]]]:
    """Whether these are prompts, and not one."""
    return isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int | np.integer)


def _tokenizer(checkpoint: Checkpoint, pre_tokenizer: str) -> Tokenizer:
    if checkpoint.folder is None:
        return Tokenizer.from_gguf(checkpoint.metadata, name=checkpoint.name, pre=pre_tokenizer)
    if pre_tokenizer != "auto":
        raise ValueError(
            f"pre_tokenizer {pre_tokenizer!r} is for GGUF files; a folder says its own"
        )
    return Tokenizer.from_folder(checkpoint.folder)


def _context(config: ModelConfig, context: int | None) -> int:
    return min(config.context_length, DEFAULT_CONTEXT) if context is None else context


def _kind(name: str, tensor: Tensor) -> str:
    if isinstance(tensor, np.ndarray):
        return "vectors"
    if name in ("token_embd.weight", "output.weight"):
        return "embedding" if name == "token_embd.weight" else "head"
    return "dense" if isinstance(tensor, DenseMatrix | StripMatrix) else "ternary"


def _is_mapped(name: str, tensor: Tensor) -> bool:
    """Whether the bytes belong to the file (or to the caller) and not to memory of ours."""
    if isinstance(tensor, np.ndarray):
        return False
    if isinstance(tensor, DenseMatrix) and tensor.in_strips and name != "token_embd.weight":
        return False
    owner: object
    match tensor:
        case DenseMatrix():
            owner = tensor.data
        case StripMatrix():
            owner = tensor.strips
        case _:
            owner = tensor.packed
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    return not isinstance(owner, np.ndarray)
