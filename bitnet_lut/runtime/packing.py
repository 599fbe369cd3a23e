"""Ternary matrices in the layout of a kernel, packed when a model is opened."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import huge_pages
from bitnet_lut._native import Cell, has_code_3
from bitnet_lut.formats.tensors import PackedMatrix, Tensor, TernaryMatrix

__all__ = ["INPUT_GROUPS", "pack_matrix", "pack_tensors", "suited", "unpack_matrix"]

# Linear layers that read the same input, and so share its prepared activations and the kernel.
INPUT_GROUPS: Mapping[str, tuple[str, ...]] = {
    "attn_qkv": ("attn_q", "attn_k", "attn_v"),
    "attn_output": ("attn_output",),
    "ffn_gate_up": ("ffn_gate", "ffn_up"),
    "ffn_down": ("ffn_down",),
}
_GROUP_OF = {linear: group for group, linears in INPUT_GROUPS.items() for linear in linears}
_LINE = 64  # every matrix starts at a cache line


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
    room = _arena(tensors, {name: made[kernel] for name, kernel in wanted.items()})
    done: dict[str, Tensor] = {}

    def pack(name: str) -> None:
        matrix = tensors[name]
        assert isinstance(matrix, TernaryMatrix)
        done[name] = pack_matrix(matrix, made[wanted[name]], out=room[name])

    names = list(wanted)
    with ThreadPoolExecutor(threads) as pool:
        for at in range(0, len(names), 8 * threads):
            list(pool.map(pack, names[at : at + 8 * threads]))
            release()
    return {**tensors, **done}


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


def _arena(
    tensors: Mapping[str, Tensor], kernels: Mapping[str, Cell]
) -> dict[str, NDArray[np.uint8]]:
    """Room for each packed matrix, in one piece of memory."""
    sizes: dict[str, int] = {}
    for name, kernel in kernels.items():
        matrix = tensors[name]
        assert isinstance(matrix, TernaryMatrix)
        sizes[name] = kernel.packed_bytes(matrix.rows, matrix.cols)
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
