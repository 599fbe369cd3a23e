"""Checks of what the model does with ordinary text."""

from collections.abc import Iterator

from bitnet_lut.diagnose.findings import Finding, ok
from bitnet_lut.diagnose.subject import SENSE, Subject

__all__ = ["CHECKS"]


def check_prediction(subject: Subject) -> Iterator[Finding]:
    """Bits per byte of the built-in texts and the user's."""
    scores = subject.behavior.scores
    measured = ", ".join(f"{s.bits_per_byte:.2f} ({name})" for name, s in scores.items())
    best = subject.behavior.best
    expected = (
        f"below {SENSE * best.uniform:.2f} on at least one text: blind guessing gives "
        f"{best.uniform:.2f}, large models reach 0.8 on prose"
    )
    if subject.sensible:
        yield ok("behavior: bits per byte", measured, expected)
        return
    yield Finding(
        "behavior: bits per byte",
        "fault",
        "",
        measured,
        expected,
        "it does not understand ordinary English, nor simple sentences",
        "see the other findings and the trials; if it was made for another language or for code, "
        "give a text of that kind as --text",
        "unknown",
        0.3,
    )


CHECKS = (check_prediction,)
