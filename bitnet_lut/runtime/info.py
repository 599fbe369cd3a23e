"""How much memory a model takes, by part, and what computes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape

import numpy as np

from bitnet_lut import _native, _registry
from bitnet_lut.families import ModelConfig, tensor_shapes
from bitnet_lut.formats.tensors import DenseMatrix, StripMatrix, Tensor, weights_of
from bitnet_lut.runtime.engine import Engine
from bitnet_lut.runtime.memory import in_megabytes

__all__ = ["ModelInfo", "as_html", "in_words", "measure_model"]


@dataclass(frozen=True)
class ModelInfo:
    """Sizes in bytes, and what they come from.

    parameters: weights of all tensors.
    weight_bytes: in memory, by kind of tensor ("ternary", "dense", "embedding", "head", "vectors").
        A tied head is counted as embedding, except block types, which are repacked for the head
        while rows of the embedding are looked up in the file.
    mapped_bytes: the part of them that is used in place in the file; the rest was packed or copied
        at load.
    ternary_bits_per_weight, bits_per_weight: of the ternary matrices, and of all tensors.
    kv_bytes: keys and values of one session with the model's context, touched as it fills.
    scratch_bytes: the workspace that all sessions of the model share.
    isa, kernel, threads: what computes; kernel names are joined by "+" where there are several.
    plain: those of the kernels that have no functions for this tier and run in plain C.
    types: of the matrices in the file, as "i2_s", those with the most bytes first.
    """

    parameters: int
    weight_bytes: dict[str, int]
    mapped_bytes: int
    ternary_bits_per_weight: float
    bits_per_weight: float
    kv_bytes: int
    scratch_bytes: int
    isa: str
    kernel: str
    threads: int
    plain: tuple[str, ...]
    types: tuple[str, ...]

    @property
    def computed_by(self) -> str:
        """The kernels, and the tiers that they run on."""
        fast = [name for name in self.kernel.split("+") if name not in self.plain]
        parts = [f"{'+'.join(fast)} on {self.isa}"] if fast else []
        if self.plain:
            parts.append(f"{'+'.join(self.plain)} in plain C, having nothing for {self.isa}")
        return ", ".join(parts)

    def __str__(self) -> str:
        """One line: what lies where."""
        total = sum(self.weight_bytes.values())
        return (
            f"weights {in_megabytes(total)} ({in_megabytes(self.mapped_bytes)} of it mapped), "
            f"{self.bits_per_weight:.2f} bits per weight; KV cache {in_megabytes(self.kv_bytes)}, "
            f"scratch {in_megabytes(self.scratch_bytes)}; {self.computed_by}, "
            f"{self.threads} threads"
        )


def measure_model(
    read: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    engine: Engine,
    *,
    types: Mapping[str, str],
    context: int,
    kernels: Iterable[str],
) -> ModelInfo:
    """Count what a model takes.

    read, tensors: the tensors as they came from the file, and as they were packed. types: of the
    tensors in the file. context: of the session whose cache is counted. kernels: names of those
    that compute.
    """
    weights, kernels = engine.weights, sorted(kernels)
    config = weights.config
    shapes = tensor_shapes(config)
    kinds = {name: _kind(name, tensor) for name, tensor in tensors.items()}
    sizes = dict.fromkeys(("ternary", "dense", "embedding", "head", "vectors"), 0)
    for name, tensor in tensors.items():
        sizes[kinds[name]] += tensor.nbytes
    parameters = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    total = sum(parameters.values())
    ternary = sum(parameters[name] for name in shapes if kinds[name] == "ternary")
    bits_per_weight = 8 * sum(sizes.values()) / total
    if _has_packed_tied_head(config, tensors):
        sizes["head"] = tensors["token_embd.weight"].nbytes
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
        kv_bytes=engine.cache_bytes(context),
        scratch_bytes=engine.workspace_bytes(context),
        isa=weights.isa,
        kernel="+".join(kernels) or "none",
        threads=engine.pool.threads,
        plain=tuple(
            name
            for name in kernels
            if name not in _registry.functions and not _native.Cell(name, isa=weights.isa).own
        ),
        types=_matrix_types(tensors, types),
    )


def _matrix_types(tensors: Mapping[str, Tensor], types: Mapping[str, str]) -> tuple[str, ...]:
    sizes: Counter[str] = Counter()
    for name, tensor in tensors.items():
        if not isinstance(tensor, np.ndarray):
            sizes[types[name]] += tensor.nbytes
    return tuple(name for name, _ in sizes.most_common())


def in_words(count: int) -> str:
    """A large number as people say it."""
    for unit, name in ((10**9, "billion"), (10**6, "million")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{count:,}"


def as_html(config: ModelConfig, info: ModelInfo, context: int, *, is_open: bool) -> str:
    """A table for notebooks: what a model is, what it takes and what computes it."""
    rows = {
        "Name": config.name or "not stated",
        "Family": config.architecture,
        "Parameters": in_words(info.parameters),
        "Types": ", ".join(info.types),
        "Weights": (
            f"{in_megabytes(sum(info.weight_bytes.values()))}, {info.bits_per_weight:.2f} bits each"
        ),
        "Context": f"{context:,} of {config.context_length:,} tokens",
        "Kernel": info.kernel,
        "Tier": info.isa,
        "Threads": str(info.threads),
    }
    body = "".join(
        f'<tr><th style="text-align:left">{escape(key)}</th>'
        f'<td style="text-align:left">{escape(value)}</td></tr>'
        for key, value in rows.items()
    )
    closed = "" if is_open else " (closed)"
    return f"<table><caption>bitnet_lut.Model{closed}</caption><tbody>{body}</tbody></table>"


def _has_packed_tied_head(config: ModelConfig, tensors: Mapping[str, Tensor]) -> bool:
    embedding = tensors["token_embd.weight"]
    return config.tied_head and isinstance(embedding, DenseMatrix) and embedding.in_strips


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
    owner: object = weights_of(tensor)
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    return not isinstance(owner, np.ndarray)
