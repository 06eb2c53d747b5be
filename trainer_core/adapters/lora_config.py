"""What the user asks of a LoRA: its kind, size and strength, and what it trains; obeyed by lora.py."""

import re
from dataclasses import dataclass, replace

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
    text_encoder: str = option(
        "off",
        help="Whether the text encoders learn, too (on), or they alone (only); captions are then encoded in each step",
        choices=("off", "on", "only"),
    )
    text_encoder_rank: int = option(0, help="Rank in the text encoders; 0 = as rank", low=0, high=1024, advanced=True)
    text_encoder_targets: list[str] = option(
        factory=lambda: ["attention+mlp"],
        help="What is trained in the text encoders: a preset (attention, attention+mlp), names of modules (q_proj), or "
        "re: and a regular expression for whole module paths",
        advanced=True,
    )
    text_encoder_stop_step: int = option(
        0,
        help="The text encoders learn up to this step, and stay from there on as they are; 0 = to the end",
        unit="steps",
        low=0,
        high=10**8,
        advanced=True,
    )
    assistant: str = option(
        "",
        help="A LoRA file that is on beside the training and off in previews, frozen, and no part of the file: such as "
        "the adapter that undoes the distillation of FLUX.1 schnell. Empty = none",
        advanced=True,
    )
    assistant_strength: float = option(
        1.0,
        help="How much the assistant LoRA counts, if there is one; 1 = as it was trained",
        low=-10,
        high=10,
        advanced=True,
    )

    @property
    def trains_text(self) -> bool:
        """Whether text encoders learn."""
        return self.text_encoder != "off"

    @property
    def trains_denoiser(self) -> bool:
        """Whether the denoiser learns."""
        return self.text_encoder != "only"

    @property
    def of_text_encoder(self) -> "LoRAConfig":
        """The settings of a text encoder's adapter in the words of a denoiser's."""
        rank = self.text_encoder_rank or self.rank
        return replace(self, rank=rank, targets=self.text_encoder_targets, exclude=[])

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
        if not self.text_encoder_targets:
            found.append(f"{where}.text_encoder_targets: is empty; name at least one preset, module or pattern")
        for name in ("targets", "exclude", "text_encoder_targets"):
            for entry in getattr(self, name):
                try:
                    re.compile(entry.removeprefix(PATTERN) if entry.startswith(PATTERN) else "")
                except re.error as error:
                    found.append(f"{where}.{name}: {entry!r} is no regular expression ({error})")
        if self.assistant and not self.assistant_strength:
            found.append(
                f"{where}.assistant_strength: 0, which takes the assistant out; set another, or empty {where}.assistant"
            )
        return found + self._text_problems(where) + self._kind_problems(where)

    def _text_problems(self, where: str) -> list[str]:
        """Settings of text encoders that do nothing, or leave nothing to train."""
        found, usual = [], LoRAConfig()
        idle = () if self.trains_text else ("text_encoder_rank", "text_encoder_targets", "text_encoder_stop_step")
        why, change = "no text encoder learns", "on"
        if not self.trains_denoiser:
            idle, why, change = ("targets", "exclude"), "the text encoders alone learn", "on, or leave it as it was"
        for name in idle:
            value = getattr(self, name)
            if value and value != getattr(usual, name):
                said = ", ".join(value) if isinstance(value, list) else value
                found.append(f"{where}.{name}: {said}, but {why}; set {where}.text_encoder to {change}")
        if not self.trains_denoiser and self.text_encoder_stop_step:
            found.append(
                f"{where}.text_encoder_stop_step: {self.text_encoder_stop_step}, but {where}.text_encoder is only, so "
                "nothing would learn after it; set it to 0, or run.steps to fewer"
            )
        return found

    def _kind_problems(self, where: str) -> list[str]:
        """Settings that say nothing of this kind."""
        found, kind = [], f"{where}.kind is {self.kind}"
        if self.kind not in PAIRS and self.dropout:
            found.append(f"{where}.dropout: {self.dropout:g}, but {kind}, which zeroes no inputs; set it to 0")
        if self.kind not in PAIRS and self.rslora:
            found.append(f"{where}.rslora: is on, but {kind}, whose scale is alpha / rank or none; switch it off")
        if self.kind == "oft" and self.alpha is not None:
            found.append(f"{where}.alpha: {self.alpha:g}, but {kind}, and a rotation has no strength; leave it empty")
        if self.kind == "oft" and self.text_encoder_rank == 1:
            found.append(f"{where}.text_encoder_rank: 1, but {kind}, whose blocks need a side of 2 or more; raise it")
        if self.kind == "oft" and self.rank < 2:
            found.append(f"{where}.rank: {self.rank}, but {kind}, whose blocks need a side of 2 or more; raise it")
        if self.kind != "lokr" and self.factor:
            found.append(f"{where}.factor: {self.factor}, but {kind}, and only lokr has factors; set it to 0")
        return found
