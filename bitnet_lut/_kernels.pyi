from typing import Any

import numpy as np
from numpy.typing import NDArray

def cpu_features() -> list[str]: ...
def tier_names() -> list[str]: ...
def missing_features(isa: str) -> list[str]: ...
def self_test(isa: str) -> bool: ...
def i2_s_gemm(
    packed: NDArray[np.uint8],
    q: NDArray[np.int8],
    *,
    isa: str,
    lo: int = 0,
    hi: int | None = None,
) -> NDArray[np.int32]: ...
def quantise(
    x: NDArray[np.float32], *, isa: str
) -> tuple[NDArray[np.int8], NDArray[np.float32]]: ...
def rescale(weight_scale: float, act_max: float) -> float: ...
def dense_gemm(
    type: str, weights: NDArray[np.uint8], x: NDArray[np.float32], *, isa: str
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
