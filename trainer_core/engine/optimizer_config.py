"""What the user asks of the optimiser and its learning rate; obeyed by optimizers.py."""

from dataclasses import dataclass

from ..options import option

CONSTANT = ("constant", "constant_with_warmup")
POLYNOMIAL_END = 1e-7
"""Where diffusers' polynomial schedule ends, whatever the rate that it begins with."""


@dataclass(kw_only=True)
class OptimizerConfig:
    """Settings of AdamW (Loshchilov & Hutter 2019) and of the learning rate's schedule."""

    name: str = option("adamw", help="The optimiser (its fused form)", choices=("adamw",))
    learning_rate: float = option(1e-4, help="Step size at its highest", above=0, high=1)
    weight_decay: float = option(0.01, help="Pull of every weight towards zero", low=0, high=10, advanced=True)
    beta1: float = option(0.9, help="Memory of the gradient's mean", low=0, high=0.9999, advanced=True)
    beta2: float = option(0.999, help="Memory of the gradient's square", low=0, high=0.999999, advanced=True)
    epsilon: float = option(1e-8, help="Smallest divisor", above=0, high=1, advanced=True)
    max_grad_norm: float = option(
        1.0, help="Gradients longer than this are shortened to it; 0 = off", low=0, high=1e6, advanced=True
    )
    schedule: str = option(
        "constant",
        help="How the learning rate goes over the run (diffusers' schedules)",
        choices=(*CONSTANT, "linear", "cosine", "cosine_with_restarts", "polynomial"),
    )
    warmup_steps: int = option(0, help="The learning rate rises from 0 over these", unit="steps", low=0, high=10**7)
    cycles: int = option(1, help="With cosine_with_restarts: how often it starts anew", low=1, high=1000, advanced=True)
    power: float = option(1.0, help="With polynomial: its exponent", above=0, high=100, advanced=True)

    def problems(self, where: str = "") -> list[str]:
        if self.schedule == "constant" and self.warmup_steps:
            return [
                f"{where}.warmup_steps: {self.warmup_steps}, but the schedule 'constant' has no warm-up; set "
                f"{where}.schedule to 'constant_with_warmup' or another, or warmup_steps to 0"
            ]
        if self.schedule == "polynomial" and self.learning_rate <= POLYNOMIAL_END:
            return [
                f"{where}.learning_rate: {self.learning_rate:g}, but the schedule 'polynomial' goes down to "
                f"{POLYNOMIAL_END:g}; choose a larger one or another schedule"
            ]
        return []

    @property
    def needs_total(self) -> bool:
        """Whether the learning rate of a step depends on how many steps the run has."""
        return self.schedule not in CONSTANT
