"""What every model file offers: a config, and matrices and vectors by their GGUF names."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.errors import FormatError
from bitnet_lut.families import ModelConfig, is_linear, scale_name, tensor_shapes
from bitnet_lut.formats import ggml, i2_s
from bitnet_lut.formats.gguf import MetadataValue
from bitnet_lut.formats.tensors import DenseMatrix, PackedMatrix, StripMatrix, Tensor, TernaryMatrix
from bitnet_lut.formats.ternary import Bytes, Rows, Ternary, absmean, from_scaled

# Key of the hash of the ternary weights in files that this package converted; see ``ternary_hash``.
# Linear layers of such a file are ternary wherever their floats allow it.
TERNARY_HASH_KEY = "bitnet_lut.ternary_sha256"


@dataclass(frozen=True, eq=False)
class StoredMatrix:
    """A matrix that a file holds as floats or in blocks; slices of rows are float32 (n, cols).

    type: a name of ``formats.ggml``; the engine need not compute with it.
    raw: returns the bytes of a slice of rows, uint8 (n, bytes of a row), mostly a view of the file.
    factor: multiplies the weights; files keep it in a separate tensor.
    """

    type: str
    shape: tuple[int, int]
    raw: Callable[[slice], Bytes]
    factor: float = 1.0

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        """Some rows as float32 (n, cols)."""
        weights = ggml.dequantize(self.type, self.raw(rows), self.shape[1])
        return weights if self.factor == 1 else weights * self.factor


class Checkpoint(ABC):
    """A model file or folder, checked to hold every tensor that its config asks for.

    name: the path, or "<bytes>"; opens every error message.
    kind: "gguf" or "hf".
    nbytes: bytes of each tensor in the file, by its GGUF name.
    types: of each of them, as "i2_s" or "q6_k"; of a folder, as "bf16", or "u8" for packed codes.
    layouts: {name: kernel} of linear layers that the file holds as the kernel packs them.
    strips: names of matrices that the file holds in strips, as they are multiplied.
    unused: names of tensors in the file that the graph does not use.
    ternary_masters: whether linear layers held as floats are the masters of ternary ones.
    metadata: the metadata of a GGUF file, with its vocabulary; empty for a folder.
    value_types: the GGUF types of its values, as far as they are known.
    folder: the folder with tokenizer.json; None for a GGUF file.
    """

    name: str
    config: ModelConfig
    kind: Literal["gguf", "hf"]
    nbytes: Mapping[str, int]
    types: Mapping[str, str]
    layouts: Mapping[str, str] = MappingProxyType({})
    strips: Collection[str] = ()
    unused: tuple[str, ...]
    ternary_masters: bool
    metadata: Mapping[str, MetadataValue]
    value_types: Mapping[str, int] = MappingProxyType({})
    folder: Path | None

    @abstractmethod
    def matrix(self, name: str) -> TernaryMatrix | DenseMatrix:
        """Read a matrix by its GGUF name, as "blk.0.attn_q.weight"; may view the mapped file.

        Raises FormatError, naming file and tensor, if its data is damaged.
        """

    def packed(self, name: str) -> PackedMatrix | StripMatrix:
        """View a matrix of `layouts` or `strips` in the file, without checking its weights.

        Raises FormatError, naming file and tensor, if its scales or sizes are damaged.
        """
        raise KeyError(name)

    @abstractmethod
    def stored(self, name: str) -> StoredMatrix | None:
        """The numbers of a matrix as the file holds them; None if it holds ternary codes.

        Raises FormatError, naming file and tensor, if its data is damaged.
        """

    @abstractmethod
    def vector(self, name: str) -> NDArray[np.float32]:
        """Read a norm or bias by its GGUF name into a new float32 array."""

    @abstractmethod
    def release(self) -> None:
        """Hand the pages of mapped files back to the system; views read them again as needed."""

    def check_unchanged(self) -> None:  # noqa: B027 (only a file can change)
        """FormatError if a file was written to or changed its size since it was opened.

        What was read of it meanwhile may be neither the old nor the new.
        """

    def tensors(
        self,
        progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        as_packed: Collection[str] = (),
        threads: int = 1,
    ) -> dict[str, Tensor]:
        """Read every tensor of the graph, *threads* at a time.

        progress: called with the bytes of the file's tensors read so far and in all.
        as_packed: names in `layouts` and `strips` to read by `packed`, as they are.
        """
        shapes = tensor_shapes(self.config)
        total = sum(self.nbytes[name] for name in shapes)

        def read(name: str) -> Tensor:
            if name in as_packed:
                return self.packed(name)
            return self.matrix(name) if len(shapes[name]) == 2 else self.vector(name)

        found: dict[str, Tensor] = {}
        done = 0
        with ThreadPoolExecutor(threads) as pool:
            try:
                for name, tensor in zip(shapes, pool.map(read, shapes), strict=True):
                    found[name] = tensor
                    done += self.nbytes[name]
                    progress(done, total)
            except BaseException:
                pool.shutdown(cancel_futures=True)  # one damaged tensor ends the reading
                raise
        return found

    @abstractmethod
    def close(self) -> None:
        """Forget the file; it stays mapped until the last array that views it is gone."""

    def __enter__(self) -> Self:
        """The checkpoint itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def _check_shapes(self, found: Mapping[str, tuple[int, ...]]) -> None:
        """FormatError unless the tensors are those of the config's graph.

        A tensor of a block that the graph does not use is refused, because the result without it
        would be wrong; others are ignored, and listed as unused.
        """
        needed = tensor_shapes(self.config)
        for name, shape in needed.items():
            if name not in found:
                raise FormatError(f"{self.name}: tensor {name!r} is missing")
            if found[name] != shape:
                raise FormatError(
                    f"{self.name}: tensor {name!r} has shape {found[name]}, not {shape} "
                    "as the metadata says"
                )
        known = needed.keys() | {scale_name(name) for name in needed if is_linear(name)}
        for name in found:
            if name.startswith("blk.") and name not in known:
                raise FormatError(
                    f"{self.name}: tensor {name[:80]!r} is not used by the graph of architecture "
                    f"{self.config.architecture} as it is implemented here"
                )
        self.unused = tuple(name for name in found if name not in known)

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Start the text of a FormatError with file and tensor."""
        try:
            yield
        except FormatError as error:
            raise FormatError(f"{self.name}: tensor {name!r}: {error}") from None


def ternary_matrix(ternary: Ternary) -> TernaryMatrix:
    """Pack weights and scale as the engine takes them."""
    weights, scale = ternary
    rows, cols = weights.shape
    return TernaryMatrix(rows, cols, i2_s.pack_rows(weights), scale)


def ternarize(weights: Rows) -> TernaryMatrix:
    """Split weights that are a ternary matrix times a scale; quantize any others."""
    return ternary_matrix(from_scaled(weights) or absmean(weights))


def dense_matrix(type: str, data: Bytes, rows: int, cols: int) -> DenseMatrix:
    """View the bytes of a matrix, or copy them if they do not start at a multiple of 4 bytes."""
    aligned = data if data.ctypes.data % 4 == 0 else data.copy()
    return DenseMatrix(type, rows, cols, aligned.reshape(rows, -1))
