"""What there is to know of each optimiser, as docs/optimizers.md (`python -m trainer_core.optimizers_page`)."""

from collections import defaultdict
from pathlib import Path

from .engine.optimizer_kinds import FAMILIES, KINDS, Kind
from .engine.optimizer_limits import NOT_EXACT, REFUSED

PAGE = Path(__file__).parent.parent / "docs" / "optimizers.md"
HEAD = """# Optimisers

`optimizer.name` is one of the first table; `optimizer.custom` names any class of two libraries instead. What is missing
is said before anything is loaded, with the line that installs it; `pip install "scion-lora[optimizers]"` installs all.
Optimisers get `weight_decay` as it is set; `beta1`, `beta2` and `epsilon` only where they were changed, because AdamW's
are not right for all; and everything in `optimizer.arguments` by its own name (`d_coef=2 betas=(0.9, 0.99)`). This page
is made by `python -m trainer_core.optimizers_page` from the code's own descriptions.

| name | package | what it is |
|---|---|---|
"""
RATES = """
Optimisers that find the learning rate (`prodigy`, and `Prodigy…` and `DAdapt…` of the families) take
`optimizer.learning_rate` as a factor of what they find: 1 is right, as prodigyopt says. Below 0.1, where diffusers'
training scripts warn, the recipe is refused, because nothing would be learned; so are rates of parts and LoRA+, since
they find one rate for all.
A learning rate schedule multiplies that factor.

torchao's three are compiled by torch where a CUDA device and Triton are there; elsewhere they run as they are, which is
slower. Optimisers other than `adamw` read after each step whether its gradients were finite, which on a GPU waits for
the step.
"""
RESUMING = """
## Going on after a stop

A checkpoint holds an optimiser's state in safetensors and JSON. On the CPU a run that was stopped and gone on with
gives the same bits as one that never stopped, with every optimiser above and every class of the two families that is
not listed here: the tests try each. Random numbers that an optimiser draws are keyed by the step.

These are not the same bit by bit:

| optimiser | argument | why |
|---|---|---|
"""
NOT_HERE = """
## Classes that are refused

| why | classes |
|---|---|
"""


def for_page() -> str:
    text = HEAD
    for name, kind in KINDS.items():
        text += f"| `{name}` | {_package(kind)} | {kind.about}{_device(kind)} |\n"
    for library, package in FAMILIES.items():
        text += (
            f"| `{library}.<Class>` (as `optimizer.custom`) | `{package}` | Any optimiser of the library by name |\n"
        )
    text += RATES + RESUMING
    for name, (argument, why) in NOT_EXACT.items():
        text += f"| `{name}` | `{argument}` | {why} |\n"
    text += NOT_HERE
    reasons = defaultdict(list)
    for name, why in sorted(REFUSED.items()):
        reasons[why].append(f"`{name}`")
    for why, names in reasons.items():
        text += f"| {why} | {', '.join(names)} |\n"
    return text


def _package(kind: Kind) -> str:
    return f"`{kind.package}`" if kind.package else "is there"


def _device(kind: Kind) -> str:
    return f". Needs {kind.device.upper()}" if kind.device else ""


if __name__ == "__main__":
    PAGE.write_text(for_page(), encoding="utf-8", newline="\n")
