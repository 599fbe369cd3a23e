"""The ops of a forward pass, as probes and dumps name them: the one list of them.

A place is a pair (layer, op), with layer -1 outside the layers. Its key in a dump is
``blk.<layer>.<op>`` inside a layer, and the op alone outside.
"""

import re
from collections.abc import Collection, Mapping

__all__ = ["LAYER_OPS", "OPS", "Place", "inputs_of", "key_of", "order_of", "place_of"]

Place = tuple[int, str]

# In the order of the computation. Every result has the shape (tokens, width).
OPS: Mapping[str, str] = {
    "embedding": "rows of the embedding, times its scale",
    "attn_norm": "RMSNorm of what enters the layer",
    "attn_q": "queries of all heads, with bias, before norms of heads and before RoPE",
    "attn_k": "keys, likewise",
    "attn_v": "values, with bias",
    "attention": "softmax(q k) v of all heads",
    "attn_sub_norm": "what attn_output multiplies: attention, after the sub-norm if there is one",
    "attn_output": "the output projection",
    "attn_post_norm": "its norm, if the model has one",
    "ffn_norm": "RMSNorm of the residual stream after attention",
    "ffn_gate": "the gate projection",
    "ffn_up": "the up projection",
    "ffn_activation": "activation(gate) * up",
    "ffn_sub_norm": "what ffn_down multiplies: ffn_activation, after the sub-norm if there is one",
    "ffn_down": "the down projection",
    "ffn_post_norm": "its norm, if the model has one",
    "residual": "the residual stream after the layer",
    "output_norm": "RMSNorm of the last residual stream",
    "logits": "the scores of every token",
}
_OUTSIDE = ("embedding", "output_norm", "logits")
LAYER_OPS = tuple(op for op in OPS if op not in _OUTSIDE)
_KEY = re.compile(r"blk\.(\d{1,4})\.(\w+)")
# Names that the callback of llama.cpp sees for the same results, "<name>-<layer>" inside a layer.
# Qcur and Kcur are not among them: their rows may be in the order of the file.
_LLAMA_CPP_KEY = re.compile(r"(\w+)-(\d{1,4})")
_LLAMA_CPP_OUTSIDE = {
    "inp_embd": "embedding",
    "result_norm": "output_norm",
    "result_output": "logits",
}
_LLAMA_CPP = {
    "attn_norm": "attn_norm",
    "Vcur": "attn_v",
    "kqv_out": "attention",
    "attn_sub_norm": "attn_sub_norm",
    "attn_o_out": "attn_output",
    "ffn_norm": "ffn_norm",
    "ffn_gate": "ffn_gate",
    "ffn_up": "ffn_up",
    "ffn_sub_norm": "ffn_sub_norm",
    "ffn_down": "ffn_down",
    "l_out": "residual",
}
_BEFORE = {
    **dict.fromkeys(("attn_q", "attn_k", "attn_v"), ("attn_norm",)),
    "attention": ("attn_q", "attn_k", "attn_v"),
    "attn_sub_norm": ("attention",),
    "attn_output": ("attn_sub_norm",),
    "attn_post_norm": ("attn_output",),
    **dict.fromkeys(("ffn_gate", "ffn_up"), ("ffn_norm",)),
    "ffn_activation": ("ffn_gate", "ffn_up"),
    "ffn_sub_norm": ("ffn_activation",),
    "ffn_down": ("ffn_sub_norm",),
    "ffn_post_norm": ("ffn_down",),
}


def key_of(place: Place) -> str:
    """The name of a result in a dump."""
    layer, op = place
    return op if layer < 0 else f"blk.{layer}.{op}"


def place_of(key: str) -> Place | None:
    """What a name in a dump stands for, ours or llama.cpp's; None for one that is neither."""
    key = _LLAMA_CPP_OUTSIDE.get(key, key)
    if key in _OUTSIDE:
        return -1, key
    if (match := _LLAMA_CPP_KEY.fullmatch(key)) and match[1] in _LLAMA_CPP:
        return int(match[2]), _LLAMA_CPP[match[1]]
    match = _KEY.fullmatch(key)
    return (int(match[1]), match[2]) if match and match[2] in LAYER_OPS else None


def order_of(place: Place) -> tuple[int, int]:
    """Sorts places in the order of the computation."""
    layer, op = place
    outside = {"embedding": -1, "output_norm": 2**31, "logits": 2**31}
    return outside.get(op, layer), list(OPS).index(op)


def inputs_of(place: Place, present: Collection[Place], layers: int) -> tuple[Place, ...]:
    """The results that an op computes from.

    present: the places of the model, which tell whether it has post-norms; layers: how many.
    """
    layer, op = place
    if op in _BEFORE:
        return tuple((layer, before) for before in _BEFORE[op])
    if op == "embedding":
        return ()
    if op == "logits":
        return ((-1, "output_norm"),)
    if op == "output_norm":
        layer = layers
    entering = (layer - 1, "residual") if layer > 0 else (-1, "embedding")
    blocks = {"ffn_norm": ("attn",), "residual": ("attn", "ffn")}.get(op, ())
    return (entering, *(_added(layer, block, present) for block in blocks))


def _added(layer: int, block: str, present: Collection[Place]) -> Place:
    """What a block of a layer adds to the residual stream."""
    post = (layer, f"{block}_post_norm")
    return post if post in present else (layer, "attn_output" if block == "attn" else "ffn_down")
