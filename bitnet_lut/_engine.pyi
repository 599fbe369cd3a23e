from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from bitnet_lut.config import ModelConfig
from bitnet_lut.tensors import Tensor

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
