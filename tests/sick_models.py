"""Sick models, each made from a healthy one by a mistake that people make, and what is to be said.

`SICK` is the whole set. Run as a program it makes them, has each examined and prints a table::

    python tests/sick_models.py [part of a name ...]

Checkpoints of a training run, as training/demo writes them, join in if BITNET_LUT_CHECKPOINTS is
their folder: those whose loss is above 3 have learned too little.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from draft_model import Draft, Weights
from golden_data import GOLDEN
from hf_folder import HFFolder

from bitnet_lut.convert import convert
from bitnet_lut.convert.synth import synthesize
from bitnet_lut.demo import MODEL
from bitnet_lut.formats import hf, i2_s

_LAYERS = 6


Fault = Callable[[Draft], None]


def recode(*codes: int) -> Fault:
    """Write -1, 0 and +1 as other codes than 0, 1 and 2."""

    def apply(draft: Draft) -> None:
        table = np.array(codes, np.uint8)
        for name, ternary in draft.ternary.items():
            written = table[ternary + 1].reshape(-1, 4, 32)
            packed = written[:, 0] << 6 | written[:, 1] << 4 | written[:, 2] << 2 | written[:, 3]
            scale = i2_s.tail(np.array([draft.scales[name]], np.float32))
            draft.raw[name] = np.concatenate([packed.reshape(-1), scale])

    return apply


def layout(name: str) -> Fault:
    def apply(draft: Draft) -> None:
        for tensor, ternary in draft.ternary.items():
            draft.raw[tensor] = i2_s.pack(ternary, draft.scales[tensor], layout=name)  # type: ignore[arg-type]

    return apply


def scale(change: Callable[[float], float]) -> Fault:
    return lambda draft: draft.each(lambda ternary, old: (ternary, change(old)))


def key(name: str, value: Any) -> Fault:
    def apply(draft: Draft) -> None:
        kind, _ = draft.keys.get(name, (None, None))
        draft.keys[name] = value if kind is None else (kind, value)

    return apply


def norms(step: float, *, chosen: Callable[[str], bool] = lambda name: True) -> Fault:
    def apply(draft: Draft) -> None:
        for name in filter(chosen, draft.vectors):
            draft.vectors[name] = draft.vectors[name] + np.float32(step)

    return apply


def rows(*parts: str, back: bool = False) -> Fault:
    """Reorder the rows of each head between the two kinds of RoPE."""

    def apply(draft: Draft) -> None:
        for name, ternary in draft.ternary.items():
            if name.split(".")[2] in parts:
                shape = (-1, 32, 2, 256) if back else (-1, 2, 32, 256)
                turned = ternary.reshape(shape).swapaxes(1, 2).reshape(ternary.shape)
                draft.ternary[name] = np.ascontiguousarray(turned)

    return apply


def layers(*order: int) -> Fault:
    return lambda draft: draft.order(order)


def both(*faults: Fault) -> Fault:
    def apply(draft: Draft) -> None:
        for fault in faults:
            fault(draft)

    return apply


def zero_layer(draft: Draft) -> None:
    for name, ternary in draft.ternary.items():
        if name.startswith("blk.3."):
            draft.ternary[name] = np.zeros_like(ternary)


def random_head(draft: Draft) -> None:
    """A head that nobody trained, in a model whose head is its embedding."""
    embedding = draft.matrices["token_embd.weight"]
    noise = np.random.default_rng(0).normal(0, embedding.std(), embedding.shape)
    draft.matrices["output.weight"] = noise.astype(np.float32)


def half_empty_embedding(draft: Draft) -> None:
    draft.matrices["token_embd.weight"][len(draft.matrices["token_embd.weight"]) // 3 :] = 0


def without_sub_norms(draft: Draft) -> None:
    """What a converter for Llama makes of it: it does not know sub-norms."""
    rows("attn_q", "attn_k")(draft)  # as in Llama's files
    draft.vectors = {name: v for name, v in draft.vectors.items() if "sub_norm" not in name}
    draft.keys = {
        key.replace("bitnet-b1.58.", "llama."): value for key, value in draft.keys.items()
    }
    draft.keys["general.architecture"] = "llama"


def no_number(name: str) -> Fault:
    def apply(draft: Draft) -> None:
        (draft.matrices if name in draft.matrices else draft.vectors)[name].reshape(-1)[7] = np.nan

    return apply


def random_weights(share: float) -> Fault:
    """Weights of which a share was never trained."""

    def apply(draft: Draft) -> None:
        rng = np.random.default_rng(0)

        def blend(ternary: Weights, scale: float) -> tuple[Weights, float]:
            drawn = rng.integers(-1, 2, ternary.shape, dtype=np.int8)
            return np.where(rng.random(ternary.shape) < share, drawn, ternary), scale

        draft.each(blend)

    return apply


def untrained(draft: Draft) -> None:
    rng = np.random.default_rng(0)
    random_weights(1.0)(draft)
    embedding = draft.matrices["token_embd.weight"]
    draft.matrices["token_embd.weight"] = rng.normal(0, 0.02, embedding.shape).astype(np.float32)
    draft.vectors = {name: np.ones_like(vector) for name, vector in draft.vectors.items()}


def gguf(*faults: Fault) -> Callable[[Path], Path]:
    """A GGUF file with faults."""

    def make(folder: Path) -> Path:
        draft = Draft()
        for fault in faults:
            fault(draft)
        return draft.save(folder / "model.gguf")

    return make


def bytes_of_file(change: Callable[[bytearray], Any]) -> Callable[[Path], Path]:
    """The file with other bytes."""

    def make(folder: Path) -> Path:
        data = bytearray(MODEL.read_bytes())
        change(data)
        (folder / "model.gguf").write_bytes(data)
        return folder / "model.gguf"

    return make


def cut(data: bytearray) -> None:
    del data[len(data) * 2 // 3 :]


def overwrite(data: bytearray) -> None:
    """A disk wrote other data into 64 KiB of the layers."""
    start = len(data) - 2**17
    data[start : start + 2**16] = np.random.default_rng(0).bytes(2**16)


def spoil_header(data: bytearray) -> None:
    data[8:24] = b"\xff" * 16


def hf_folder(*changes: Callable[[HFFolder], None], floats: bool = False) -> Callable[[Path], Path]:
    """A Hugging Face folder, packed or with weights as floats, with changes."""

    def make(folder: Path) -> Path:
        convert(MODEL, folder / "good", type="hf")
        draft = HFFolder(folder / "good", folder / "model")
        if floats:
            draft.settings["quantization_config"]["quantization_mode"] = "online"
            for name in [name for name, t in draft.tensors.items() if t.dtype == np.uint8]:
                packed, factor = draft.tensors[name], draft.tensors.pop(f"{name}_scale")
                weights = hf.unpack(packed, 4 * len(packed)) * factor
                draft.tensors[name] = weights.astype(np.float32)
        draft.tensors = {name: tensor.copy() for name, tensor in draft.tensors.items()}
        for change in changes:
            change(draft)
        return draft.save()

    return make


def packed_codes(folder: HFFolder) -> None:
    """-1 written as the code of 0, and 0 as that of -1."""
    for name, packed in folder.tensors.items():
        if packed.dtype == np.uint8:
            weights = hf.unpack(packed, 4 * len(packed))
            folder.tensors[name] = hf.pack(np.array([0, -1, 1], np.int8)[weights + 1])


def inverse_scales(folder: HFFolder) -> None:
    """The weight_scale of the other linear class."""
    for name, tensor in folder.tensors.items():
        if name.endswith("weight_scale"):
            folder.tensors[name] = 1 / tensor


def wrong_tie(folder: HFFolder) -> None:
    """A model with a head of its own whose config says that it has none."""
    factors = np.exp(np.random.default_rng(0).normal(0, 1.5, 256)).astype(np.float32)
    folder.tensors["lm_head.weight"] = folder.tensors["model.embed_tokens.weight"] * factors
    folder.tensors["model.norm.weight"] = folder.tensors["model.norm.weight"] / factors


def theta(folder: HFFolder) -> None:
    folder.settings["rope_theta"] = 500000.0


def mask_token(folder: HFFolder) -> None:
    folder.settings["mask_token_id"] = 2
    folder.settings["model_type"] = "bitnet"


NORM_OF = {
    "q_proj": "input_layernorm",
    "k_proj": "input_layernorm",
    "v_proj": "input_layernorm",
    "o_proj": "self_attn.attn_sub_norm",
    "gate_proj": "post_attention_layernorm",
    "up_proj": "post_attention_layernorm",
    "down_proj": "mlp.ffn_sub_norm",
}


def never_ternary(folder: HFFolder) -> None:
    """The norms take columns over, which changes nothing in full precision."""
    rng, factors = np.random.default_rng(0), {}
    for name in [name for name in folder.tensors if name.rpartition(".")[0].endswith("_proj")]:
        block, _, linear = name.removesuffix(".weight").rpartition(".")
        norm = f"{block.rpartition('.')[0]}.{NORM_OF[linear]}.weight"
        if norm not in factors:
            factors[norm] = np.exp(rng.normal(0, 2, len(folder.tensors[norm]))).astype(np.float32)
            folder.tensors[norm] = folder.tensors[norm] * factors[norm]
        folder.tensors[name] = folder.tensors[name] / factors[norm]


def only_weights_rounded(folder: HFFolder) -> None:
    """A channel that no weight uses takes nearly all of the range of int8 activations."""
    for layer in range(_LAYERS):
        block = f"model.layers.{layer}"
        for linear, norm in NORM_OF.items():
            part = "mlp" if linear in ("gate_proj", "up_proj", "down_proj") else "self_attn"
            folder.tensors[f"{block}.{part}.{linear}.weight"][:, 7] = 0
            folder.tensors[f"{block}.{norm}.weight"][7] = 300


def as_masters(folder: HFFolder) -> None:
    """Real-valued weights that absmean rounds to those of the model, as training leaves them."""
    rng = np.random.default_rng(0)
    for name, tensor in folder.tensors.items():
        if name.rpartition(".")[0].endswith("_proj"):
            noise = rng.uniform(-0.45, 0.45, tensor.shape) * np.abs(tensor).max()
            folder.tensors[name] = (tensor + noise).astype(np.float32)


def synthetic(folder: Path) -> Path:
    synthesize(folder / "model.gguf", "tiny")
    return folder / "model.gguf"


def golden(name: str) -> Callable[[Path], Path]:
    return lambda folder: GOLDEN / name


def copied(path: Path) -> Callable[[Path], Path]:
    return lambda folder: path


def convert_to(type: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        output = folder / ("model" if type == "hf" else "model.gguf")
        convert(MODEL, output, type=type)
        return output

    return make


@dataclass(frozen=True)
class Patient:
    """A model. expected: the verdicts that are right; where there are two faults, either."""

    name: str
    expected: tuple[str, ...]
    make: Callable[[Path], Path]


def _patient(name: str, expected: str, make: Callable[[Path], Path]) -> Patient:
    return Patient(name, tuple(expected.split()), make)


_Q_AND_K = ("attn_q", "attn_k")
_ACTIVATION, _BASE = "bitnet-b1.58.hidden_activation", "bitnet-b1.58.rope.freq_base"

SICK = (
    _patient("codes 0 2 1", "encoding", gguf(recode(0, 2, 1))),
    _patient("codes 1 0 2", "encoding", gguf(recode(1, 0, 2))),
    _patient("codes 1 2 0", "encoding", gguf(recode(1, 2, 0))),
    _patient("codes 2 0 1", "encoding", gguf(recode(2, 0, 1))),
    _patient("codes 2 1 0", "encoding", gguf(recode(2, 1, 0))),
    _patient("codes 3 0 1", "encoding", gguf(recode(3, 0, 1))),
    _patient("packed codes", "encoding", hf_folder(packed_codes)),
    _patient("layout 64x16", "layout", gguf(layout("64x16"))),
    _patient("layout 1x4", "layout", gguf(layout("1x4"))),
    _patient("layout sequential", "layout", gguf(layout("sequential"))),
    _patient("scales inverse", "scale", gguf(scale(lambda s: 1 / s))),
    _patient("scales over 127", "scale", gguf(scale(lambda s: s / 127))),
    _patient("scales a tenth", "scale", gguf(scale(lambda s: s / 10))),
    _patient("weight_scale inverse", "scale", hf_folder(inverse_scales)),
    _patient("silu", "activation", gguf(key(_ACTIVATION, "silu"))),
    _patient("norms w - 1", "norms", gguf(norms(-1))),
    _patient("norms w + 1", "norms", gguf(norms(1))),
    _patient(
        "norms before layers w - 1", "norms", gguf(norms(-1, chosen=lambda n: "sub_norm" not in n))
    ),
    _patient("no sub-norms", "norms", gguf(without_sub_norms)),
    _patient("q and k permuted", "rope", gguf(rows(*_Q_AND_K))),
    _patient("q and k permuted back", "rope", gguf(rows(*_Q_AND_K, back=True))),
    _patient("k permuted", "rope", gguf(rows("attn_k"))),
    _patient("q permuted back", "rope", gguf(rows("attn_q", back=True))),
    _patient("RoPE base 500000", "rope", gguf(key(_BASE, 500000.0))),
    _patient("RoPE base 1000000", "rope", gguf(key(_BASE, 1000000.0))),
    _patient("rope_theta 500000", "rope", hf_folder(theta)),
    _patient("pre-tokenizer default", "tokenizer", gguf(key("tokenizer.ggml.pre", "default"))),
    _patient("random head", "embedding", gguf(random_head)),
    _patient("head not used", "embedding", hf_folder(wrong_tie)),
    _patient("embedding cut off", "embedding damaged", gguf(half_empty_embedding)),
    _patient("layers reversed", "layers", gguf(layers(5, 4, 3, 2, 1, 0))),
    _patient("layers shifted", "layers", gguf(layers(5, 0, 1, 2, 3, 4))),
    _patient("layers 1 and 4 exchanged", "layers", gguf(layers(0, 4, 2, 3, 1, 5))),
    _patient("layers 0 and 4 exchanged", "layers", gguf(layers(4, 1, 2, 3, 0, 5))),
    _patient("layers shuffled", "layers", gguf(layers(3, 0, 5, 1, 4, 2))),
    _patient("layer doubled", "layers", gguf(layers(0, 1, 2, 2, 4, 5))),
    _patient("layer empty", "layers", gguf(zero_layer)),
    _patient("only weights rounded", "quantization", hf_folder(only_weights_rounded, floats=True)),
    _patient("masters never ternary", "not-ternary", hf_folder(never_ternary, floats=True)),
    _patient("untrained", "untrained", gguf(untrained)),
    _patient("random layers", "untrained", gguf(random_weights(1.0))),
    _patient("synthetic", "untrained", synthetic),
    _patient("golden bitnet-b1.58", "untrained", golden("bitnet-b1.58/model-i2_s.gguf")),
    _patient("golden masters", "untrained", golden("bitnet-b1.58/hf-master-bf16")),
    _patient("golden llama", "untrained", golden("llama-1.58/model-i2_s.gguf")),
    _patient("golden 1bitLLM", "untrained", golden("bitnet-1bitllm/model-i2_s.gguf")),
    _patient("half trained", "undertrained", gguf(random_weights(0.4))),
    _patient("mostly random", "undertrained untrained", gguf(random_weights(0.6))),
    _patient("NaN in a norm", "damaged", gguf(no_number("blk.2.ffn_norm.weight"))),
    _patient("NaN in the embedding", "damaged", gguf(no_number("token_embd.weight"))),
    _patient("truncated", "damaged", bytes_of_file(cut)),
    _patient("overwritten", "damaged", bytes_of_file(overwrite)),
    _patient("header overwritten", "damaged", bytes_of_file(spoil_header)),
    _patient("mask token", "diffusion", hf_folder(mask_token)),
    _patient("codes and RoPE", "encoding rope", gguf(rows(*_Q_AND_K), recode(1, 0, 2))),
    _patient("codes and norms", "encoding norms", gguf(norms(-1), recode(0, 2, 1))),
    _patient("layout and base", "layout rope", gguf(key(_BASE, 500000.0), layout("64x16"))),
    _patient(
        "scales and layers", "scale layers", gguf(layers(0, 2, 1, 3, 4, 5), scale(lambda s: s / 10))
    ),
    _patient(
        "pre-tokenizer and RoPE",
        "tokenizer rope",
        gguf(key("tokenizer.ggml.pre", "default"), rows(*_Q_AND_K)),
    ),
    _patient("base and norms", "rope norms", gguf(key(_BASE, 500000.0), norms(1))),
)

HEALTHY = (
    _patient("demonstration model", "ok", copied(MODEL)),
    _patient("as TQ2_0", "ok", convert_to("tq2_0")),
    _patient("as TL5", "ok", convert_to("tl5")),
    _patient("as F16", "ok", convert_to("f16")),
    _patient("as a folder", "ok", convert_to("hf")),
    _patient("as masters", "ok", hf_folder(as_masters, floats=True)),
)


def checkpoints() -> Iterator[Patient]:
    """Checkpoints of a training run from nothing, by the loss in their names."""
    for path in sorted(Path(os.environ.get("BITNET_LUT_CHECKPOINTS", "-")).glob("scratch-*")):
        _, _, loss = path.name.partition("loss-")
        expected = "untrained" if not loss else "undertrained" if float(loss) > 3 else "ok"
        for name in ("model.gguf", "master"):
            yield _patient(f"{path.name}/{name}", expected, copied(path / name))


def main(names: Sequence[str]) -> None:
    """Examine all patients, or those whose names hold one of *names*; print a table."""
    from bitnet_lut.diagnose import doctor

    right = {"sick": 0, "healthy": 0}
    count = {"sick": 0, "healthy": 0}
    for group, patients in {"sick": (*SICK, *checkpoints()), "healthy": HEALTHY}.items():
        for patient in patients:
            if names and not any(name in patient.name for name in names):
                continue
            folder = Path(tempfile.mkdtemp(prefix="bitnet_lut-sick-"))
            path = patient.make(folder)
            start = time.monotonic()
            diagnosis = doctor(path, threads=1)
            seconds = time.monotonic() - start
            shutil.rmtree(folder)
            good = diagnosis.verdict in patient.expected
            right[group] += good
            count[group] += 1
            cure = next((f for f in diagnosis.findings if f.check == "trials: cure"), None)
            print(
                f"{'' if good else 'WRONG':6}{patient.name:28}{' or '.join(patient.expected):24}"
                f"{diagnosis.verdict:14}{diagnosis.confidence:5.2f}{seconds:6.1f} s  "
                f"{cure.measured.partition(':')[0] if cure else ''}",
                flush=True,
            )
    print(", ".join(f"{group}: {right[group]} of {count[group]} right" for group in count))


if __name__ == "__main__":
    main(sys.argv[1:])
