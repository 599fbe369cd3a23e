"""Checks of the container: what the file says about itself."""

from collections.abc import Iterator

from bitnet_lut.diagnose.findings import Finding, ok
from bitnet_lut.diagnose.subject import Subject

__all__ = ["CHECKS"]


def check_opens(subject: Subject) -> Iterator[Finding]:
    """Header, metadata, tensor table and their bounds."""
    tensors = len(subject.checkpoint.nbytes)
    yield ok(
        "file: structure",
        f"{tensors} tensors inside the file, of the shapes that its metadata ask for",
        "every tensor of the graph, inside the file",
    )


CHECKS = (check_opens,)
