"""Where a run computes and in what: the device and the precision that the settings ask for, checked on this machine."""

import torch

from ..errors import BadInput
from .run_config import PRECISION_NAMES

PRECISIONS = dict(zip(PRECISION_NAMES, (torch.float32, torch.float16, torch.bfloat16), strict=True))
MIXED = dict(zip(PRECISION_NAMES, ("no", "fp16", "bf16"), strict=True))
"""accelerate's names."""


def pick_device(name: str) -> torch.device:
    """The device that a run trains on.

    Raises:
        BadInput: this machine or this torch does not have it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:120]
        raise BadInput(f"run.device: {name!r} cannot be used here ({reason}); try auto or cpu") from None
    return device


def pick_precision(name: str, device: torch.device) -> str:
    """fp32, fp16 or bf16.

    Raises:
        BadInput: the device cannot train in it.
    """
    if name not in ("auto", *PRECISIONS):
        raise BadInput(f"run.precision: {name!r} is not one of auto, {', '.join(PRECISIONS)}")
    if name == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if name == "fp16" and device.type != "cuda":
        raise BadInput(f"run.precision: fp16 needs a CUDA GPU, this run trains on {device.type}; choose bf16 or fp32")
    return name
