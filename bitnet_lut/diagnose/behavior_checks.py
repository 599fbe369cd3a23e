"""Checks of what the model does with ordinary text."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.diagnose.behavior import QUICK, TextScore, score_text
from bitnet_lut.diagnose.findings import Finding, fault, ok, warning
from bitnet_lut.diagnose.running import Variant
from bitnet_lut.diagnose.subject import SENSE, Subject
from bitnet_lut.diagnose.texts import PROMPTS, TEXTS
from bitnet_lut.diagnose.weights_checks import gain
from bitnet_lut.errors import NumericsError

__all__ = ["CHECKS"]

_TRACED = 64  # tokens
_MOST_END = 0.2  # chance of an end after the beginning of a sentence
_MOST_REPEATED = 0.8
_BAND = (0.2, 10.0)  # of measured norms, in units of what weights and norms let expect
_MOST_GROWTH = 1e4
# An arm of the ablation is better than another if its bits per byte are less by this factor.
_BETTER = 1.2


def check_prediction(subject: Subject) -> Iterator[Finding]:
    """Bits per byte of the built-in texts and the user's."""
    scores, best = subject.behavior.scores, subject.behavior.best
    measured = ", ".join(f"{s.bits_per_byte:.2f} ({name})" for name, s in scores.items())
    expected = (
        f"below {SENSE * best.uniform:.2f} on one text at least: blind guessing gives "
        f"{best.uniform:.2f}; large models reach less than 1"
    )
    check = "behavior: bits per byte"
    if subject.sensible:
        yield ok(check, measured, expected)
        yield from _own_text(subject)
    elif not math.isfinite(best.bits_per_byte):
        yield fault(
            check,
            f"no number: {_first_fault(subject)}",
            expected,
            meaning="the computation overflows: a scale or a norm is far too large",
            fix="see the findings on weights and the trials",
            certainty=0.3,
        )
    elif subject.learned:
        yield fault(
            check,
            measured,
            expected,
            meaning="it knows which letters and words are common, and little else",
            fix="see the trials; if none of them helps, train it longer",
            verdict="undertrained",
            certainty=0.4,
        )
    else:
        yield fault(
            check,
            measured,
            expected,
            meaning="it understands neither ordinary English nor simple sentences",
            fix="see the other findings and the trials; if it was made for another language or for "
            "code, give a text of that kind as --text",
            certainty=0.3,
        )


def _own_text(subject: Subject) -> Iterator[Finding]:
    """The user's text, in a model that knows another one."""
    for name in subject.behavior.scores.keys() - TEXTS.keys():
        score = subject.behavior.scores[name]
        if score.bits_per_byte > SENSE * score.uniform:
            yield warning(
                "behavior: your text",
                f"{score.bits_per_byte:.2f} bits per byte",
                f"below {SENSE * score.uniform:.2f}",
                meaning="the model is healthy: this text is of a kind that it was not trained for",
            )


def _first_fault(subject: Subject) -> str:
    ids = subject.tokenizer.encode(PROMPTS[0], add_eos=False)
    try:
        subject.runner.logits(subject.model, ids)
    except NumericsError as error:
        return str(error)
    return "NaN or infinity in a longer text"


def check_writing(subject: Subject) -> Iterator[Finding]:
    """What the model writes: whether it ends, repeats itself, or is sure of the wrong things."""
    found = subject.behavior
    if math.isinf(found.best.bits_per_byte):
        return
    if found.p_end:
        worst = max(found.p_end)
        shown = ", ".join(f"{p:.2g}" for p in found.p_end)
        check, measured = "behavior: P(EOS)", f"{shown} after {len(found.p_end)} plain beginnings"
        expected = f"below {_MOST_END}: nobody ends a text there"
        if worst > _MOST_END:
            yield subject.suspicion(
                fault(
                    check,
                    measured,
                    expected,
                    meaning="it ends texts at once: often a checkpoint that is run with another "
                    "quantization than it was trained with, or one that was trained on padding",
                    fix="see the ablation and the trials",
                    certainty=0.2,
                )
            )
        else:
            yield ok(check, measured, expected)
    most = math.log2(subject.config.vocab_size)
    measured = f"entropy {found.best.entropy:.1f} bits of at most {most:.1f} per token"
    measured += f", repeated pairs {found.repetition:.0%}, writes {found.written[:40]!r}"
    expected = f"entropy below {0.8 * most:.1f}, and pairs repeated below {_MOST_REPEATED:.0%}"
    if subject.sensible and found.repetition > _MOST_REPEATED:
        yield warning(
            "behavior: writing",
            measured,
            expected,
            meaning="it repeats itself: small models do so without sampling",
            fix="use a temperature, or a repetition penalty",
        )
    else:
        yield ok("behavior: writing", measured, expected)


def check_hidden_norms(subject: Subject) -> Iterator[Finding]:
    """The residual stream, layer by layer."""
    config = subject.config
    found: dict[int, float] = {}

    def probe(layer: int, op: str, array: NDArray[np.float32]) -> None:
        if op in ("embedding", "residual"):
            found[layer] = math.sqrt(float(np.mean(np.square(array, dtype=np.float64))))

    ids = subject.tokenizer.encode(TEXTS["simple"], add_eos=False)
    try:
        subject.runner.logits(
            subject.model, ids[: min(_TRACED, config.context_length)], probe=probe
        )
    except NumericsError:
        return  # check_prediction says so
    last = config.block_count - 1
    shown = f"{found[-1]:.3g} after the embedding, {found[0]:.3g} and {found[last]:.3g} after the "
    shown += "first and the last layer (root mean square)"
    check = "behavior: hidden norms"
    if config.sub_norms:
        expected_norms = _expected_norms(subject, found[-1])
        ratios = [found[layer] / expected_norms[layer] for layer in range(last + 1)]
        outside = [n for n, r in enumerate(ratios) if not _BAND[0] < r < _BAND[1]]
        expected = (
            f"{expected_norms[0]:.3g} and {expected_norms[last]:.3g} follow from scales and "
            f"sub-norms if all adds up at random; healthy models have {_BAND[0]} to {_BAND[1]:.0f} "
            "times that"
        )
    else:
        outside = [n for n in range(last + 1) if not found[n] < _MOST_GROWTH * (found[-1] + 1e-9)]
        expected = f"growing less than {_MOST_GROWTH:.0e} times"
    if outside:
        yield subject.suspicion(
            fault(
                check,
                shown,
                expected,
                where=f"layer {outside[0]}",
                meaning="the layers add other amounts than their scales and norms allow",
                fix="see the trials; compare with another program by bitnet-lut diverge",
                certainty=0.3,
            )
        )
    else:
        yield ok(check, shown, expected)


def _expected_norms(subject: Subject, embedding: float) -> list[float]:
    """Root mean square after each layer, if what layers add is not correlated.

    A sub-norm gives its input the deviation 1, so that scale and norms say what is added.
    """
    square, found = embedding**2, []
    for layer in range(subject.config.block_count):
        for linear, norm in (("attn_output", "attn_sub_norm"), ("ffn_down", "ffn_sub_norm")):
            name = f"blk.{layer}.{linear}.weight"
            factor = gain(subject, name) if name in subject.ternary else 0.0
            weight = subject.vectors[f"blk.{layer}.{norm}.weight"]
            square += factor**2 * float(np.mean(np.square(weight, dtype=np.float64)))
        found.append(math.sqrt(square))
    return found


def check_ablation(subject: Subject) -> Iterator[Finding]:
    """The model in full precision, with its weights rounded, and with activations rounded too."""
    if not subject.ternary:
        return
    rounded = subject.model
    arms = {"weights": replace(rounded, arithmetic="float"), "weights and activations": rounded}
    if subject.masters:
        full = rounded.changed(subject.masters)
        arms = {"nothing": replace(full, arithmetic="float"), **arms}
    scores = {name: _arm(subject, variant) for name, variant in arms.items()}
    bits = {name: score.bits_per_byte for name, score in scores.items()}
    measured = "; ".join(
        f"{name} rounded: {score.bits_per_byte:.2f} bits per byte, P(EOS) {score.p_end:.2g}"
        for name, score in scores.items()
    )
    expected = "the best with weights and activations rounded, as BitNet models are trained"
    sense = SENSE * scores["weights"].uniform
    weights, both = bits["weights"], bits["weights and activations"]
    check = "behavior: ablation"
    if min(weights, bits.get("nothing", math.inf)) > sense:
        yield ok(check, measured, f"{expected}; here nothing makes sense")
    elif bits.get("nothing", math.inf) * _BETTER < min(weights, both):
        yield fault(
            check,
            measured,
            expected,
            meaning="its weights were not trained to be rounded: rounding destroys the model",
            fix="run it in full precision with another program, or train it on with "
            "BitLinear layers",
            verdict="not-ternary",
            certainty=0.9,
        )
    elif weights * _BETTER < both:
        yield fault(
            check,
            measured,
            expected,
            meaning="it was trained with rounded weights, but without rounded activations, and "
            "does not survive int8 activations",
            fix="train it on with activations rounded to int8 for each token (absmax)",
            verdict="quantization",
            certainty=0.9,
        )
    else:
        yield ok(check, measured, expected)


def _arm(subject: Subject, variant: Variant) -> TextScore:
    """The score of the text that is predicted best; large models run a simple one alone."""
    texts = subject.texts.values() if subject.small else [TEXTS["simple"]]
    scores = [score_text(subject.runner, variant, text, QUICK) for text in texts]
    return min(scores, key=lambda score: score.bits_per_byte)


CHECKS = (check_prediction, check_writing, check_hidden_norms, check_ablation)
