"""Converting models between formats, tensor by tensor, in little memory for models of any size.

The output is read again before it gets its name: its ternary weights must have the same hash as
before, and its graph must be the same. The result lists everything that was not kept exactly.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from bitnet_lut.checkpoint import Checkpoint, find_state_dict, open_checkpoint
from bitnet_lut.checkpoint.ternary_hash import TernaryHash
from bitnet_lut.convert.gguf import HEADS, TYPES, GGUFTarget
from bitnet_lut.convert.hf import HFTarget
from bitnet_lut.convert.vocabulary import NAMED_PRE_TOKENIZERS
from bitnet_lut.convert.weights import Options, Rounded, TensorReader, Ternarized
from bitnet_lut.errors import FormatError
from bitnet_lut.families import FAMILIES, Activation, ModelConfig, is_linear, tensor_shapes
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.output import Output, find_target
from bitnet_lut.formats.tensors import TernaryMatrix
from bitnet_lut.formats.ternary import Scale
from bitnet_lut.formats.tiles import Shape, Tile

__all__ = [
    "ARCHITECTURES",
    "HEADS",
    "TARGETS",
    "Conversion",
    "Options",
    "check_output",
    "convert",
    "write_checkpoint",
]

TARGETS = (*TYPES, "hf")
# Families that share a graph with another one, whose name a file may get instead.
ARCHITECTURES = tuple(
    name
    for name, family in FAMILIES.items()
    if sum(other.graph == family.graph for other in FAMILIES.values()) > 1
)

# Factors of RoPE, which are checked against the config, and copies of tied embeddings.
_REPEATED = ("rope_freqs.weight", "inv_freq", "output.weight")
_ZEROS = 0x55  # four weights 0
# Rounding the masters of a ternary model has a relative error of 0.5 to 0.65, about the same as for
# normally distributed weights. So only far outliers show that a tensor is not such a master.
_FAR = 0.8


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    nbytes: bytes of all tensors written. ternary_sha256: see ``ternary_hash``; None without ternary
    weights. ternarized: linear layers whose real values were rounded to ternary ones.
    rounded: tensors that changed. warnings: sentences that a person should read.
    """

    output: Path
    nbytes: int
    ternary_sha256: str | None
    ternarized: tuple[Ternarized, ...]
    rounded: tuple[Rounded, ...]
    warnings: tuple[str, ...]


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    type: str = "i2_s",
    head: str | None = None,
    pre_tokenizer: str | None = None,
    chat_template: str | None = None,
    activation: Literal["silu", "relu2"] | None = None,
    architecture: str | None = None,
    i2_s_layout: i2_s.Layout = "128x32",
    tiles: Mapping[Shape, Tile] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Conversion:
    """Write a model in another format.

    source: a GGUF file, the folder of a Hugging Face checkpoint, or a torch state dict with its
        config.json beside it (needs torch).
    output: a GGUF file, which replaces an old one; for "hf" a folder that must not exist.
    type: type of the linear layers, one of TARGETS; "hf" is a packed folder for transformers. Real
        values become ternary by absmean, except that "f16" keeps them if the model is not ternary.
    head: type of embedding and output matrix, one of HEADS; None keeps that of the source. In a
        folder they are float32.
    pre_tokenizer, chat_template, activation, architecture: what to write instead of what the source
        says: a value of ``tokenizer.ggml.pre``, a text, "silu" or "relu2", one of ARCHITECTURES.
    i2_s_layout, tiles: see ``checkpoint.open_checkpoint``.
    progress: called with the bytes written and read again so far and in all.
    Raises FormatError if the source cannot be read or does not suit the target, ValueError for an
    unknown choice, ImportError without torch, and OSError if the result cannot be written; then
    nothing has the name of the output.
    """
    options = Options(type, head, pre_tokenizer, chat_template, activation, architecture)
    _check(options)
    path = Path(output)
    check_output(Path(source), path, folder=type == "hf")
    # Nothing is mapped where that can be: a file that is shortened meanwhile is an error here.
    mapped = find_state_dict(source) is not None
    with open_checkpoint(source, i2_s_layout=i2_s_layout, tiles=tiles, mapped=mapped) as checkpoint:
        return write_checkpoint(checkpoint, path, options, progress)


def write_checkpoint(
    checkpoint: Checkpoint,
    output: Path,
    options: Options,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Conversion:
    """Write an open checkpoint and read it again; see `convert`, which checks the options."""
    folder = options.type == "hf"
    target = (HFTarget if folder else GGUFTarget)(checkpoint, options)
    reader = TensorReader(checkpoint, target.config, all_ternary=target.all_ternary)
    rounded: list[Rounded] = []
    shapes = tensor_shapes(target.config)
    read_again = sum(_bytes_read(shapes[name]) for name in filter(is_linear, shapes))
    advance = _Progress(progress, target.nbytes + read_again)
    with Output(output, folder=folder, nbytes=target.nbytes) as temporary:
        target.write(temporary, reader, rounded.append, advance)
        rounded += _verify(temporary, target.config, reader, advance)
        checkpoint.check_unchanged()
    advance.finish()
    warnings = [
        *target.warnings,
        *_left_out(checkpoint.unused),
        *_not_ternary(reader.ternarized, checkpoint.ternary_masters),
    ]
    return Conversion(
        output=output,
        nbytes=target.nbytes,
        ternary_sha256=reader.hash.hexdigest(),
        ternarized=tuple(reader.ternarized),
        rounded=tuple(rounded),
        warnings=tuple(warnings),
    )


def _check(options: Options) -> None:
    """ValueError for options that do not exist or contradict each other."""
    if options.type == "hf" and options.head is not None:
        raise ValueError("head is for GGUF files; a folder for transformers has one type of floats")
    for field, known in {
        "type": TARGETS,
        "head": HEADS,
        "pre_tokenizer": NAMED_PRE_TOKENIZERS,
        "activation": get_args(Activation),
        "architecture": ARCHITECTURES,
    }.items():
        value = getattr(options, field)
        if value is not None and value not in known:
            raise ValueError(f"{field} is {value!r}: it must be one of {', '.join(known)}")


def check_output(source: Path, output: Path, *, folder: bool) -> None:
    """OSError or ValueError where the output cannot be, or is the source."""
    if output.exists() and source.exists() and output.samefile(source):
        raise ValueError(f"{output}: this is the source; choose another name")
    find_target(output, folder=folder)


def _verify(
    path: Path, config: ModelConfig, reader: TensorReader, advance: Callable[[int], None]
) -> Iterator[Rounded]:
    """Read the output again, and yield the scales that changed.

    FormatError if its weights or its graph are wrong.
    """
    with open_checkpoint(path, mapped=False) as written:
        if _graph(written.config) != _graph(config):
            raise FormatError(f"the graph reads back as {written.config}, not {config}")
        found = TernaryHash(written.config)
        for name, scale in reader.scales.items():
            matrix = written.matrix(name)
            if not isinstance(matrix, TernaryMatrix):
                raise FormatError(f"tensor {name!r} does not read back as ternary")
            found.add(name, matrix)
            yield from _compare(name, matrix, scale)
            written.release()
            advance(_bytes_read((matrix.rows, matrix.cols)))
    if found.hexdigest() != reader.hash.hexdigest():
        raise FormatError(
            f"the ternary weights read back with the hash {found.hexdigest()}, not "
            f"{reader.hash.hexdigest()}: the disk or this program has a fault"
        )


def _bytes_read(shape: tuple[int, ...]) -> int:
    """Bytes that reading a ternary matrix again adds to the progress."""
    return math.prod(shape) // 4


def _graph(config: ModelConfig) -> ModelConfig:
    """A config without what some formats do not keep: its name, and digits beyond float32."""
    return dataclasses.replace(
        config,
        name="",
        rope_theta=float(np.float32(config.rope_theta)),
        rms_eps=float(np.float32(config.rms_eps)),
    )


def _compare(name: str, matrix: TernaryMatrix, scale: Scale) -> Iterator[Rounded]:
    """Yield the change of the scales, if any; scales of rows of zeros do not matter."""
    old = np.broadcast_to(scale, matrix.rows)
    new = np.broadcast_to(matrix.scale, matrix.rows)
    used = np.flatnonzero((old != new) & (matrix.packed != _ZEROS).any(axis=1))
    if used.size:
        change = np.abs(new[used] / old[used] - 1)
        row = used[change.argmax()]
        yield Rounded(name, "scale", str(old[row]), str(new[row]), float(change.max()))


def _left_out(unused: tuple[str, ...]) -> Iterator[str]:
    """Warn of tensors that are not written, except those that repeat what others say."""
    names = [name for name in unused if not name.endswith(_REPEATED)]
    if names:
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        yield f"tensors that the model does not use are left out: {', '.join(names[:4])}{more}"


def _not_ternary(ternarized: list[Ternarized], declared: bool) -> Iterator[str]:
    """Warn of a model that was clearly not trained to be ternary."""
    if not ternarized:
        return
    worst = max(ternarized, key=lambda tensor: tensor.relative_error)
    if declared and worst.relative_error < _FAR:
        return
    before, after = (
        sum(getattr(tensor, f"norm_{when}") ** 2 for tensor in ternarized) ** 0.5
        for when in ("before", "after")
    )
    mean = sum(tensor.relative_error for tensor in ternarized) / len(ternarized)
    reason = "its weights are far from that" if declared else "it does not say so"
    yield (
        f"this model was probably not trained to be ternary, {reason}: rounding "
        f"{len(ternarized)} linear layers has a relative error of {mean:.3f} on average and "
        f"{worst.relative_error:.3f} at most ({worst.name}), their Frobenius norm was {before:.6g} "
        f"and is {after:.6g}; expect meaningless text"
    )


class _Progress:
    """Adds up bytes for a callback."""

    def __init__(self, progress: Callable[[int, int], None], total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, nbytes: int) -> None:
        self._done = min(self._done + nbytes, self._total)
        self._progress(self._done, self._total)

    def finish(self) -> None:
        self(self._total)
