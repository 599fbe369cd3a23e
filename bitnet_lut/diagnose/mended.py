"""Writing a model that was cured in memory as a file."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.checkpoint.base import Checkpoint, StoredMatrix
from bitnet_lut.convert import Options, write_checkpoint
from bitnet_lut.diagnose.findings import Finding, ok, warning
from bitnet_lut.diagnose.running import Variant
from bitnet_lut.diagnose.subject import Subject
from bitnet_lut.diagnose.trial import Cured
from bitnet_lut.errors import FormatError
from bitnet_lut.families import ModelConfig, family_of
from bitnet_lut.formats.gguf import MetadataValue
from bitnet_lut.formats.tensors import DenseMatrix, TernaryMatrix

__all__ = ["MendedCheckpoint", "write_mended"]


def write_mended(subject: Subject, cured: Cured | None, output: Path) -> Finding:
    """Write what a cure made of a model as a GGUF file; say whether that was possible.

    Raises OSError if the file cannot be written; then nothing has the name of the output.
    """
    problem = "no cure was found"
    if cured is not None:
        try:
            _write(subject.checkpoint, cured, output)
        except FormatError as error:
            problem = str(error)
        else:
            return ok("trials: mended file", f"{output} was written", "a file that is healthy")
    return warning(
        "trials: mended file",
        f"{output} was not written: {problem}",
        "a change that a GGUF file can state",
        meaning="there is nothing to write",
    )


def _write(original: Checkpoint, cured: Cured, output: Path) -> None:
    """Write a file, in I2_S unless each row has its own scale."""
    if not cured.cure.writable:
        raise FormatError(f"no GGUF file can state this change: {cured.cure.name}")
    variant = cured.variant
    matrices = [t for t in variant.tensors.values() if isinstance(t, TernaryMatrix)]
    type = "iq2_bn" if any(matrix.scale.size > 1 for matrix in matrices) else "i2_s"
    pre = variant.tokenizer.pre
    stated = original.metadata.get("tokenizer.ggml.pre")
    options = Options(type, pre_tokenizer=pre if stated is not None and pre != stated else None)
    write_checkpoint(MendedCheckpoint(original, variant), output, options)


class MendedCheckpoint(Checkpoint):
    """A variant as a checkpoint: like the original, with other tensors and another config."""

    def __init__(self, original: Checkpoint, variant: Variant) -> None:
        """The original stays open as long as this is used."""
        self._original, self._tensors = original, variant.tensors
        self.name, self.kind, self.folder = original.name, original.kind, original.folder
        self.config = variant.config
        self.nbytes = {name: tensor.nbytes for name, tensor in variant.tensors.items()}
        self.unused, self.ternary_masters = (), original.ternary_masters
        self.metadata = dict(original.metadata)
        changed = _changed_keys(original, variant.config)
        self.metadata |= changed
        self.value_types = {k: t for k, t in original.value_types.items() if k not in changed}

    def matrix(self, name: str) -> TernaryMatrix | DenseMatrix:
        """A matrix of the variant."""
        found = self._tensors[name]
        assert isinstance(found, TernaryMatrix | DenseMatrix)
        return found

    def stored(self, name: str) -> StoredMatrix | None:
        """A matrix of the variant that is not ternary."""
        matrix = self.matrix(name)
        if isinstance(matrix, TernaryMatrix):
            return None
        return StoredMatrix(matrix.type, (matrix.rows, matrix.cols), matrix.data.__getitem__)

    def vector(self, name: str) -> NDArray[np.float32]:
        """A norm or bias of the variant."""
        found: NDArray[np.float32] = self._tensors[name]
        return found

    def release(self) -> None:
        """Hand back the pages of the original."""
        self._original.release()

    def check_unchanged(self) -> None:
        """FormatError if the original was changed since it was opened."""
        self._original.check_unchanged()

    def close(self) -> None:
        """The original stays open."""


def _changed_keys(original: Checkpoint, config: ModelConfig) -> dict[str, MetadataValue]:
    """The keys of a GGUF file that another config changes."""
    if original.kind != "gguf":
        return {}
    old = family_of(original.config).gguf_metadata(original.config)
    new = family_of(config).gguf_metadata(config)
    stated = str(original.metadata["general.architecture"])
    return {
        f"{stated}.{key.removeprefix(f'{config.architecture}.')}": value
        for key, value in new.items()
        if value != old.get(key)
    }
