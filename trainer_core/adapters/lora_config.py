"""What the user asks of a LoRA: its kind, size and strength, and what it trains; obeyed by lora.py."""

import re
from dataclasses import dataclass

from ..lora_file.alpha import effective_alpha
from ..options import option

PATTERN = "re:"
SHAPED_BY = {
    "lora": ("rank", "alpha"),
    "dora": ("rank", "alpha"),
    "loha": ("rank", "alpha"),
    "lokr": ("rank", "alpha", "factor"),
    "oft": ("rank",),
}
"""The kinds of adapter, and the settings that decide the form of each."""
PAIRS = ("lora", "dora")
"""Kinds that send a module's input through a pair of matrices."""


@dataclass(kw_only=True)
class LoRAConfig:
    """Settings of a LoRA (Hu et al. 2021), W + alpha / rank * B A for each targeted weight W, or of a relative."""

    rank: int = option(
        16,
        help="Width of the two matrices of each pair; larger learns more and weighs more. With oft: side of the "
        "rotated blocks, lowered to what divides a module's outputs",
        low=1,
        high=1024,
    )
    alpha: float | None = option(
        None,
        help="Strength: what is learned counts alpha / rank. Empty = equal to rank; oft has none",
        above=0,
        high=100000,
    )
    targets: list[str] = option(
        factory=lambda: ["attention"],
        help="What is trained: a preset (attention, attention+ff, all), names of modules (to_q), or re: and a regular "
        "expression for whole module paths; several are added up",
    )
    exclude: list[str] = option(
        factory=list, help="What is left out of the targets, written in the same way", advanced=True
    )
    dropout: float = option(
        0.0,
        help="Share of a LoRA's inputs that are zeroed in training; of lora and dora only",
        low=0,
        high=0.99,
        advanced=True,
    )
    rslora: bool = option(
        False,
        help="Rank-stabilised LoRA: counts alpha / sqrt(rank), for large ranks; of lora and dora only",
        advanced=True,
    )
    start_from: str = option(
        "",
        help="A LoRA file to go on from, instead of from nothing; its kind, rank and alpha must be the ones set here",
    )
    kind: str = option(
        "lora",
        help="How weights are changed: a pair of matrices each (lora), with a learned length beside (dora), products "
        "of two pairs (loha), Kronecker products (lokr), or rotations (oft). docs/relatives.md tells of each",
        choices=tuple(SHAPED_BY),
    )
    factor: int = option(
        0,
        help="With lokr: a side of the first factor, so that the second is so many times smaller than the weight; 0 = "
        "factors of about the same size, the smallest file",
        low=0,
        high=1024,
        advanced=True,
    )

    @property
    def shaping(self) -> tuple[str, ...]:
        """The settings that decide the form of its kind."""
        return SHAPED_BY[self.kind]

    @property
    def strength(self) -> float:
        """alpha, with the default filled in."""
        return float(self.rank) if self.alpha is None else self.alpha

    @property
    def scale(self) -> float:
        """What the product of a pair's matrices is multiplied by."""
        return effective_alpha(self.rank, self.strength, self.rslora) / self.rank

    def problems(self, where: str = "") -> list[str]:
        found = [] if self.targets else [f"{where}.targets: is empty; name at least one preset, module or pattern"]
        for name in ("targets", "exclude"):
            for entry in getattr(self, name):
                try:
                    re.compile(entry.removeprefix(PATTERN) if entry.startswith(PATTERN) else "")
                except re.error as error:
                    found.append(f"{where}.{name}: {entry!r} is no regular expression ({error})")
        return found + self._kind_problems(where)

    def _kind_problems(self, where: str) -> list[str]:
        """Settings that say nothing of this kind."""
        found, kind = [], f"{where}.kind is {self.kind}"
        if self.kind not in PAIRS and self.dropout:
            found.append(f"{where}.dropout: {self.dropout:g}, but {kind}, which zeroes no inputs; set it to 0")
        if self.kind not in PAIRS and self.rslora:
            found.append(f"{where}.rslora: is on, but {kind}, whose scale is alpha / rank or none; switch it off")
        if self.kind == "oft" and self.alpha is not None:
            found.append(f"{where}.alpha: {self.alpha:g}, but {kind}, and a rotation has no strength; leave it empty")
        if self.kind == "oft" and self.rank < 2:
            found.append(f"{where}.rank: {self.rank}, but {kind}, whose blocks need a side of 2 or more; raise it")
        if self.kind != "lokr" and self.factor:
            found.append(f"{where}.factor: {self.factor}, but {kind}, and only lokr has factors; set it to 0")
        return found
