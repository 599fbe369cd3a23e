from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from bitnet_lut.families import ModelConfig
from bitnet_lut.formats.tensors import Tensor

MAX_COLS: int

def cpu_features() -> list[str]: ...
def tier_names() -> list[str]: ...
def missing_features(isa: str) -> list[str]: ...
def self_test_fault(isa: str) -> str: ...
def kernel_names() -> list[str]: ...
def aligned(nbytes: int) -> NDArray[np.uint8]: ...
def has_code_3(canonical: NDArray[np.uint8]) -> bool: ...

@disjoint_base
class Cell:
    @property
    def name(self) -> str: ...
    @property
    def isa(self) -> str: ...
    def __new__(
        cls, name: str, *, isa: str, functions: Mapping[str, Any] | None = None
    ) -> Cell: ...
    @property
    def panel(self) -> int: ...
    @property
    def own(self) -> bool: ...
    @property
    def kernel_address(self) -> int: ...
    @property
    def cell_address(self) -> int: ...
    def packed_bytes(self, rows: int, cols: int) -> int: ...
    def token_bytes(self, cols: int, n: int) -> int: ...
    def pack(
        self, canonical: NDArray[np.uint8], cols: int, *, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]: ...
    def unpack(self, packed: NDArray[np.uint8], rows: int, cols: int) -> NDArray[np.uint8]: ...
    def prepare(self, q: NDArray[np.int8]) -> NDArray[np.uint8]: ...
    def gemm(
        self,
        packed: NDArray[np.uint8],
        prepared: NDArray[np.uint8],
        rows: int,
        cols: int,
        *,
        lo: int = 0,
        hi: int | None = None,
        out: NDArray[np.int32] | None = None,
    ) -> NDArray[np.int32]: ...
    def time(
        self,
        ring: NDArray[np.uint8],
        prepared: NDArray[np.uint8],
        rows: int,
        cols: int,
        *,
        first: int = 0,
        count: int = 1,
        lo: int = 0,
        hi: int | None = None,
    ) -> float: ...

def quantize(
    x: NDArray[np.float32], *, isa: str
) -> tuple[NDArray[np.int8], NDArray[np.float32]]: ...
def rescale(weight_scale: float, act_max: float) -> float: ...
def pack_dense(
    type: str, weights: NDArray[np.uint8], cols: int, *, threads: int = 1
) -> NDArray[np.uint8]: ...
def unpack_dense(
    type: str, packed: NDArray[np.uint8], rows: int, cols: int
) -> NDArray[np.uint8]: ...
def dense_gemm(
    type: str, packed: NDArray[np.uint8], x: NDArray[np.float32], rows: int, *, isa: str
) -> NDArray[np.float32]: ...
def dense_rows(
    type: str, weights: NDArray[np.uint8], cols: int, *, isa: str
) -> NDArray[np.float32]: ...
def rms_norm(
    x: NDArray[np.float32], weight: NDArray[np.float32], eps: float, *, isa: str
) -> NDArray[np.float32]: ...
def gate(
    activation: str, gate: NDArray[np.float32], up: NDArray[np.float32], *, isa: str
) -> NDArray[np.float32]: ...
def rope(
    x: NDArray[np.float32],
    cosine: NDArray[np.float32],
    sine: NDArray[np.float32],
    *,
    interleaved: bool,
    isa: str,
) -> NDArray[np.float32]: ...
def to_f16(x: NDArray[np.float32], *, isa: str) -> NDArray[np.uint16]: ...
def attention(
    q: NDArray[np.float32],
    keys: NDArray[Any],
    values: NDArray[Any],
    scale: float,
    *,
    isa: str,
) -> NDArray[np.float32]: ...

READ_UNIT: int

def roof_names() -> list[str]: ...
def read_roof(
    data: NDArray[np.uint8], *, isa: str, threads: int = 1, passes: int = 1
) -> tuple[float, int]: ...
def multiply_roof(macs: int, *, isa: str, threads: int = 1) -> tuple[float, int]: ...

@disjoint_base
class Pool:
    def __new__(cls, threads: int) -> Pool: ...
    @property
    def threads(self) -> int: ...

@disjoint_base
class Weights:
    @property
    def config(self) -> ModelConfig: ...
    @property
    def isa(self) -> str: ...
    @property
    def strip_bytes(self) -> int: ...
    def __new__(
        cls,
        config: ModelConfig,
        tensors: Mapping[str, Tensor],
        *,
        isa: str,
        threads: int = 1,
    ) -> Weights: ...

def session_bytes(
    weights: Weights, context: int, *, kv_f16: bool = True, batch: int = 64, threads: int = 1
) -> tuple[int, int]: ...

@disjoint_base
class Session:
    @property
    def weights(self) -> Weights: ...
    @property
    def pool(self) -> Pool: ...
    @property
    def position(self) -> int: ...
    @property
    def context(self) -> int: ...
    def __new__(
        cls, weights: Weights, pool: Pool, context: int, *, kv_f16: bool = True, batch: int = 64
    ) -> Session: ...
    def step(
        self,
        ids: NDArray[np.int32],
        logits: NDArray[np.float32] | None = None,
        hidden: NDArray[np.float32] | None = None,
        *,
        probe: Callable[[int, str, NDArray[np.float32]], None] | None = None,
    ) -> None: ...
    def rewind(self, position: int) -> None: ...
    def fork(self) -> Session: ...

def step_together(
    sessions: list[Session], ids: NDArray[np.int32], logits: NDArray[np.float32]
) -> None: ...
