"""What the user asks of a decorator: how many vectors, what they begin as; obeyed by decorator.py."""

from dataclasses import dataclass

from ..options import option

USUAL = 4
"""Vectors of a decorator, where there is one."""
ENDING = ".decorator.safetensors"
"""Of its file's name: what stands before it is the name of the LoRA that it lies beside."""


@dataclass(kw_only=True)
class DecoratorConfig:
    """Settings of decorator tokens: learned vectors that stand behind every prompt's text states, as if words nobody
    wrote followed them."""

    num_tokens: int = option(
        0,
        help="Vectors of the decorator, which follow the text states of every caption and learn a style or a subject "
        f"without a word for it; 0 = no decorator, {USUAL} = the usual number",
        low=0,
        high=64,
    )
    initial_scale: float = option(
        1.0,
        help="Standard deviation of the random numbers that the decorator begins as",
        above=0,
        high=10,
        advanced=True,
    )
    learning_rate: float | None = option(
        None,
        help="Learning rate of the decorator. Empty = the run's",
        above=0,
        high=1,
        advanced=True,
    )
    alone: bool = option(
        False,
        help="There is no LoRA, and the model stays as it is: the decorator learns alone, or beside new words",
    )

    @property
    def learns(self) -> bool:
        """Whether there is one."""
        return self.num_tokens > 0

    def problems(self, where: str = "") -> list[str]:
        if self.learns:
            return []
        usual, said = DecoratorConfig(), {"initial_scale": f"{self.initial_scale:g}", "alone": "on"}
        said["learning_rate"] = f"{self.learning_rate:g}" if self.learning_rate is not None else ""
        return [
            f"{where}.{key}: {value}, but there is no decorator; set {where}.num_tokens, such as to {USUAL}, or leave "
            "it as it was"
            for key, value in said.items()
            if getattr(self, key) != getattr(usual, key)
        ]
