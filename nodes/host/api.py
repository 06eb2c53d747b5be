"""What of ComfyUI's node interface is used, and the types that travel along the graph's edges."""

from comfy_api.latest import ComfyExtension, io, ui
from comfy_execution.graph_utils import ExecutionBlocker

TRAINING_MODEL = io.Custom("TRAINING_MODEL")
TRAINING_DATASET = io.Custom("TRAINING_DATASET")
TRAINING_CONFIG = io.Custom("TRAINING_CONFIG")
LORA_MODEL = io.Custom("LORA_MODEL")
LOSS_MAP = io.Custom("LOSS_MAP")
"""These two are the host's own: its training nodes and ours take each other's."""
DECORATOR = io.Custom("DECORATOR")

__all__ = [
    "DECORATOR",
    "LORA_MODEL",
    "LOSS_MAP",
    "TRAINING_CONFIG",
    "TRAINING_DATASET",
    "TRAINING_MODEL",
    "ComfyExtension",
    "ExecutionBlocker",
    "io",
    "ui",
]
