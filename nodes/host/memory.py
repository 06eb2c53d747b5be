"""The host's memory: its models off the device before ours comes, and its calls made in the mode that they expect."""

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management
import torch


def release() -> None:
    """Takes every model of the host off the device, and patches out of its weights; it loads them again as needed."""
    management = comfy.model_management
    with torch.inference_mode():
        management.unload_all_models()
        # Where there is a GPU, the host does not count the CPU among the devices that it unloads.
        management.free_memory(1e30, torch.device("cpu"))
        management.reset_cast_buffers()
        management.soft_empty_cache()


def device() -> torch.device:
    """Where the host computes."""
    return comfy.model_management.get_torch_device()


@contextmanager
def ours() -> Iterator[None]:
    """For the engine: the host runs its nodes in inference mode, in which nothing can be trained."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def own(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of a host's result that may take part in training: no inference tensor, float32, on the CPU."""
    with torch.inference_mode(False):
        return torch.empty(tensor.shape).copy_(tensor)
