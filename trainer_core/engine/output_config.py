"""What the user asks of the LoRA file: its name and what is in it; obeyed by output.py and session.py."""

import re
from dataclasses import dataclass

from ..options import option
from .run_config import WEIGHTS

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
RESERVED = ("adapter", "optimizer", "ema")
"""Files of a checkpoint, in whose folder the LoRA of its step lies too."""


@dataclass(kw_only=True)
class OutputConfig:
    """Settings of the LoRA file."""

    name: str = option("", help="Its name; empty = the dataset's folder", decides=False)
    dtype: str = option("fp16", help="Precision of its numbers", choices=tuple(DTYPES), decides=False)
    dialect: str = option(
        "auto",
        help="How its keys are named; auto = the names that ComfyUI and diffusers load in full",
        choices=("auto", "kohya", "kohya-ldm", "comfyui", "diffusers"),
        decides=False,
        advanced=True,
    )
    author: str = option("", help="Said in its metadata", decides=False, advanced=True)
    license: str = option("", help="Said in its metadata", decides=False, advanced=True)
    description: str = option("", help="Said in its metadata", decides=False, advanced=True)

    weights: str = option(
        "auto",
        help="What it has, and what validation measures: the trained weights or their moving average (ema); auto = the "
        "average, if run.ema_decay makes one",
        choices=WEIGHTS,
        decides=False,
        advanced=True,
    )
    checkpoint: str = option(
        "last",
        help="Whose weights it has: those of the last step, or of the one with the lowest validation loss (best, which "
        "needs run.keep_best)",
        choices=("last", "best"),
        decides=False,
        advanced=True,
    )

    def problems(self, where: str = "") -> list[str]:
        if self.name and not re.fullmatch(r"[^\x00-\x1f<>:\"/\\|?*]{1,120}", self.name):
            return [
                f"{where}.name: {self.name!r} cannot be a file's name everywhere; leave out / \\ : * ? \" < > | and "
                "control characters, at most 120 characters"
            ]
        if self.name.strip(". ") != self.name:
            return [f"{where}.name: {self.name!r} begins or ends with a dot or space; leave it out"]
        if self.name.lower() in RESERVED:
            return [f"{where}.name: {self.name!r} is what a checkpoint calls its own file; choose another"]
        return []
