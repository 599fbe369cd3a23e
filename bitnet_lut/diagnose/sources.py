"""Where traces come from: our engine, the NumPy reference, torch models and dumps."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np

from bitnet_lut import reference
from bitnet_lut._native import CACHE_KINDS
from bitnet_lut.checkpoint import Checkpoint, hub, open_checkpoint
from bitnet_lut.diagnose.ops import Place
from bitnet_lut.diagnose.running import Variant, float_linear
from bitnet_lut.diagnose.trace import SUFFIXES, Floats, Trace, load_dump, to_hf_order
from bitnet_lut.errors import NumericsError
from bitnet_lut.families import ModelConfig, RopeKind, config_from_hf
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.safetensors import read_json
from bitnet_lut.model import Model
from bitnet_lut.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import nn

__all__ = ["AnySource", "Source", "Weights", "open_source"]

Kv: TypeAlias = Literal["f32", "f16", "q8"]
_OPTIONS = re.compile(r"(.+):((?:\w+=[\w.-]*,)*\w+=[\w.-]*)")
_KEYS = {
    "model": ("kernel", "isa", "kv", "threads", "i2_s_layout"),
    "reference": ("kv", "i2_s_layout", "activations"),
    "transformers": (),
    "dump": (),
}


@dataclass(frozen=True)
class Weights:
    """Weights that say what each op has to give, as `reference.forward` takes them.

    masters: reads the floats that a ternary matrix was quantized from, None where there are none.
    """

    config: ModelConfig
    tensors: reference.Tensors
    kv: Kv
    masters: Callable[[str], Floats | None] = lambda name: None


@dataclass(frozen=True)
class Source:
    """Something that gives a trace.

    name: for people. trace: runs ids. exact: see `Trace`. tokenizer: reads the vocabulary, if there
    is one. weights: reads what our definition computes with, if that is known. ids: the only ids
    that it has results for; tokens: how many those are. run: gives the logits alone, float32
    (n, vocab), if that takes less than a trace.
    """

    name: str
    trace: Callable[[Sequence[int]], Trace]
    exact: RopeKind | None = None
    tokenizer: Callable[[], Tokenizer] | None = None
    weights: Callable[[], Weights] | None = None
    ids: tuple[int, ...] | None = None
    tokens: int | None = None
    run: Callable[[Sequence[int]], Floats] | None = None

    def logits(self, ids: Sequence[int]) -> Floats:
        """Logits after each of *ids* (n), float32 (n, vocab); ValueError if it has none."""
        if self.run is not None:
            return self.run(ids)
        found = self.trace(ids).results.get((-1, "logits"))
        if found is None:
            raise ValueError(f"{self.name} holds no logits")
        return found

    def tokenize(self, text: str) -> list[int] | None:
        """The ids of *text*; None without a vocabulary."""
        return None if self.tokenizer is None else self.tokenizer().encode(text, add_eos=False)


# A source as text (see `open_source`), a model, a model of transformers, or results themselves.
AnySource: TypeAlias = "str | os.PathLike[str] | Source | Trace | Model | Variant | nn.Module"


def open_source(source: AnySource) -> Source:
    """Open a source.

    A text is one of::

        model.gguf, a folder, owner/name           our engine
        model.gguf:kernel=tl2,isa=avx2,kv=f16      the same, with options
        reference:model.gguf                       the forward pass in NumPy
        transformers:folder                        transformers, in float32; needs torch
        dump.npz, dump.safetensors                 what another engine wrote, see `load_dump`

    Options of a model: kernel, isa, kv ("f32" here), threads, i2_s_layout; of the reference: kv,
    i2_s_layout, and activations ("int8" or "float", which leaves out their quantization). Raises
    ValueError for an option that is not known, and what opening a model or dump raises.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, Trace):
        return _of_trace(source)
    if isinstance(source, Model):
        return _of_model(repr(source), source, weights=None)
    if isinstance(source, Variant):
        return _of_variant(source)
    if not isinstance(source, str | os.PathLike):
        return _of_module(type(source).__name__, source)
    kind, path, options = _parse(os.fspath(source))
    if kind == "dump":
        return _of_trace(load_dump(path))
    if kind == "transformers":
        return _of_folder(path)
    return _open_model(os.fspath(source), kind, path, options)


def _parse(text: str) -> tuple[str, str, dict[str, str]]:
    """Kind, path and options of a source."""
    kind = next((k for k in ("reference", "transformers") if text.startswith(f"{k}:")), "model")
    path = text.removeprefix(f"{kind}:")
    options: dict[str, str] = {}
    if (match := _OPTIONS.fullmatch(path)) and not Path(path).exists():
        path = match[1]
        options = dict(pair.split("=", 1) for pair in match[2].split(","))
    if kind == "model" and Path(path).suffix in SUFFIXES:
        kind = "dump"
    for key in options:
        if key not in _KEYS[kind]:
            known = ", ".join(_KEYS[kind]) or "none"
            raise ValueError(f"{text}: unknown option {key!r}; those of a {kind} are: {known}")
    if options.get("kv", "f32") not in CACHE_KINDS:
        kinds = " or ".join(CACHE_KINDS)
        raise ValueError(f"{text}: kv is {options['kv']!r}, it must be {kinds}")
    if options.get("activations", "int8") not in ("int8", "float"):
        raise ValueError(f"{text}: activations is {options['activations']!r}: int8 or float")
    if not options.get("threads", "1").isdigit():
        raise ValueError(f"{text}: threads is {options['threads']!r}, it must be a whole number")
    return kind, path, options


def _open_model(name: str, kind: str, path: str, options: Mapping[str, str]) -> Source:
    layout = cast(i2_s.Layout, options.get("i2_s_layout", "128x32"))
    kv = cast(Kv, options.get("kv", "f32"))
    place = os.fspath(hub.download(path)) if hub.is_repo_id(path) else path
    weights = partial(_read_weights, place, layout, kv)
    if kind == "reference":
        arithmetic = options.get("activations", "int8")
        with open_checkpoint(place, i2_s_layout=layout) as checkpoint:
            exact = _exact(checkpoint.config, arithmetic)
        run = partial(_run_reference, name, weights, arithmetic)
        return Source(name, run, exact, partial(_tokenizer, place), weights)
    model = Model(
        place,
        kernel=options.get("kernel", "auto"),
        isa=options.get("isa", "auto"),
        threads=int(options["threads"]) if "threads" in options else None,
        kv=kv,
        i2_s_layout=layout,
    )
    return _of_model(name, model, weights)


def _of_model(name: str, model: Model, weights: Callable[[], Weights] | None) -> Source:
    def run(ids: Sequence[int]) -> Trace:
        config = model.config
        found = {
            place: to_hf_order(config, place, array) for place, array in model.trace(ids).items()
        }
        return Trace(name, found, tuple(ids), config.rope_kind)

    def logits(ids: Sequence[int]) -> Floats:
        with suppress(NumericsError):
            return model.forward(ids)
        return run(ids).results[-1, "logits"]

    exact = model.config.rope_kind
    return Source(name, run, exact, lambda: model.tokenizer, weights, run=logits)


def _of_variant(variant: Variant) -> Source:
    """A model in memory, run by the reference."""
    weights = Weights(variant.config, variant.tensors, "f32")
    name = f"a variant of {variant.config.name or variant.config.architecture}"
    run = partial(_run_reference, name, lambda: weights, variant.arithmetic)
    exact = _exact(variant.config, variant.arithmetic)
    return Source(name, run, exact, lambda: variant.tokenizer, lambda: weights)


def _exact(config: ModelConfig, arithmetic: str) -> RopeKind | None:
    return config.rope_kind if arithmetic == "int8" else None


def _run_reference(
    name: str, read: Callable[[], Weights], arithmetic: str, ids: Sequence[int]
) -> Trace:
    weights = read()
    results: dict[Place, Floats] = {}

    def probe(layer: int, op: str, array: Floats) -> None:
        results[layer, op] = to_hf_order(weights.config, (layer, op), array)

    multiply = float_linear if arithmetic == "float" else reference.linear
    with np.errstate(all="ignore"):  # a sick model may overflow
        reference.forward(
            weights.config, weights.tensors, ids, kv=weights.kv, probe=probe, multiply=multiply
        )
    return Trace(name, results, tuple(ids), _exact(weights.config, arithmetic))


def _read_weights(path: str, layout: i2_s.Layout, kv: Kv) -> Weights:
    checkpoint = open_checkpoint(path, i2_s_layout=layout)
    return Weights(checkpoint.config, checkpoint.tensors(), kv, partial(_masters, checkpoint))


def _tokenizer(path: str) -> Tokenizer:
    with open_checkpoint(path) as checkpoint:
        if checkpoint.folder is not None:
            return Tokenizer.from_folder(checkpoint.folder)
        return Tokenizer.from_gguf(checkpoint.metadata, name=checkpoint.name)


def _masters(checkpoint: Checkpoint, name: str) -> Floats | None:
    stored = checkpoint.stored(name)
    return None if stored is None else stored[:]


def _of_trace(trace: Trace) -> Source:
    return Source(trace.name, lambda ids: trace, trace.exact, ids=trace.ids, tokens=trace.tokens)


def _of_folder(path: str) -> Source:
    """A folder that transformers opens."""
    from bitnet_lut.diagnose.hooks import load_model

    folder = hub.download(path) if hub.is_repo_id(path) else Path(path)
    config = config_from_hf(read_json(folder / "config.json"), f"{folder}/config.json")
    name = f"transformers:{path}"
    model = load_model(folder)

    weights = partial(_read_weights, os.fspath(folder), "128x32", "f32")
    run = partial(_run_module, name, model, config)
    return Source(name, run, None, partial(_tokenizer, os.fspath(folder)), weights)


def _of_module(name: str, model: "nn.Module") -> Source:
    settings: Any = getattr(model, "config", None)
    if not hasattr(settings, "to_dict"):
        raise TypeError(
            f"{name} is no source: give a path, a Model, a Trace, or a model of transformers"
        )
    config = config_from_hf(settings.to_dict(), name)
    return Source(name, partial(_run_module, name, model, config))


def _run_module(name: str, model: "nn.Module", config: ModelConfig, ids: Sequence[int]) -> Trace:
    from bitnet_lut.diagnose.hooks import trace_module

    return Trace(name, trace_module(model, config, ids), tuple(ids))
