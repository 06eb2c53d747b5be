"""What the user asks of a LoRA: its size, its strength and what it trains; obeyed by lora.py."""

import re
from dataclasses import dataclass

from ..lora_file.alpha import effective_alpha
from ..options import option

PATTERN = "re:"


@dataclass(kw_only=True)
class LoRAConfig:
    """Settings of a LoRA (Hu et al. 2021): W + alpha / rank * B A for each targeted weight W."""

    rank: int = option(
        16, help="Width of the two matrices of each pair; larger learns more and weighs more", low=1, high=1024
    )
    alpha: float | None = option(
        None, help="Strength: what is learned counts alpha / rank. Empty = equal to rank", above=0, high=100000
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
        0.0, help="Share of a LoRA's inputs that are zeroed in training", low=0, high=0.99, advanced=True
    )
    rslora: bool = option(False, help="Rank-stabilised LoRA: counts alpha / sqrt(rank), for large ranks", advanced=True)
    start_from: str = option(
        "", help="A LoRA file to go on from, instead of from nothing; its rank and alpha must be the ones set here"
    )

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
        return found
