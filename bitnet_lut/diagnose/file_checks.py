"""Checks of the container: what the file says about itself, and what is known about such files."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bitnet_lut.checkpoint.ternary_hash import TERNARY_HASH_KEY, ternary_sha256
from bitnet_lut.convert.synth import SHAPES
from bitnet_lut.diagnose.findings import Finding, Verdict, fault, ok, warning
from bitnet_lut.diagnose.inspection import Oddity, gguf_oddities, read_gguf
from bitnet_lut.diagnose.subject import Subject
from bitnet_lut.families import ModelConfig
from bitnet_lut.formats.gguf import GGUFFile

__all__ = ["CHECKS", "odd", "same_value"]

# {size: (name, SHA-256)} of published files whose hash is known.
_PUBLISHED = {
    1187801280: (
        "microsoft/bitnet-b1.58-2B-4T-gguf, ggml-model-i2_s.gguf",
        "4221b252fdd5fd25e15847adfeb5ee88886506ba50b8a34548374492884c2162",
    ),
}
_BYTES_AT_ONCE = 2**24
# Published models are known by these; the other values of a config then are no matter of choice.
_SIZES = (
    "block_count",
    "embedding_length",
    "feed_forward_length",
    "head_count",
    "head_count_kv",
    "vocab_size",
)
_FIXED: dict[str, Verdict] = {
    "rope_theta": "rope",
    "rope_dim": "rope",
    "activation": "activation",
    "sub_norms": "norms",
    "rms_eps": "norms",
}


def check_structure(subject: Subject) -> Iterator[Finding]:
    """Header, metadata, tensor table and their bounds, and every tensor decoded once."""
    count = len(subject.checkpoint.nbytes)
    total = sum(subject.checkpoint.nbytes.values())
    yield ok(
        "file: structure",
        f"{count} tensors of {total:,} bytes, with the shapes that the config asks for",
        "every tensor of the graph inside the file, none overlapping another",
    )
    assert subject.tensors


def check_published(subject: Subject) -> Iterator[Finding]:
    """The hash of a file that has the size of a published one."""
    if not subject.source.is_file():
        return
    known = _PUBLISHED.get(subject.source.stat().st_size)
    if known is None:
        return
    name, expected = known
    found = _sha256(subject.source)
    if found == expected:
        yield ok("file: hash", f"byte for byte {name}", f"sha256 {expected}")
        return
    yield warning(
        "file: hash",
        f"sha256 {found}",
        f"sha256 {expected}, of the published file of the same size: {name}",
        meaning="a copy that was edited or damaged, or a later upload",
        fix="compare with the hash that the download page shows; get it again if they differ",
        verdict="damaged",
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_BYTES_AT_ONCE):
            digest.update(piece)
    return digest.hexdigest()


def check_own_hash(subject: Subject) -> Iterator[Finding]:
    """The hash of the ternary weights that this package's conversion wrote into the file."""
    stated = subject.checkpoint.metadata.get(TERNARY_HASH_KEY)
    if stated is None:
        return
    found = ternary_sha256(subject.checkpoint)
    if found == stated:
        yield ok("file: ternary hash", f"sha256 {found}", "the hash that the conversion wrote")
        return
    yield fault(
        "file: ternary hash",
        f"sha256 {found}",
        f"sha256 {stated}, which the conversion wrote",
        meaning="the weights are no longer those that were converted, or are read in another "
        "layout",
        fix="get the file again, or convert it again from its original",
        verdict="damaged",
        certainty=0.6,
    )


def check_quirks(subject: Subject) -> Iterator[Finding]:
    """What other programs stumble over in such files."""
    if subject.checkpoint.kind != "gguf":
        return
    with GGUFFile(subject.source) as file:
        _, _, tensors = read_gguf(file, subject.checkpoint)
        found = list(gguf_oddities(file, tensors, subject.checkpoint))
        architecture = str(file.metadata["general.architecture"])
        states_activation = f"{architecture}.hidden_activation" in file.metadata
    if subject.config.architecture == "bitnet-b1.58" and not states_activation:
        found.append(
            Oddity(
                f"{architecture}.hidden_activation is missing: {subject.config.activation} is "
                "used here, as the vocabulary suggests",
                "bitnet.cpp of July 2026 runs such files with silu, also those made for relu2",
                "convert it with --activation, which writes the key",
            )
        )
    for oddity in found:
        yield odd("file: quirks", oddity)
    if not found:
        yield ok("file: quirks", "none", "what every program reads in the same way")


def odd(check: str, oddity: Oddity) -> Finding:
    """A warning of something unusual."""
    text, meaning, fix = oddity
    return warning(
        check,
        text,
        "what every program reads alike",
        meaning=meaning,
        fix=fix,
    )


def check_config(subject: Subject) -> Iterator[Finding]:
    """The config against that of the published model with the same sizes."""
    config = subject.config
    twin = _published_twin(config)
    if twin is None:
        yield ok(
            "file: config",
            f"{config.block_count} layers of {config.embedding_length}, not the sizes of a model "
            "known here",
            "sizes that agree with the tensors",
        )
        return
    wrong = {
        name: verdict
        for name, verdict in _FIXED.items()
        if not same_value(getattr(config, name), getattr(twin, name))
    }
    expected = f"the values of {twin.name}, which has these sizes"
    if not wrong:
        yield ok("file: config", f"{len(_SIZES) + len(_FIXED)} values agree", expected)
    for name, verdict in wrong.items():
        yield subject.suspicion(
            fault(
                "file: config",
                f"{name} is {getattr(config, name)}",
                f"{getattr(twin, name)}, as in {twin.name}, which has these sizes",
                where=name,
                meaning="the key is missing or wrong, and the model then computes something else",
                fix=f"convert it again with {name} = {getattr(twin, name)}",
                verdict=verdict,
                certainty=0.8,
            )
        )


def same_value(a: object, b: object) -> bool:
    """Whether two values of a config are the same; GGUF files round real numbers to float32."""
    if isinstance(a, float) and isinstance(b, float):
        return bool(np.float32(a) == np.float32(b))
    return a == b


def _published_twin(config: ModelConfig) -> ModelConfig | None:
    """The config of the published model that has the sizes of *config*."""
    for name, shape in SHAPES.items():
        if name != "tiny" and all(getattr(config, s) == getattr(shape.config, s) for s in _SIZES):
            return shape.config
    return None


CHECKS = (check_structure, check_published, check_own_hash, check_quirks, check_config)
