"""Models dumped for the C self-test, with the logits that it must print."""

from functools import cache
from pathlib import Path

import numpy as np
from golden_data import GOLDEN
from tiny_models import load_model, odd_model

from bitnet_lut._native import missing_features, tier_names

# The small model reaches the second page; the others would take minutes under sanitizers and qemu.
LONG, SHORT = 18, 6
PAGE = 16  # of the self-test; logits with a cache of kind q8 depend on it from the second page on


@cache
def dumped(name: str, folder: Path) -> tuple[Path, list[str]]:
    """The dump of a model, and what the self-test prints of it: cache, token, bits of the logits.

    The model is `odd`, or one of the golden ones.
    """
    isa = next(tier for tier in tier_names() if not missing_features(tier))
    model = odd_model() if name == "odd" else load_model(GOLDEN / f"{name}.gguf")
    path = folder / name.replace("/", "-")
    tokens = LONG if name == "odd" else SHORT
    model.dump(path, tokens)
    lines = []
    for kv in ("f32", "f16", "q8"):
        logits = model.logits(tokens, isa=isa, kind=kv, threads=2, batch=4)
        for token, row in enumerate(logits.view(np.uint32)[: PAGE if kv == "q8" else tokens]):
            lines.append(" ".join([kv, str(token), *(f"{bits:08x}" for bits in row)]))
    return path, lines
