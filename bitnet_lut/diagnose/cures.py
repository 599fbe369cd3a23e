"""The table of cures: changes of a model in memory, each of which undoes one known mistake."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.checkpoint.base import ternarize
from bitnet_lut.diagnose.findings import Verdict
from bitnet_lut.diagnose.layers_checks import best_order, likeness
from bitnet_lut.diagnose.running import Variant
from bitnet_lut.diagnose.subject import Subject
from bitnet_lut.errors import FormatError
from bitnet_lut.families import is_linear
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tensors import DenseMatrix, TernaryMatrix
from bitnet_lut.reference import dense_weights
from bitnet_lut.text.tokenizer import Tokenizer

__all__ = ["ROUNDING", "Cure", "cures"]

Change: TypeAlias = Callable[[Variant], Variant]
Bytes: TypeAlias = NDArray[np.uint8]

_WEIGHTS = ("-1", "0", "+1")
_PRE_TOKENIZERS = ("llama-bpe", "qwen2", "falcon3", "default")
_ROPE_BASES = (1e4, 1e5, 5e5, 1e6, 1e7)
_MOST_SWAPS = 30  # of layers that are not neighbors


@dataclass(frozen=True)
class Cure:
    """A change that undoes a mistake.

    name: what the trial then is. verdict: what is wrong if it helps. change: makes the variant.
    stage: of two cures the one of the lower stage is applied first.
    fix: what to do, in words. writable: whether a file can state it.
    """

    name: str
    verdict: Verdict
    change: Change
    stage: int
    fix: str
    writable: bool = True

    @property
    def kind(self) -> str:
        """What it changes: the first word of its name."""
        return self.name.split()[0]

    def then(self, other: "Cure") -> "Cure":
        """Both cures, in the order of their stages; named and judged by this one first."""
        first, second = sorted((self, other), key=lambda cure: cure.stage)
        return Cure(
            f"{self.name}; and {other.name}",
            self.verdict,
            lambda variant: second.change(first.change(variant)),
            first.stage,
            f"{self.fix}; and {other.fix}",
            self.writable and other.writable,
        )


def cures(subject: Subject) -> Iterator[Cure]:
    """Every cure that can be tried on a model."""
    for kind in (
        _layouts,
        _codes,
        _ternary,
        _scales,
        _activation,
        _norms,
        _rope,
        _tokenizers,
        _heads,
        _layers,
    ):
        yield from kind(subject)


def _layouts(subject: Subject) -> Iterator[Cure]:
    if "i2_s" not in getattr(subject.checkpoint, "types", {}).values():
        return
    for layout in get_args(i2_s.Layout):
        if layout == subject.i2_s_layout:
            continue

        def read_again(variant: Variant, layout: i2_s.Layout = layout) -> Variant:
            with open_checkpoint(subject.source, i2_s_layout=layout) as other:
                return variant.changed({name: other.matrix(name) for name in subject.ternary})

        fix = f"read it with --i2s-layout {layout}, or convert it with that option"
        yield Cure(f"layout {layout}", "layout", read_again, 0, fix)


def _codes(subject: Subject) -> Iterator[Cure]:
    """All ways to read the codes that occur as -1, 0 and +1."""
    if not subject.ternary:
        return
    found = subject.statistics.values()
    shares = (
        sum(s.negative for s in found),
        sum(s.zero for s in found),
        sum(s.positive for s in found),
        sum(s.invalid for s in found),
    )
    codes = [code for code, share in enumerate(shares) if share]
    if len(codes) != 3:
        return
    for meant in itertools.permutations(range(3)):
        if list(meant) == codes:
            continue
        table = np.arange(4)
        table[codes] = meant
        pairs = " ".join(f"{code:02b}={_WEIGHTS[m]}" for code, m in zip(codes, meant, strict=True))
        fix = f"the writer used the code {pairs}: convert it again, or write the mended file"
        yield Cure(f"code {pairs}", "encoding", _each_ternary(_recoder(table)), 1, fix)


def _recoder(table: NDArray[np.integer]) -> Callable[[TernaryMatrix], TernaryMatrix]:
    """Replaces every code by the one that *table* has for it; padding stays 0."""
    byte = np.arange(256)
    lut = sum(table[byte >> shift & 3] << shift for shift in (0, 2, 4, 6)).astype(np.uint8)

    def recode(matrix: TernaryMatrix) -> TernaryMatrix:
        packed = lut[matrix.packed]
        if matrix.cols % 128:
            at = np.arange(-(-matrix.cols // 128) * 128) >= matrix.cols
            bits = at.reshape(-1, 4, 32) * (np.array([192, 48, 12, 3])[:, None])
            mask = bits.sum(axis=1).reshape(-1).astype(np.uint8)
            packed = (packed & ~mask) | (np.uint8(0x55) & mask)
        return replace(matrix, packed=packed)

    return recode


def _each_ternary(change: Callable[[TernaryMatrix], TernaryMatrix]) -> Change:
    def apply(variant: Variant) -> Variant:
        return variant.changed(
            {
                name: change(tensor)
                for name, tensor in variant.tensors.items()
                if isinstance(tensor, TernaryMatrix)
            }
        )

    return apply


def _ternary(subject: Subject) -> Iterator[Cure]:
    if any(is_linear(name) for name in subject.dense):
        yield ROUNDING


def _rounded(variant: Variant) -> Variant:
    return variant.changed(
        {
            name: ternarize(dense_weights(tensor))
            for name, tensor in variant.tensors.items()
            if is_linear(name) and isinstance(tensor, DenseMatrix)
        }
    )


# Linear layers that are run as floats, rounded as BitNet models are trained.
ROUNDING = Cure(
    "weights by absmean, activations to int8",
    "quantization",
    _rounded,
    1,
    "convert it with bitnet-lut convert --type i2_s: what it writes is run with int8 activations",
)


def _scales(subject: Subject) -> Iterator[Cure]:
    if not subject.ternary:
        return

    def inverse(matrix: TernaryMatrix) -> TernaryMatrix:
        used = np.where(matrix.scale > 0, matrix.scale, 1).astype(np.float32)
        return replace(matrix, scale=np.float32(1) / used)

    def unit_gain(matrix: TernaryMatrix) -> TernaryMatrix:
        kept: NDArray[np.float32] = np.array([1.2 / matrix.cols**0.5], np.float32)
        return replace(matrix, scale=kept)

    def unsquared(matrix: TernaryMatrix) -> TernaryMatrix:
        root: NDArray[np.float32] = np.sqrt(matrix.scale)
        return replace(matrix, scale=root)

    how = "convert it again by a converter that keeps the scales, or write the mended file"
    yield Cure("inverse scales", "scale", _each_ternary(inverse), 2, how)
    yield Cure("scales that keep the deviation", "scale", _each_ternary(unit_gain), 2, how)
    yield Cure("scales taken once, not twice", "scale", _each_ternary(unsquared), 2, how)
    for factor in (127.0, 1 / 127, 10.0, 0.1):

        def times(matrix: TernaryMatrix, factor: float = factor) -> TernaryMatrix:
            return replace(matrix, scale=matrix.scale * np.float32(factor))

        yield Cure(f"scales x {factor:.4g}", "scale", _each_ternary(times), 2, how)


def _activation(subject: Subject) -> Iterator[Cure]:
    other = "silu" if subject.config.activation == "relu2" else "relu2"
    fix = f"convert it with --activation {other}, which writes the key"
    yield Cure(f"activation {other}", "activation", _config(activation=other), 2, fix)


def _config(**values: Any) -> Change:
    return lambda variant: variant.changed(**values)


def _norms(subject: Subject) -> Iterator[Cure]:
    config = subject.config
    if config.sub_norms:
        fix = "say so in its config: it is a model without sub-norms"
        off = _config(sub_norms=False)
        yield Cure("no sub-norms", "norms", off, 2, fix, writable=False)
    else:

        def ones(variant: Variant) -> Variant:
            sizes = {
                "attn_sub_norm": config.head_count * config.head_dim,
                "ffn_sub_norm": config.feed_forward_length,
            }
            made = {
                f"blk.{layer}.{norm}.weight": np.ones(size, np.float32)
                for layer in range(config.block_count)
                for norm, size in sizes.items()
            }
            return variant.changed(made, sub_norms=True)

        fix = "convert it again with its sub-norms, which are missing: only their weights are lost"
        yield Cure("sub-norms of weight 1", "norms", ones, 2, fix, writable=False)
    for word, step in (("w - 1", -1), ("w + 1", 1)):
        for which, chosen in (
            ("all norms", lambda name: True),
            ("norms before layers", lambda name: "sub_norm" not in name),
            ("sub-norms", lambda name: "sub_norm" in name),
        ):
            if which != "all norms" and not config.sub_norms:
                continue
            fix = f"convert it again with {word} for the weights w of {which}"
            yield Cure(f"{word} for {which}", "norms", _shifted(step, chosen), 2, fix)


def _shifted(step: int, chosen: Callable[[str], bool]) -> Change:
    def apply(variant: Variant) -> Variant:
        return variant.changed(
            {
                name: tensor + np.float32(step)
                for name, tensor in variant.tensors.items()
                if name.endswith("norm.weight") and chosen(name)
            }
        )

    return apply


def _rope(subject: Subject) -> Iterator[Cure]:
    config = subject.config
    for base in _ROPE_BASES:
        if not np.isclose(base, config.rope_theta):
            key = "rope.freq_base in GGUF, rope_theta in config.json"
            fix = f"write {base:.0f} as the base of RoPE ({key})"
            yield Cure(f"RoPE base {base:.0f}", "rope", _config(rope_theta=base), 2, fix)
    if config.rope_dim != config.head_dim:
        return
    for word, back in (("halves to pairs", False), ("pairs to halves", True)):
        for which, parts in (("q and k", "qk"), ("q", "q"), ("k", "k")):
            name = f"rows of {which} from {word}"
            change = _reordered(tuple(f"attn_{part}" for part in parts), back)
            fix = (
                f"reorder the {name} in each head, as converters do between the RoPE of Llama in "
                "GGUF (pairs) and of Hugging Face (halves)"
            )
            yield Cure(name, "rope", change, 2, fix)


def _reordered(parts: Sequence[str], back: bool) -> Change:
    """Rows of each head in the order 0, h, 1, h + 1, ...; or *back* from that."""

    def apply(variant: Variant) -> Variant:
        config, found = variant.config, {}
        heads = {"attn_q": config.head_count, "attn_k": config.head_count_kv}
        for name, tensor in variant.tensors.items():
            part = name.split(".")[2] if name.startswith("blk.") else ""
            if part in parts:
                shape = (2, -1) if not back else (-1, 2)
                order = np.arange(heads[part] * config.head_dim).reshape(heads[part], *shape)
                found[name] = _rows(tensor, order.swapaxes(1, 2).reshape(-1))
        return variant.changed(found)

    return apply


def _rows(tensor: Any, order: NDArray[np.integer]) -> Any:
    if isinstance(tensor, TernaryMatrix):
        scale = tensor.scale if tensor.scale.size == 1 else tensor.scale[order]
        return replace(tensor, packed=np.ascontiguousarray(tensor.packed[order]), scale=scale)
    if isinstance(tensor, DenseMatrix):
        return replace(tensor, data=np.ascontiguousarray(tensor.data[order]))
    return np.ascontiguousarray(tensor[order])


def _tokenizers(subject: Subject) -> Iterator[Cure]:
    if not subject.tokenizer.pre:  # it is not byte-level BPE of a GGUF file
        return
    for pre in _PRE_TOKENIZERS:
        if pre != subject.tokenizer.pre:
            fix = f"convert it with --pre-tokenizer {pre}"
            made = subject.make_tokenizer(pre)

            def exchanged(variant: Variant, tokenizer: Tokenizer = made) -> Variant:
                return replace(variant, tokenizer=tokenizer)

            yield Cure(f"pre-tokenizer {pre}", "tokenizer", exchanged, 2, fix)


def _heads(subject: Subject) -> Iterator[Cure]:
    if not subject.config.tied_head:
        fix = "leave output.weight out: the embedding is also the output matrix"
        yield Cure("tied head", "embedding", _config(tied_head=True), 2, fix)
    elif "output.weight" in subject.checkpoint.unused:
        try:
            head = _unused_head(subject)
        except FormatError:
            return

        def untied(variant: Variant) -> Variant:
            return variant.changed({"output.weight": head}, tied_head=False)

        fix = "set tie_word_embeddings to false: the source has an output matrix of its own"
        yield Cure("a head of its own", "embedding", untied, 2, fix)


def _unused_head(subject: Subject) -> DenseMatrix:
    matrix = subject.checkpoint.matrix("output.weight")
    if not isinstance(matrix, DenseMatrix):
        raise FormatError("the output matrix is ternary")
    return matrix


def _layers(subject: Subject) -> Iterator[Cure]:
    count = subject.config.block_count
    for name, order in (_orders(count) | _likely_orders(subject)).items():
        if order != list(range(count)):
            fix = f"number the layers {', '.join(map(str, order))}"
            yield Cure(name, "layers", _layer_order(order), 1, fix)


def _likely_orders(subject: Subject) -> dict[str, list[int]]:
    """The order in which the norms of neighbors are most alike, which has no direction."""
    alike = likeness(subject)
    if not np.isfinite(alike).all():
        return {}
    order = best_order(alike).tolist()
    return {
        "layers in the likeliest order": order,
        "layers in the likeliest order, reversed": order[::-1],
    }


def _orders(count: int) -> dict[str, list[int]]:
    """Orders of layers by name: element n is the layer of the file that comes in place n."""
    layers = list(range(count))
    as_text = sorted(layers, key=str)
    found = {
        "layers reversed": layers[::-1],
        "last layer first": [count - 1, *layers[:-1]],
        "first layer last": [*layers[1:], 0],
        "layers as text sorts their numbers": as_text,
        "layers back from the order of text": [as_text.index(n) for n in layers],
    }
    pairs = list(itertools.combinations(layers, 2))
    if len(pairs) > _MOST_SWAPS:
        pairs = [(n, n + 1) for n in layers[:-1]]
    for a, b in pairs:
        order = layers.copy()
        order[a], order[b] = b, a
        found[f"layers {a} and {b} exchanged"] = order
    return found


def _layer_order(order: Sequence[int]) -> Change:
    def apply(variant: Variant) -> Variant:
        place = {layer: n for n, layer in enumerate(order)}
        found = {}
        for name, tensor in variant.tensors.items():
            if name.startswith("blk."):
                _, layer, rest = name.split(".", 2)
                found[f"blk.{place[int(layer)]}.{rest}"] = tensor
        return variant.changed(found)

    return apply
