"""Modules that one original weight stacks, such as a fused q, k and v: their LoRA pairs as one, exactly."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from .lora import LoraPair


@dataclass(frozen=True)
class Rows:
    """Rows of a module's weight, as diffusers has it, that stand together in an original weight."""

    path: str
    count: int
    start: int = 0
    """The first of them in the module's own weight."""


Stack = tuple[Rows, ...]
"""An original weight from its first row to its last. It holds every row of each of its modules once; a module may stand
in it in several pieces, as where halves are swapped."""


def paths_of(stack: Stack) -> list[str]:
    """The modules of a stack, each once, in the order of their first rows."""
    return list(dict.fromkeys(rows.path for rows in stack))


def unstacked(stack: Stack, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """The modules' own rows of an original weight or bias, [rows, …]: views of it, but for a module in pieces, which is
    copied.

    Raises:
        ValueError: the tensor has another number of rows.
    """
    if tensor.shape[0] != sum(rows.count for rows in stack):
        raise ValueError(f"{tensor.shape[0]} rows instead of {sum(rows.count for rows in stack)}")
    pieces: dict[str, dict[int, torch.Tensor]] = {}
    for rows, part in zip(stack, tensor.split([rows.count for rows in stack]), strict=True):
        pieces.setdefault(rows.path, {})[rows.start] = part
    return {
        path: next(iter(parts.values())) if len(parts) == 1 else torch.cat([parts[start] for start in sorted(parts)])
        for path, parts in pieces.items()
    }


def stacked(stack: Stack, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The original weight or bias from the modules' own, a copy; the reverse of `unstacked`."""
    return torch.cat([tensors[rows.path][rows.start : rows.start + rows.count] for rows in stack])


def fuse_pairs(stack: Stack, pairs: Mapping[str, LoraPair]) -> LoraPair:
    """One pair for the original weight that does to every row what the modules' own pairs do.

    The downs stand under one another and the ups on a diagonal of blocks, so nothing is approximated. Each module has a
    block of the same rank, the largest of the pairs'; what a pair or a module lacks of it is zeros. Where the scales
    alpha / rank are equal, no number of a matrix changes.

    Args:
        stack: the original weight.
        pairs: of linear modules by path; modules without a pair get zeros.

    Raises:
        ValueError: there are none, or they read inputs of different width.
    """
    paths, rank = paths_of(stack), max((pair.rank for pair in pairs.values()), default=0)
    widths = {pair.down.shape[1] for pair in pairs.values()}
    if not rank or len(widths) != 1 or not pairs.keys() <= set(paths):
        raise ValueError(f"pairs of {', '.join(pairs) or 'no module'} are not of one stack of {', '.join(paths)}")
    first = next((pair for pair in pairs.values() if pair.alpha), next(iter(pairs.values())))
    down = first.down.new_zeros(rank * len(paths), *widths)
    ups = {}
    for number, path in enumerate(paths):
        height = sum(rows.count for rows in stack if rows.path == path)
        ups[path] = first.up.new_zeros(height, rank * len(paths))
        if path in pairs:
            pair = pairs[path] if pairs[path].scale == first.scale else _rescaled(pairs[path], first.scale)
            columns = slice(number * rank, number * rank + pair.rank)
            down[columns], ups[path][:, columns] = pair.down.detach(), pair.up.detach()
    return LoraPair(down, stacked(stack, ups), first.alpha * rank * len(paths) / first.rank)


def _rescaled(pair: LoraPair, scale: float) -> LoraPair:
    """The same addition at another scale; one that adds nothing has an up of zeros then."""
    if not scale:
        return replace(pair, up=torch.zeros_like(pair.up))
    return pair.with_alpha(scale * pair.rank)


def split_pair(stack: Stack, pair: LoraPair) -> dict[str, LoraPair]:
    """The modules' own pairs, which together do what a pair on the original weight does, exactly.

    What `fuse_pairs` put together comes apart as it was: ranks, downs and ups. Any other pair gives each module the
    whole down and its own rows of the up.

    Raises:
        ValueError: the pair is for a weight with another number of rows.
    """
    ups, paths = unstacked(stack, pair.up), paths_of(stack)
    rank, rest = divmod(pair.rank, len(paths))
    blocks = {path: slice(number * rank, (number + 1) * rank) for number, path in enumerate(paths)}
    if rest or any(_outside(ups[path], block).any() for path, block in blocks.items()):
        return {path: LoraPair(pair.down, up, pair.alpha) for path, up in ups.items()}
    split = {}
    for path, block in blocks.items():
        down, up = pair.down[block], ups[path][:, block]
        # A direction that neither half knows is what made the blocks equal.
        used = down.any(dim=1) | up.any(dim=0)
        if used.any():
            split[path] = LoraPair(down[used], up[:, used], pair.alpha * int(used.sum()) / pair.rank)
    return split


def _outside(up: torch.Tensor, block: slice) -> torch.Tensor:
    return torch.cat([up[:, : block.start], up[:, block.stop :]], dim=1)
