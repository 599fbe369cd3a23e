import numpy as np
from numpy.typing import NDArray

READ_UNIT: int

def roof_names() -> list[str]: ...
def read(
    data: NDArray[np.uint8], *, isa: str, threads: int = 1, passes: int = 1
) -> tuple[float, int]: ...
def multiply(macs: int, *, isa: str, threads: int = 1) -> tuple[float, int]: ...
