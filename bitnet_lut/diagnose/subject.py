"""What every check and trial gets: a source, opened once, and what is measured of it."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.checkpoint import Checkpoint, find_state_dict, open_checkpoint
from bitnet_lut.checkpoint.base import StoredMatrix
from bitnet_lut.diagnose.behavior import QUICK, Behavior, behavior, score_text
from bitnet_lut.diagnose.findings import Finding
from bitnet_lut.diagnose.inspection import TernaryStatistics, count_codes
from bitnet_lut.diagnose.running import Runner, Variant
from bitnet_lut.diagnose.texts import TEXTS
from bitnet_lut.errors import FormatError
from bitnet_lut.families import ModelConfig
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tensors import DenseMatrix, Tensor, TernaryMatrix
from bitnet_lut.formats.ternary import from_scaled
from bitnet_lut.formats.tiles import Shape, Tile
from bitnet_lut.text.tokenizer import Tokenizer

__all__ = ["SENSE", "Subject"]

# A model whose bits per byte are below this share of those of blind guessing knows the text.
SENSE = 0.5
LEARNED = 0.9  # the same, for having learned which tokens are common
_CHECKPOINT = re.compile(r"checkpoint-(\d{1,12})")
_SMALL = 2**26  # bytes of a model that one thread runs
_ROWS_THAT_TELL = 64  # of a matrix, whether it is ternary or a master


class Subject:
    """A source under examination. What is expensive is read when it is first asked for.

    name: its path; of the folder of a training run without weights of its own, that of its newest
        checkpoint. checkpoints: how many there are; 0 for other sources.
    folder: where files of a training run may lie: the source's own folder.
    text: what --text gave, None without. texts: {name: text} to measure: the built-in ones and it.
    runner: runs models.
    reference: another source of the same model, which is good; None without.
    problem: why the source cannot be opened; "" if it can. Without a checkpoint, what needs one
        raises FormatError with the same words.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        text: str | None = None,
        reference: str | os.PathLike[str] | None = None,
        i2_s_layout: i2_s.Layout = "128x32",
        tiles: Mapping[Shape, Tile] | None = None,
        threads: int | None = None,
    ) -> None:
        """Open *source*; see ``checkpoint.open_checkpoint`` for what it raises.

        A FormatError is kept in *problem* instead.
        """
        self.source, self.checkpoints = _newest_checkpoint(Path(source))
        self.name = os.fspath(self.source)
        self.folder = self.source if self.source.is_dir() else self.source.parent
        self.text, self.i2_s_layout, self.tiles = text, i2_s_layout, tiles
        self.reference = None if reference is None else Subject(reference, threads=threads)
        self.texts = {**TEXTS, **({"your text": text} if text else {})}
        self._checkpoint: Checkpoint | None = None
        self.problem = ""
        try:
            self._checkpoint = open_checkpoint(self.source, i2_s_layout=i2_s_layout, tiles=tiles)
        except FormatError as error:
            self.problem = str(error).removeprefix(f"{self.name}: ")
        if threads is None and self.small:
            threads = 1  # several would wait for each other longer than they compute
        self.runner = Runner(threads)

    @property
    def small(self) -> bool:
        """Whether running the model costs next to nothing."""
        checkpoint = self._checkpoint
        return checkpoint is not None and sum(checkpoint.nbytes.values()) < _SMALL

    @property
    def checkpoint(self) -> Checkpoint:
        """The opened source; FormatError if it could not be opened."""
        if self._checkpoint is None:
            raise FormatError(f"{self.name}: {self.problem}")
        return self._checkpoint

    @property
    def config(self) -> ModelConfig:
        """The graph and sizes that the source states."""
        return self.checkpoint.config

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the graph as the engine takes it, by its GGUF name.

        Linear layers are TernaryMatrix (packed as ``formats.i2_s`` says, with their scale), masters
        rounded by absmean. They may view the mapped file: never write to them.
        """
        return self.checkpoint.tensors(threads=self.runner.threads)

    @cached_property
    def runs(self) -> bool:
        """Whether there is a whole model: every tensor can be decoded, and a tokenizer."""
        try:
            return bool(self.tensors and self.tokenizer)
        except FormatError:
            return False

    @cached_property
    def ternary(self) -> dict[str, TernaryMatrix]:
        """The ternary matrices among the tensors."""
        return {k: t for k, t in self.tensors.items() if isinstance(t, TernaryMatrix)}

    @cached_property
    def dense(self) -> dict[str, DenseMatrix]:
        """The other matrices among the tensors."""
        return {k: t for k, t in self.tensors.items() if isinstance(t, DenseMatrix)}

    @cached_property
    def vectors(self) -> dict[str, NDArray[np.float32]]:
        """Norms and biases."""
        return {k: t for k, t in self.tensors.items() if isinstance(t, np.ndarray)}

    @cached_property
    def statistics(self) -> dict[str, TernaryStatistics]:
        """Shares of the codes of each ternary matrix."""
        return {name: count_codes(name, matrix) for name, matrix in self.ternary.items()}

    @cached_property
    def masters(self) -> dict[str, StoredMatrix]:
        """The real-valued weights of linear layers that `tensors` has rounded to ternary ones."""
        found = {}
        for name in self.ternary:
            stored = self.checkpoint.stored(name)
            if stored is not None and from_scaled(stored[:_ROWS_THAT_TELL]) is None:
                found[name] = stored
        return found

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary and its rules."""
        return self.make_tokenizer()

    def make_tokenizer(self, pre: str = "auto") -> Tokenizer:
        """The tokenizer with another pre-tokenizer, which only GGUF files can have."""
        checkpoint = self.checkpoint
        if checkpoint.folder is not None:
            return Tokenizer.from_folder(checkpoint.folder)
        return Tokenizer.from_gguf(checkpoint.metadata, name=checkpoint.name, pre=pre)

    @cached_property
    def model(self) -> Variant:
        """The model as the source has it."""
        return Variant(self.config, self.tensors, self.tokenizer)

    @cached_property
    def sensible(self) -> bool:
        """Whether the model predicts one of the texts far better than blind guessing would."""
        if not self.runs:
            return False
        best = self.behavior.best
        return best.bits_per_byte < SENSE * best.uniform

    @property
    def learned(self) -> bool:
        """Whether the model predicts one of the texts better than blind guessing would."""
        best = self.behavior.best
        return best.bits_per_byte < LEARNED * best.uniform

    def suspicion(self, found: Finding) -> Finding:
        """What is unusual: the fault that it is in a model that makes no sense, else a warning."""
        return replace(found, status="warning") if self.sensible else found

    @cached_property
    def behavior(self) -> Behavior:
        """What the model, as the source has it, does with ordinary text."""
        return behavior(self.runner, self.model, self.texts)

    def bits_per_byte(self, variant: Variant, tokens: int = QUICK) -> float:
        """The least bits per byte of all texts, of which at most *tokens* tokens each are run.

        Infinite if the model gives NaN or Inf.
        """
        scores = (score_text(self.runner, variant, text, tokens) for text in self.texts.values())
        return min(score.bits_per_byte for score in scores)


def _newest_checkpoint(source: Path) -> tuple[Path, int]:
    """The newest "checkpoint-STEP" of a training run, of how many; other sources as they are."""
    if not source.is_dir() or any(source.glob("*.safetensors")) or find_state_dict(source):
        return source, 0
    found = {
        int(match[1]): folder
        for folder in source.iterdir()
        if (match := _CHECKPOINT.fullmatch(folder.name)) and (folder / "config.json").is_file()
    }
    return (found[max(found)], len(found)) if found else (source, 0)
