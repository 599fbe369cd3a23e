"""How large the sums of a kernel get: the longest row for which all of them are exact."""

from dataclasses import dataclass

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


# Products of a code with an activation. Codes are weight + 1; i2_s may meet the code 3 of a damaged
# file. Masked in place, as on avx512, they are up to 64 times that, in a quarter of the columns of
# which each of 16 sums sees one in 16: the same per column.
_CODE, _CODE_3 = 2 * 128, 3 * 128

# The 256-bit dot by vpmaddubsw: a pair of products a step, widened after 40 of them.
_PAIRS = Block(16, 2 * _CODE_3, 40)
# Digits of a sum in bytes, then sums in 16 bits: of pairs (base 23), of triples (base 27), of fives
# (base 32, whose complement is one less).
_TL1 = (Block(8, 11, 10), Block(16, 256, 120))
_TL2 = (Block(8, 14, 8), Block(16, 384, 80))
_TL5 = (Block(8, 21, 6), Block(16, 641, 48))
_ARM64 = ("neon", "neondot", "neoni8mm")
# The dot of decoded panels by smlal.
_NEON = Block(16, _CODE, 120)

_SUMS: dict[tuple[str, str], Sums] = {
    ("i2_s", "scalar"): Sums(_CODE_3),
    ("i2_s", "avx2"): Sums(_CODE_3, (_PAIRS,)),
    ("i2_s", "avxvnni"): Sums(_CODE_3),
    ("i2_s", "avx512"): Sums(_CODE_3),
    ("i2_s", "neon"): Sums(_CODE_3, (Block(16, _CODE_3, 64),)),
    ("i2_s", "neondot"): Sums(_CODE_3),
    ("i2_s", "neoni8mm"): Sums(_CODE_3),
    ("tl1", "scalar"): Sums(_CODE, weights_per_lookup=2),
    ("tl1", "avx2"): Sums(_CODE, (*_TL1, _PAIRS), weights_per_lookup=2),
    ("tl2", "scalar"): Sums(_CODE, weights_per_lookup=3),
    ("tl2", "avx2"): Sums(_CODE, (*_TL2, _PAIRS), weights_per_lookup=3),
    ("tl5", "scalar"): Sums(_CODE, weights_per_lookup=5),
    ("tl5", "avx2"): Sums(_CODE, (_PAIRS,)),
    ("tl5", "avxvnni"): Sums(_CODE),
}
for _isa in ("avxvnni", "avx512", *_ARM64):
    _dot = (_NEON,) if _isa == "neon" else ()
    _SUMS["tl1", _isa] = Sums(_CODE, (*_TL1, *_dot), weights_per_lookup=2)
    _SUMS["tl2", _isa] = Sums(_CODE, (*_TL2, *_dot), weights_per_lookup=3)
    if _isa != "avxvnni":  # which decodes, as avx2 does
        _SUMS["tl5", _isa] = Sums(_CODE, (*_TL5, *_dot), weights_per_lookup=5)


def sums_of(name: str, isa: str) -> Sums | None:
    """What is known of a compiled-in kernel whose functions on the tier *isa* are its own."""
    return _SUMS.get((name, isa))
