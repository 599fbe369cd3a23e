"""How large the sums of a kernel get: the longest row for which all of them are exact."""

from dataclasses import dataclass

from bitnet_lut import _native

__all__ = ["Block", "Sums", "sums_of"]


@dataclass(frozen=True)
class Block:
    """Sums of few bits, which are widened after some steps.

    bits: of such a sum, 8 or 16. step: the most that one step adds, or takes away. steps: after how
    many of them it is widened.
    """

    bits: int
    step: int
    steps: int

    @property
    def largest(self) -> int:
        """The largest sum."""
        return self.step * self.steps

    @property
    def fits(self) -> bool:
        """Whether that is within the bits."""
        return self.largest < 1 << self.bits - 1


@dataclass(frozen=True)
class Sums:
    """How a kernel adds up, for an interval analysis: any weights, any int8 activations.

    column: the most that one column adds to an int32 sum, or takes away.
    blocks: narrower sums on the way there.
    weights_per_lookup: how many weights one look-up stands for; 0 for a kernel that multiplies.
    """

    column: int
    blocks: tuple[Block, ...] = ()
    weights_per_lookup: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.column < 1 or any(block.largest < 1 for block in self.blocks):
            raise ValueError(f"{self}: column, step and steps must be at least 1")

    @property
    def largest_cols(self) -> int:
        """The longest row for which no sum overflows; 0 if a block overflows in any row."""
        return (2**31 - 1) // self.column if all(block.fits for block in self.blocks) else 0


def sums_of(name: str, isa: str) -> Sums | None:
    """What C says of a compiled-in kernel whose functions on the tier *isa* are its own."""
    found = _native.kernel_sums(name, isa)
    if found is None:
        return None
    column, weights_per_lookup, narrow = found
    return Sums(column, tuple(Block(*block) for block in narrow), weights_per_lookup)
