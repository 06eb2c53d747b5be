"""The host's weights as they were loaded: without the patches that it writes into them while it samples."""

import hashlib
from typing import Any

import torch

from ...trainer_core.errors import BadInput
from ...trainer_core.families.identities import hash_of, sampled_hash

WHOLE = (torch.float32, torch.float16, torch.bfloat16)


def originals(patcher) -> dict[str, torch.Tensor]:
    """The state of a ModelPatcher's model; where a patch is written into a weight, the one that is kept aside.

    Patchers over the same model share what is kept, so this holds whichever of them is loaded.
    """
    state = dict(patcher.model.state_dict())
    state |= {key: kept.weight for key, kept in patcher.backup.items()}
    state |= {key: kept[0] for key, kept in patcher.hook_backup.items()}
    return state


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether it is numbers in memory: neither a quantised or lazy kind of tensor, nor on the meta device."""
    data = tensor.data if isinstance(tensor, torch.nn.Parameter) else tensor
    return type(data) is torch.Tensor and data.device.type != "meta" and data.layout == torch.strided


def shared(state: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    """The same storage under tensors of our own: those that the host made in inference mode can never be trained with.

    Args:
        part: what they are of, as the node's input is called.

    Raises:
        BadInput: there is no plain storage to share, or the numbers in it are quantised.
    """
    found = {}
    with torch.inference_mode(False):
        for name, tensor in state.items():
            data = tensor.data if isinstance(tensor, torch.nn.Parameter) else tensor
            if not is_plain(data):
                what = "not in memory" if data.device.type == "meta" else f"held as {type(data).__name__}"
                raise BadInput(
                    f"{part}: its weight {name} is {what}, as quantised or streamed models have it. Load the fp16, "
                    "bf16 or fp32 file with the host's own checkpoint or diffusion model loader"
                )
            empty = torch.empty(0, dtype=data.dtype, device=data.device)
            found[name] = empty.set_(data.untyped_storage(), data.storage_offset(), data.shape, data.stride())
    for name, tensor in found.items():
        if tensor.dtype not in WHOLE:
            raise BadInput(
                f"{part}: is quantised ({name} is {str(tensor.dtype).removeprefix('torch.')}). Load it in full: the "
                "fp16, bf16 or fp32 file, with weight_dtype 'default'"
            )
    return found


def identity(patcher) -> str | None:
    """Equal for equal weights and patches, whatever computes with them; None where weights are not plain numbers."""
    state = originals(patcher)
    if not all(is_plain(tensor) for tensor in state.values()):
        return None
    return hash_of(sampled_hash(state), _told(patcher.patches))


def _told(value: Any) -> Any:
    """Patches as plain values: tensors by their bytes, adapters by what they hold."""
    if isinstance(value, torch.Tensor):
        data = value.detach().to("cpu", torch.float32).contiguous()
        return hashlib.sha256(data.numpy().tobytes()).hexdigest()
    if isinstance(value, dict):
        return {str(key): _told(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_told(entry) for entry in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return [type(value).__name__, _told(getattr(value, "weights", None))]
