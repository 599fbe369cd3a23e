"""Checks of this machine: what it computes with this model's own weights and activations."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import _native
from bitnet_lut.diagnose.findings import Finding, fault, ok, warning
from bitnet_lut.diagnose.inspection import some
from bitnet_lut.diagnose.running import Runner
from bitnet_lut.diagnose.subject import Subject
from bitnet_lut.diagnose.texts import PROMPTS
from bitnet_lut.errors import NumericsError
from bitnet_lut.families import input_op, tensor_shapes
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tensors import TernaryMatrix
from bitnet_lut.kernels import get, names
from bitnet_lut.reference import quantize, ternary_dot
from bitnet_lut.runtime.cpu import cpu_info

__all__ = ["CHECKS"]

_ROWS = 512  # of a matrix
_TOKENS = 5
_MOST_WEIGHTS = 2**26  # of a model that the scalar tier runs as a whole

Products = dict[str, tuple[NDArray[np.int8], NDArray[np.int8], NDArray[np.int32]]]


def check_kernels(subject: Subject) -> Iterator[Finding]:
    """Every kernel on every tier against exact products, one matrix of each shape."""
    if not subject.ternary:
        return
    tiers = _usable_tiers()
    cases = _cases(subject)
    wrong, count = [], 0
    for isa in tiers:
        for name in names():
            kernel = get(name, isa)
            for tensor, (weights, q, expected) in cases.items():
                found = kernel.gemm(kernel.pack(weights), q)
                count += found.size
                if not np.array_equal(found, expected):
                    wrong.append(f"{name} on {isa}: {tensor}")
    expected_words = "the exact products, bit for bit"
    if not wrong:
        yield ok(
            "machine: kernels",
            f"{len(names())} kernels on {', '.join(tiers)}: {count:,} products of "
            f"{len(cases)} matrices are exact",
            expected_words,
        )
        return
    yield fault(
        "machine: kernels",
        f"{len(wrong)} of {len(names()) * len(tiers) * len(cases)} products are wrong",
        expected_words,
        where=some(wrong),
        meaning="this machine, or this build, computes wrongly with these weights",
        fix="report it with what bitnet-lut info prints; until then use --isa scalar",
        verdict="kernel",
        certainty=0.97,
    )


def _usable_tiers() -> list[str]:
    """Tiers that run here, best first."""
    return [isa for isa, verdict in cpu_info().tiers.items() if verdict == "usable"]


def check_self_tests(subject: Subject) -> Iterator[Finding]:
    """Tiers that this machine has, and that did not pass the self-test."""
    failed = {
        isa: verdict
        for isa, verdict in cpu_info().tiers.items()
        if verdict != "usable" and not _native.missing_features(isa)
    }
    expected = "every tier that the processor has passes its self-test"
    if not failed:
        yield ok("machine: self-test", f"{', '.join(_usable_tiers())} passed", expected)
        return
    yield warning(
        "machine: self-test",
        "; ".join(failed.values()),
        expected,
        where=some(failed),
        meaning="such a tier is not used, another computes in its place",
        fix="report it with what bitnet-lut info prints",
        verdict="kernel",
    )


def _cases(subject: Subject) -> Products:
    """Weights, activations and their exact products, for one matrix of each shape."""
    shapes: dict[tuple[int, int], str] = {}
    for name, matrix in subject.ternary.items():
        if subject.statistics[name].invalid == 0:
            shapes.setdefault((matrix.rows, matrix.cols), name)
    wanted = {input_op(name, subject.config): name for name in shapes.values()}
    inputs: dict[tuple[int, str], NDArray[np.float32]] = {}

    def probe(layer: int, op: str, array: NDArray[np.float32]) -> None:
        if (layer, op) in wanted:
            inputs.setdefault((layer, op), array[:_TOKENS].copy())

    ids = subject.tokenizer.encode(PROMPTS[0], add_eos=False)[:_TOKENS]
    try:
        subject.runner.logits(subject.model, ids, probe=probe)
    except NumericsError:
        return {}
    found: Products = {}
    for name in shapes.values():
        weights = _first_rows(subject.ternary[name])
        q, _ = quantize(inputs[input_op(name, subject.config)])
        found[name] = weights, q, ternary_dot(weights, q)
    return found


def _first_rows(matrix: TernaryMatrix) -> NDArray[np.int8]:
    return i2_s.unpack_rows(matrix.packed[:_ROWS], matrix.cols)


def check_tiers(subject: Subject) -> Iterator[Finding]:
    """The logits of a short text on every tier, which must be the same bits."""
    size = sum(math.prod(shape) for shape in tensor_shapes(subject.config).values())
    ids = subject.tokenizer.encode(PROMPTS[0], add_eos=False)
    tiers = _usable_tiers()
    tiers = tiers if size <= _MOST_WEIGHTS else [isa for isa in tiers if isa != "scalar"]
    threads = subject.runner.threads
    try:
        logits = {isa: Runner(threads, isa).logits(subject.model, ids) for isa in tiers}
    except NumericsError:
        return  # a check of behavior says so
    first = tiers[-1]
    wrong = [isa for isa in tiers if not np.array_equal(logits[isa], logits[first])]
    measured = f"logits of {len(ids)} tokens on {', '.join(tiers)}"
    expected = "the same bits on every tier"
    if not wrong:
        yield ok("machine: tiers", f"{measured}: the same bits", expected)
        return
    yield fault(
        "machine: tiers",
        f"{measured}: {some(wrong)} differ from {first}",
        expected,
        where=some(wrong),
        meaning="this machine, or this build, computes wrongly",
        fix=f"report it with what bitnet-lut info prints; until then use --isa {first}",
        verdict="kernel",
        certainty=0.97,
    )


CHECKS = (check_self_tests, check_kernels, check_tiers)
