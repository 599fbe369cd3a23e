"""Converting models between formats, tensor by tensor, in little memory whatever their size.

What is written is read again before it takes its name: the ternary weights must have the hash they
had, and the graph must be the same. Whatever could not be kept exactly is in the result.
"""

import dataclasses
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitnet_lut import convert_vocabulary
from bitnet_lut.checkpoint import Checkpoint, open_checkpoint
from bitnet_lut.checkpoint_base import TERNARY_ARCHITECTURES, TERNARY_HASH_KEY
from bitnet_lut.checkpoint_gguf import GGUFCheckpoint
from bitnet_lut.config import ModelConfig, tensor_shapes
from bitnet_lut.convert_gguf import (
    HEADS,
    TYPES,
    gguf_config,
    gguf_metadata,
    gguf_tensors,
    write_gguf,
)
from bitnet_lut.convert_hf import hf_config, hf_settings, hf_tensors, write_hf
from bitnet_lut.convert_weights import Rounded, TensorReader, Ternarised
from bitnet_lut.errors import FormatError
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tiles import Shape, Tile
from bitnet_lut.tensors import TernaryMatrix
from bitnet_lut.ternary_hash import TernaryHash
from bitnet_lut.vocabulary import PRE_TOKENIZERS

__all__ = ["TYPES", "Conversion", "convert"]
