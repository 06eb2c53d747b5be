"""Which optimisers there are by name: their libraries, and what of their habits a run must know.

Nothing is imported here but names; optimizers.py makes them real.
"""

from dataclasses import dataclass, field
from typing import Any

FAMILIES = {"adv_optm": "adv-optm", "pytorch_optimizer": "pytorch-optimizer"}
"""Libraries any class of which may be named, and what pip calls them."""


@dataclass(frozen=True)
class Kind:
    """One optimiser."""

    module: str
    class_name: str
    package: str = ""
    """What pip calls the library; empty where Scion always has it."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """Keywords that make it the one that is meant; optimizer.arguments may still change them."""
    finds_rate: bool = False
    """Whether it finds the learning rate itself: ours is then a factor near 1, and the same for all parts."""
    device: str = ""
    """The only kind of device that it works on; empty = any."""
    compiled: bool = False
    """Whether its step may ask torch.compile for speed."""
    about: str = ""


KINDS = {
    "adamw": Kind(
        "torch.optim",
        "AdamW",
        fixed={"fused": True},
        about="AdamW (Loshchilov & Hutter 2019) in one kernel; on a GPU no step waits for the device",
    ),
    "adamw8bit": Kind(
        "bitsandbytes.optim",
        "AdamW8bit",
        "bitsandbytes",
        about="Tensors of 4,096 numbers and more have their state in blocks of 8 bits (Dettmers et al. 2022)",
    ),
    "paged_adamw8bit": Kind(
        "bitsandbytes.optim",
        "PagedAdamW8bit",
        "bitsandbytes",
        device="cuda",
        about="The same, and its state moves to the computer's memory when the GPU's is full",
    ),
    "adamw_8bit_ao": Kind(
        "torchao.optim", "AdamW8bit", "torchao", compiled=True, about="torchao's AdamW with its state in 8 bits"
    ),
    "adamw_4bit_ao": Kind(
        "torchao.optim", "AdamW4bit", "torchao", compiled=True, about="torchao's AdamW with its state in 4 bits"
    ),
    "adamw_fp8_ao": Kind(
        "torchao.optim", "AdamWFp8", "torchao", compiled=True, about="torchao's AdamW with its state in 8-bit floats"
    ),
    # torch's own Adafactor has no switch for the step size relative to the weights' (Shazeer & Stern 2018, section 8):
    # a LoRA's B begins at zero, and would learn a thousand times more slowly than the learning rate says.
    "adafactor": Kind(
        "transformers.optimization",
        "Adafactor",
        fixed={"scale_parameter": False, "relative_step": False},
        about="Keeps row and column means instead of squares (Shazeer & Stern 2018); the learning rate is what it says "
        "(scale_parameter and relative_step are off)",
    ),
    "lion": Kind("lion_pytorch", "Lion", "lion-pytorch", about="Steps by sign (Chen et al. 2023): a third to a tenth "
        "of AdamW's learning rate, and as many times its weight decay"),
    "prodigy": Kind(
        "prodigyopt",
        "Prodigy",
        "prodigyopt",
        finds_rate=True,
        about="Finds the learning rate (Mishchenko & Defazio 2023): set optimizer.learning_rate to 1, and "
        "d_coef in optimizer.arguments for less or more",
    ),
    "schedulefree_adamw": Kind(
        "schedulefree",
        "AdamWScheduleFree",
        "schedulefree",
        about="Averages instead of a falling learning rate (Defazio et al. 2024): use the schedule constant. Previews, "
        "validation and the LoRA file have the averaged weights",
    ),
    "came": Kind(
        "came_pytorch.CAME", "CAME", "came-pytorch", about="Adafactor with confidence (Luo et al. 2023): lower rates"
    ),
}  # fmt: skip


def kind_of(name: str, custom: str = "") -> Kind:
    """The optimiser that two settings name; `custom` ("library.Class") wins."""
    if not custom:
        return KINDS[name]
    library, _, class_name = custom.partition(".")
    return Kind(library, class_name, FAMILIES[library], finds_rate=finds_rate(class_name), compiled=True)


def finds_rate(class_name: str) -> bool:
    """Whether a class of the families is of those that find the learning rate."""
    return class_name.startswith(("Prodigy", "DAdapt"))
