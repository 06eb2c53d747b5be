"""The precision of text encoders that do not learn: as they are stored, another format, or weights of eight bits."""

import torch
from torch import nn

from ..errors import BadInput

FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
EIGHT_BITS = (torch.float8_e4m3fn, torch.float8_e5m2)
"""Formats that weights are stored in and nothing is computed in."""


def set_precision(module: nn.Module, precision: str) -> None:
    """Changes the weights in their places.

    Args:
        module: a text encoder of transformers, frozen.
        precision: "auto" (as they are, see `make_computable`), a name in `FORMATS`, or "int8": bf16 with the matrices
            of linear layers as eight-bit integers and a scale a row, a quarter of their size in fp32.

    Raises:
        BadInput: int8 is asked for and torchao is not installed.
    """
    if precision in FORMATS:
        _cast(module, FORMATS[precision])
    elif precision == "int8":
        quantize_, configuration = _torchao()
        _cast(module, torch.bfloat16)
        quantize_(module, configuration)


def make_computable(module: nn.Module) -> None:
    """What is stored in formats that nothing is computed in becomes bf16, and what overflows in fp16 fp32; no number
    changes."""
    for path, part in module.named_modules():
        for parameter in part.parameters(recurse=False):
            if parameter.dtype in EIGHT_BITS:
                parameter.data = parameter.data.to(torch.bfloat16)
            elif parameter.dtype == torch.float16 and _overflows(module, path):
                parameter.data = parameter.data.float()


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    if dtype == torch.float16:
        # What stays wide is never rounded.
        for path, part in module.named_modules():
            if not _overflows(module, path):
                for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                    tensor.data = tensor.data.to(dtype) if tensor.is_floating_point() else tensor.data
    else:
        module.to(dtype)


def _overflows(module: nn.Module, path: str) -> bool:
    """Whether transformers itself keeps a part in fp32: of T5 what leaves the feed-forward layers."""
    kept = getattr(module, "_keep_in_fp32_modules", None) or ()
    return any(name in path.split(".") for name in kept)


def _torchao():
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise BadInput(
            "run.text_encoder_precision: int8 is made by torchao, which is not installed; install it: "
            "pip install torchao, or choose bf16"
        ) from error
    return quantize_, Int8WeightOnlyConfig()
