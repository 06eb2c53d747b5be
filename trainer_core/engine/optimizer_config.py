"""What the user asks of the optimiser and its learning rate; obeyed by optimizers.py and learning_rate.py."""

import ast
import math
import re
from dataclasses import dataclass
from typing import Any

from ..errors import BadInput
from ..options import option
from .optimizer_kinds import FAMILIES, KINDS, Kind, finds_rate, kind_of

CONSTANT = ("constant", "constant_with_warmup")
POLYNOMIAL_END = 1e-7
"""Where diffusers' polynomial schedule ends, whatever the rate that it begins with."""
SANE_RATE = 1e-3
"""AdamW's for LoRAs lie between 1e-5 and this."""
USUAL_RATE = 1e-4
LOWEST_FACTOR = 0.1
"""Below this a learning rate is meant as one, not as the factor that an optimiser takes which finds its own."""
OURS = {
    "lr": "optimizer.learning_rate",
    "params": "adapter.targets",
}
"""Keywords of optimisers that are other settings."""
ASSIGNMENT = re.compile(r"(?:^|[\s,])([A-Za-z_]\w*)\s*=")
WORDS = {"true": True, "false": False, "none": None, "inf": math.inf}
PATTERN = "re:"
DEFAULTS = (0.9, 0.999, 1e-8)
"""AdamW's two betas and epsilon."""


@dataclass(kw_only=True)
class OptimizerConfig:
    """Settings of the optimiser and of the learning rate's schedule."""

    name: str = option(
        "adamw",
        help="The optimiser. All but adamw (torch) and adafactor (transformers) need a package that pip installs; "
        "docs/optimizers.md tells of each",
        choices=tuple(KINDS),
    )
    learning_rate: float = option(
        1e-4, help="Step size at its highest; 1 for optimisers that find it themselves (prodigy)", above=0, high=1
    )
    weight_decay: float = option(0.01, help="Pull of every weight towards zero", low=0, high=10, advanced=True)
    beta1: float = option(
        DEFAULTS[0],
        help="Memory of the gradient's mean; left at its default, each optimiser keeps its own",
        low=0,
        high=0.9999,
        advanced=True,
    )
    beta2: float = option(
        DEFAULTS[1],
        help="Memory of the gradient's square; left at its default, each optimiser keeps its own (lion: 0.99)",
        low=0,
        high=0.999999,
        advanced=True,
    )
    epsilon: float = option(
        DEFAULTS[2],
        help="Smallest divisor; left at its default, each optimiser keeps its own",
        above=0,
        high=1,
        advanced=True,
    )
    max_grad_norm: float = option(
        1.0, help="Gradients longer than this are shortened to it; 0 = off", low=0, high=1e6, advanced=True
    )
    schedule: str = option(
        "constant",
        help="How the learning rate goes over the run (diffusers' schedules; cosine_with_min and warmup_stable_decay "
        "are transformers')",
        choices=(
            *CONSTANT,
            "linear",
            "cosine",
            "cosine_with_restarts",
            "polynomial",
            "cosine_with_min",
            "warmup_stable_decay",
        ),
    )
    warmup_steps: int = option(0, help="The learning rate rises from 0 over these", unit="steps", low=0, high=10**7)
    cycles: int = option(1, help="With cosine_with_restarts: how often it starts anew", low=1, high=1000, advanced=True)
    power: float = option(1.0, help="With polynomial: its exponent", above=0, high=100, advanced=True)
    custom: str = option(
        "",
        help="Another optimiser by library.Class, used instead of the name: any of adv_optm (adv_optm.AdamW_adv) or "
        "pytorch_optimizer (pytorch_optimizer.ScheduleFreeRAdam)",
        advanced=True,
    )
    arguments: str = option(
        "",
        help="More keyword arguments of the optimiser: d_coef=2 use_bias_correction=true betas=(0.9, 0.99)",
        advanced=True,
    )
    min_ratio: float = option(
        0.1,
        help="With cosine_with_min and warmup_stable_decay: what is left of the learning rate at the end, as a share",
        low=0,
        high=1,
        advanced=True,
    )
    decay_steps: int = option(
        0,
        help="With warmup_stable_decay: over so many last steps the learning rate falls; 0 = a tenth of the run",
        unit="steps",
        low=0,
        high=10**7,
        advanced=True,
    )
    decay_shape: str = option(
        "1-sqrt",
        help="With warmup_stable_decay: how the learning rate falls",
        choices=("1-sqrt", "linear", "cosine"),
        advanced=True,
    )
    lora_plus_ratio: float = option(
        0.0,
        help="LoRA+ (Hayou et al. 2024): the B of each pair learns at so many times the rate (the paper: 16); 0 or 1 = "
        "off",
        low=0,
        high=1000,
        advanced=True,
    )
    part_rates: list[str] = option(
        factory=list,
        help="Learning rates of parts, each as PART=RATE (attn1=1e-4): a part is written as in adapter.targets; where "
        "several fit, the last counts",
        advanced=True,
    )
    text_encoder_learning_rate: float | None = option(
        None,
        help="Learning rate of the text encoders, where they learn (adapter.text_encoder). Empty = learning_rate",
        above=0,
        high=1,
        advanced=True,
    )

    def problems(self, where: str = "") -> list[str]:
        found = self._optimizer_problems(where)
        if self.schedule == "constant" and self.warmup_steps:
            found.append(
                f"{where}.warmup_steps: {self.warmup_steps}, but the schedule 'constant' has no warm-up; set "
                f"{where}.schedule to 'constant_with_warmup' or another, or warmup_steps to 0"
            )
        if self.schedule == "polynomial" and self.learning_rate <= POLYNOMIAL_END:
            found.append(
                f"{where}.learning_rate: {self.learning_rate:g}, but the schedule 'polynomial' goes down to "
                f"{POLYNOMIAL_END:g}; choose a larger one or another schedule"
            )
        return found

    def _optimizer_problems(self, where: str) -> list[str]:
        found = []
        library, _, class_name = self.custom.partition(".")
        if self.custom and (library not in FAMILIES or not class_name.isidentifier()):
            found.append(
                f"{where}.custom: {self.custom!r} is not library.Class with the library one of {', '.join(FAMILIES)}, "
                "such as adv_optm.AdamW_adv"
            )
        try:
            for name in set(OURS) & set(self.keywords()):
                found.append(f"{where}.arguments: {name} is set by {OURS[name]}")
        except ValueError as error:
            found.append(f"{where}.arguments: {error}; expected such as d_coef=2 use_bias_correction=true")
        try:
            parts = self.rates()
        except ValueError as error:
            found.append(f"{where}.part_rates: {error}; expected PART=RATE with a rate above 0 and at most 1")
            parts = []
        if finds_rate(class_name) if self.custom else self.name in KINDS and KINDS[self.name].finds_rate:
            # diffusers' training scripts warn of this, and go on to train nothing.
            if self.learning_rate < LOWEST_FACTOR:
                found.append(
                    f"{where}.learning_rate: {self.learning_rate:g}, but {self.chosen} finds the learning rate itself, "
                    f"and this is a factor of it: set it to 1 (and d_coef in {where}.arguments for less or more)"
                )
            asked = {
                "part_rates": bool(parts),
                "lora_plus_ratio": self.lora_plus_ratio not in (0, 1),
                "text_encoder_learning_rate": self.text_encoder_learning_rate is not None,
            }
            setting = next((name for name, set_ in asked.items() if set_), None)
            if setting:
                found.append(f"{where}.{setting}: {self.chosen} finds one learning rate for all; leave this empty")
        return found

    @property
    def chosen(self) -> str:
        """What optimises, as the user named it."""
        return self.custom or self.name

    @property
    def kind(self) -> Kind:
        return kind_of(self.name, self.custom)

    @property
    def is_steep(self) -> bool:
        """Whether the learning rate is above what ever trained a LoRA well."""
        return not self.kind.finds_rate and self.learning_rate > SANE_RATE

    @property
    def lower_rate(self) -> float:
        """The learning rate to try when a run has diverged."""
        if self.kind.finds_rate:
            return max(self.learning_rate / 3, LOWEST_FACTOR)
        return USUAL_RATE if self.is_steep else self.learning_rate / 3

    def keywords(self) -> dict[str, Any]:
        """`arguments` as values.

        Raises:
            ValueError: in words for a person.
        """
        text = self.arguments.strip()
        starts = list(ASSIGNMENT.finditer(text))
        if text and (not starts or starts[0].start(1) != 0):
            raise ValueError(f"{text.split()[0]!r} is no NAME=VALUE")
        found = {}
        for number, start in enumerate(starts):
            end = starts[number + 1].start() if number + 1 < len(starts) else len(text)
            name, value = start[1], text[start.end() : end].strip().rstrip(",")
            if name in found:
                raise ValueError(f"{name} is there twice")
            found[name] = _literal(name, value)
        return found

    def rates(self) -> list[tuple[str, float]]:
        """`part_rates` as (part, learning rate).

        Raises:
            ValueError: in words for a person.
        """
        found = []
        for entry in self.part_rates:
            part, _, number = entry.rpartition("=")
            part = part.strip()
            try:
                rate = float(number)
                re.compile(part.removeprefix(PATTERN) if part.startswith(PATTERN) else "")
            except re.error as error:
                raise ValueError(f"{part!r} is no regular expression ({error})") from None
            except ValueError:
                raise ValueError(f"{entry!r}") from None
            if not part or not 0 < rate <= 1:
                raise ValueError(f"{entry!r}")
            found.append((part, rate))
        return found

    @property
    def needs_total(self) -> bool:
        """Whether the learning rate of a step depends on how many steps the run has."""
        return self.schedule not in CONSTANT

    def decay_of(self, total: int) -> int:
        """Steps of the decay of warmup_stable_decay in a run of `total` steps.

        Raises:
            BadInput: warm-up and decay do not fit into the run.
        """
        steps = self.decay_steps or max(1, total // 10)
        if self.schedule == "warmup_stable_decay" and self.warmup_steps + steps > total:
            raise BadInput(
                f"optimizer.decay_steps: {steps} after {self.warmup_steps} steps of warm-up are more than the run's "
                f"{total}; shorten them, or raise run.steps"
            )
        return steps


def _literal(name: str, text: str) -> Any:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if text.isidentifier():
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"{name}={text} is no number, word, true, false, none or list of these") from None
    if not isinstance(value, (bool, int, float, str, tuple, list)):
        raise ValueError(f"{name}={text} is no number, word, true, false, none or list of these")
    return value
