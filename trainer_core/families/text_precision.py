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
        precision: "auto" (as they are), a name in `FORMATS`, or "int8": bf16 with the matrices of linear layers as
            eight-bit integers and a scale a row, a quarter of their size in fp32.

    Raises:
        BadInput: int8 is asked for and torchao is not installed.
    """
    found = {tensor.dtype for tensor in module.parameters() if tensor.is_floating_point()}
    if precision in FORMATS:
        _cast(module, FORMATS[precision])
    elif precision == "int8":
        quantize_, configuration = _torchao()
        _cast(module, torch.bfloat16)
        quantize_(module, configuration)
    elif found.intersection(EIGHT_BITS):
        _cast(module, torch.bfloat16)
    elif torch.float16 in found:
        _cast(module, torch.float16)


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    """All numbers in `dtype`; with fp16 those stay in fp32 that transformers keeps so, because they overflow."""
    # Of T5 that is what leaves the feed-forward layers, see transformers' T5PreTrainedModel.
    wide = (getattr(module, "_keep_in_fp32_modules", None) or ()) if dtype == torch.float16 else ()
    for path, part in module.named_modules():
        chosen = torch.float32 if any(name in path.split(".") for name in wide) else dtype
        for parameter in part.parameters(recurse=False):
            parameter.data = parameter.data.to(chosen)
        for name, buffer in part.named_buffers(recurse=False):
            if buffer.is_floating_point():
                part.register_buffer(name, buffer.to(chosen), name not in part._non_persistent_buffers_set)


def _torchao():
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise BadInput(
            "run.text_encoder_precision: int8 is made by torchao, which is not installed; install it: "
            "pip install torchao, or choose bf16"
        ) from error
    return quantize_, Int8WeightOnlyConfig()
