"""Ternary matrices in the layout of a kernel, packed when a model is opened."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import huge_pages
from bitnet_lut._native import Cell, has_code_3
from bitnet_lut.families import is_linear
from bitnet_lut.formats.tensors import (
    DenseMatrix,
    Matrix,
    PackedMatrix,
    Tensor,
    TernaryMatrix,
    moved,
    weights_of,
)
from bitnet_lut.runtime.memory import available_memory

__all__ = [
    "INPUT_GROUPS",
    "copy_tensors",
    "pack_matrix",
    "pack_tensors",
    "suited",
    "unpack_matrix",
]

# Linear layers that read the same input, and so share its prepared activations and the kernel.
INPUT_GROUPS: Mapping[str, tuple[str, ...]] = {
    "attn_qkv": ("attn_q", "attn_k", "attn_v"),
    "attn_output": ("attn_output",),
    "ffn_gate_up": ("ffn_gate", "ffn_up"),
    "ffn_down": ("ffn_down",),
}
_GROUP_OF = {linear: group for group, linears in INPUT_GROUPS.items() for linear in linears}
_LINE = 64  # every matrix starts at a cache line
_PIECE = 1 << 24  # bytes that a thread copies at once

Item = TypeVar("Item")


def pack_matrix(
    matrix: TernaryMatrix, kernel: Cell, *, out: NDArray[np.uint8] | None = None
) -> PackedMatrix:
    """Pack a matrix into the layout of *kernel*; *out*: where to, uint8 (packed bytes,).

    Raises ValueError if it holds code 3, which only i2_s can.
    """
    packed = kernel.pack(matrix.packed, matrix.cols, out=out)
    return PackedMatrix(kernel.name, matrix.rows, matrix.cols, packed, matrix.scale)


def unpack_matrix(matrix: PackedMatrix) -> TernaryMatrix:
    """Unpack a matrix from the layout of its kernel."""
    kernel = Cell(matrix.kernel, isa="scalar")
    canonical = kernel.unpack(matrix.packed, matrix.rows, matrix.cols)
    return TernaryMatrix(matrix.rows, matrix.cols, canonical, matrix.scale)


def suited(layouts: Mapping[str, str], kernels: Mapping[str, str]) -> set[str]:
    """Linear layers of a file that need not be packed again.

    layouts: {name of a layer: kernel whose layout the file holds it in}. kernels: {group: kernel}.
    The layers of a group of INPUT_GROUPS are used as they are if all of them have the layout of the
    group's kernel.
    """
    found: set[str] = set()
    for group, names in _grouped(layouts).items():
        kind = group.rpartition(".")[2]
        if [layouts[name] for name in names] == [kernels[kind]] * len(INPUT_GROUPS[kind]):
            found.update(names)
    return found


def pack_tensors(
    tensors: Mapping[str, Tensor],
    kernels: Mapping[str, str],
    *,
    isa: str,
    threads: int,
    release: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """Pack the linear layers of a model, *threads* at a time, into huge pages.

    kernels: name of the kernel of each of INPUT_GROUPS. A group in which a matrix holds code 3, or
    that is packed already, stays as it is. release: called now and then to hand back the pages of
    the file that have been read.
    """
    wanted = _wanted(tensors, kernels)
    made = {name: Cell(name, isa=isa) for name in set(wanted.values())}
    room = _arena({name: _packed_bytes(tensors[name], made[wanted[name]]) for name in wanted})
    done: dict[str, Tensor] = {}

    def pack(name: str) -> None:
        matrix = tensors[name]
        assert isinstance(matrix, TernaryMatrix)
        done[name] = pack_matrix(matrix, made[wanted[name]], out=room[name])

    _each(pack, list(wanted), threads, release)
    return {**tensors, **done}


def copy_tensors(
    tensors: Mapping[str, Tensor], *, threads: int, release: Callable[[], None] = lambda: None
) -> dict[str, Tensor]:
    """Copy to huge pages what is multiplied and was not packed, *threads* pieces at a time.

    It stays as it is where the system has no huge pages or more than half of the free memory would
    be needed. release: as `pack_tensors` calls it.
    """
    matrices = _used_in_place(tensors)
    found = {name: weights_of(matrix) for name, matrix in matrices.items()}
    nbytes = sum(weights.nbytes for weights in found.values())
    if not huge_pages.available() or nbytes > (available_memory() or 0) // 2:
        return dict(tensors)
    room = _arena({name: weights.nbytes for name, weights in found.items()})
    pieces = [
        (room[name][at : at + _PIECE], weights.reshape(-1)[at : at + _PIECE])
        for name, weights in found.items()
        for at in range(0, weights.nbytes, _PIECE)
    ]
    _each(lambda piece: np.copyto(*piece), pieces, threads, release)
    return {**tensors, **{name: moved(matrix, room[name]) for name, matrix in matrices.items()}}


def _each(
    work: Callable[[Item], None],
    items: Sequence[Item],
    threads: int,
    release: Callable[[], None],
) -> None:
    """Do all *items*, *threads* at a time, and release now and then what was read of the file."""
    with ThreadPoolExecutor(threads) as pool:
        for at in range(0, len(items), 8 * threads):
            list(pool.map(work, items[at : at + 8 * threads]))
            release()


def _used_in_place(tensors: Mapping[str, Tensor]) -> dict[str, Matrix]:
    """The matrices that are multiplied where they lie in a file, or where they were read to."""
    head = "output.weight" if "output.weight" in tensors else "token_embd.weight"
    found: dict[str, Matrix] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, np.ndarray) or not (name == head or is_linear(name)):
            continue
        if not isinstance(tensor, DenseMatrix) or not tensor.in_strips:
            found[name] = tensor
    return found


def _wanted(tensors: Mapping[str, Tensor], kernels: Mapping[str, str]) -> dict[str, str]:
    """Kernel of each tensor that is to be packed."""
    ternary = [name for name, tensor in tensors.items() if isinstance(tensor, TernaryMatrix)]
    wanted: dict[str, str] = {}
    for group, names in _grouped(ternary).items():
        kernel = kernels[group.rpartition(".")[2]]
        if kernel != "i2_s" and not any(_holds_code_3(tensors[name]) for name in names):
            wanted.update(dict.fromkeys(names, kernel))
    return wanted


def _grouped(names: Iterable[str]) -> dict[str, list[str]]:
    """Sort the linear layers among *names* by block and group: {"blk.0.attn_qkv": names}."""
    groups: dict[str, list[str]] = {}
    for name in names:
        block, _, linear = name.removesuffix(".weight").rpartition(".")
        if linear in _GROUP_OF:
            groups.setdefault(f"{block}.{_GROUP_OF[linear]}", []).append(name)
    return groups


def _holds_code_3(tensor: Tensor) -> bool:
    return isinstance(tensor, TernaryMatrix) and has_code_3(tensor.packed)


def _packed_bytes(matrix: Tensor, kernel: Cell) -> int:
    assert isinstance(matrix, TernaryMatrix)
    return kernel.packed_bytes(matrix.rows, matrix.cols)


def _arena(sizes: Mapping[str, int]) -> dict[str, NDArray[np.uint8]]:
    """Room of so many bytes for each matrix, in one piece of memory."""
    total = sum(-(-size // _LINE) * _LINE for size in sizes.values())
    if not total:
        return {}
    arena = huge_pages.allocate(total)
    room: dict[str, NDArray[np.uint8]] = {}
    start = 0
    for name, size in sizes.items():
        room[name] = arena[start : start + size]
        start += -(-size // _LINE) * _LINE
    return room
