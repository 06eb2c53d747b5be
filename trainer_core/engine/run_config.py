"""How a run goes: its length, batches, precision, and how often it is saved, previewed and validated."""

from dataclasses import dataclass

from ..options import option
from .attention_kinds import KINDS, REFUSED

PRECISION_NAMES = ("fp32", "fp16", "bf16")
WEIGHTS = ("auto", "trained", "ema")
"""Which weights are used; auto = those of the moving average, where there is one."""


@dataclass(kw_only=True)
class RunConfig:
    steps: int = option(1000, help="Optimiser steps; 0 = as many as the epochs make", unit="steps", low=0, high=10**8)
    epochs: int = option(
        0,
        help="Passes over the data, instead of steps, which must be 0 then; 0 = by steps",
        unit="epochs",
        low=0,
        high=10**7,
    )
    batch_size: int = option(1, help="Pictures that are trained on together", unit="pictures", low=1, high=4096)
    accumulation: int = option(
        1, help="Batches whose gradients make one step: a larger batch in the memory of a small one", low=1, high=4096
    )
    seed: int = option(0, help="The same seed repeats the run", low=0, high=2**53 - 1)
    precision: str = option(
        "auto",
        help="What the base computes in; what trains is kept in fp32. auto = bf16 on a GPU that has it, else fp32",
        choices=("auto", *PRECISION_NAMES),
    )
    gradient_checkpointing: bool = option(
        False, help="Less memory for about a third more time: activations are computed again", decides=False
    )
    # As with the device, another kernel rounds otherwise and the run is the same: it may go on where memory suffices.
    attention_backend: str = option(
        "auto",
        help="What computes the denoiser's attention, by diffusers' names: kernels of torch (native lets it choose, as "
        "auto does), of flash-attn or of xformers. The result is the same but for rounding",
        choices=("auto", *KINDS),
        refused=REFUSED,
        decides=False,
        advanced=True,
    )
    device: str = option("auto", help="Where to train: auto, cpu, cuda, cuda:1, mps", decides=False, advanced=True)
    checkpoint_every: int = option(
        250,
        help="Save a checkpoint every so many steps; 0 = not by steps",
        unit="steps",
        low=0,
        high=10**8,
        decides=False,
    )
    checkpoint_minutes: float = option(
        5.0, help="Save one after so much time, too; 0 = not by time", unit="minutes", low=0, high=10**6, decides=False
    )
    keep_checkpoints: int = option(
        3, help="How many of the last checkpoints are kept", unit="checkpoints", low=1, high=10**6, decides=False
    )
    preview_every: int = option(
        0, help="Draw previews every so many steps; 0 = only at the end", unit="steps", low=0, high=10**8, decides=False
    )
    validate_every: int = option(
        100,
        help="Measure the loss on held-out pictures every so many steps (dataset.holdout sets how many are held out)",
        unit="steps",
        low=1,
        high=10**8,
        decides=False,
        advanced=True,
    )
    ema_decay: float = option(
        0.0,
        help="Keep an exponential moving average of what trains, too, which previews and the file then have "
        "(preview.weights, output.weights): this much of it stays at each step, 0.999 is usual; 0 = off",
        low=0,
        high=0.99999,
    )
    early_stop: int = option(
        0,
        help="End the run when the validation loss was not lower for so many validations in a row (run.validate_every; "
        "needs dataset.holdout); 0 = off",
        unit="validations",
        low=0,
        high=10**6,
        decides=False,
    )
    keep_best: bool = option(
        False,
        help="Keep the checkpoint of the step with the lowest validation loss, beside the last ones (needs "
        "dataset.holdout); the file has its weights with output.checkpoint=best",
        decides=False,
    )
    existing: str = option(
        "resume",
        help="What to do if the run folder holds this run already: go on with it (or return it finished), start anew "
        "beside it, or refuse; continue = as resume, and a run that was ended early goes on, too",
        choices=("resume", "new", "error", "continue"),
        decides=False,
    )
    text_encoder_precision: str = option(
        "auto",
        help="What text encoders that do not learn compute in: auto = CLIP in fp32, larger ones as they are stored; "
        "int8 keeps their weights as eight-bit integers (needs torchao), a quarter of fp32's memory",
        choices=("auto", *PRECISION_NAMES, "int8"),
        advanced=True,
    )

    def problems(self, where: str = "") -> list[str]:
        if bool(self.steps) == bool(self.epochs):
            said = "both are set" if self.steps else "neither is set"
            return [f"{where}.steps, {where}.epochs: {said}; set one of them and leave the other at 0"]
        return []

    def weights(self, asked: str) -> str:
        """What `preview.weights` or `output.weights` ask for in this run: "trained" or "ema"."""
        if asked == "auto":
            return "ema" if self.ema_decay else "trained"
        return asked

    def total_steps(self, batches_per_epoch: int, world: int = 1) -> int:
        """Optimiser steps of the whole run; `world` processes share the batches."""
        if self.steps:
            return self.steps
        return max(1, -(-self.epochs * batches_per_epoch // (self.accumulation * world)))
