"""What the tests of checkpoints share: reading linear layers, and making variants of files."""

import numpy as np

from bitnet_lut.families import is_linear, tensor_shapes
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.gguf import ARRAY, GGUFFile
from bitnet_lut.formats.gguf_writer import GGUFWriter
from bitnet_lut.formats.tensors import TernaryMatrix

# The tiles of llama-1.58/model-tl2-id39.gguf.
TILES = {
    (512, 256): (256, 96, 32),
    (128, 256): (128, 192, 32),
    (256, 512): (128, 96, 32),
    (768, 256): (384, 96, 32),
    (256, 768): (256, 192, 32),
}
QUERY = "blk.0.attn_q.weight"


def linears(checkpoint):
    """Every linear layer as int8 (rows, cols) and a scale."""
    found = {}
    for name in filter(is_linear, tensor_shapes(checkpoint.config)):
        matrix = checkpoint.matrix(name)
        assert isinstance(matrix, TernaryMatrix)
        found[name] = i2_s.unpack_rows(matrix.packed, matrix.cols), matrix.scale
    return found


def rewritten(source, path, *, changes=None, keys=None):
    """Copy a GGUF file with some tensors {name: (shape, type id, data)} and keys replaced."""
    with GGUFFile(source) as file:
        tensors = {
            name: (info.shape, info.type_id, file.data(name, info.span))
            for name, info in file.tensors.items()
        }
        metadata = {
            key: value if file.value_types[key] == ARRAY else (file.value_types[key], value)
            for key, value in file.metadata.items()
        }
    tensors |= changes or {}
    table = [(name, shape, type_id, data.size) for name, (shape, type_id, data) in tensors.items()]
    with GGUFWriter(path, metadata | (keys or {}), table) as writer:
        for name, (_, _, data) in tensors.items():
            writer.write(name, np.ascontiguousarray(data))
    return path
