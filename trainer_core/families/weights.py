"""Weights from files into modules: every key and shape is compared before anything is assigned."""

import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from ..errors import BadInput

State = dict[str, torch.Tensor]

FOREIGN_OBJECT = re.compile(r"GLOBAL (\S+)")
"""In the message of torch's unpickler: the class or function that it refused."""


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in one file, by name; of safetensors only the header is read.

    Raises:
        BadInput: as for `read_weights`.
    """
    if path.suffix.lower() != ".safetensors":
        return {key: tuple(tensor.shape) for key, tensor in read_weights(path).items()}
    try:
        with safe_open(path, "pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> BadInput:
    return BadInput(f"base: {path} cannot be read as weights ({_first_line(error)}); is the download complete?")


def read_weights(path: Path) -> State:
    """The tensors of one file; formats that can pickle are read with `weights_only=True`.

    Raises:
        BadInput: the file is torn or holds something other than tensors.
    """
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        # Before torch 1.6 these were no archives, and only an archive can be mapped.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, LookupError, ValueError) as error:
        foreign = FOREIGN_OBJECT.search(str(error))
        if foreign:
            raise BadInput(
                f"base: {path} holds objects other than tensors ({foreign[1]}), which could run code, so it is not "
                "opened; convert it to .safetensors"
            ) from None
        raise _unreadable(path, error) from None
    if not isinstance(state, dict):
        raise BadInput(f"base: {path} holds {type(state).__name__} instead of named weights")
    state = state.get("state_dict", state)
    return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}


def read_folder(folder: Path) -> State:
    """The weights in a part's folder of a diffusers model: one file, shards with an index, or a variant (fp16).

    Raises:
        BadInput: there are none, or not all of them.
    """
    shards, missing = _shards(folder)
    if shards:
        state: State = {}
        for path in shards:
            state |= read_weights(path)
        return state
    stems = ("diffusion_pytorch_model", "model", "pytorch_model")
    for suffix in (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin"):
        for stem in stems:
            if (folder / (stem + suffix)).is_file():
                return read_weights(folder / (stem + suffix))
    if missing:
        raise BadInput(f"base: {folder} lacks {missing}; is the download complete?")
    raise BadInput(f"base: no weights in {folder}; expected {stems[0]}.safetensors, {stems[1]}.safetensors or shards")


def _shards(folder: Path) -> tuple[list[Path], str]:
    """The files of the first index that has all of its own, plain ones before variants; and in words what the first one
    lacks that does not."""
    missing = ""
    for pattern in ("*.safetensors.index*.json", "*.bin.index*.json"):
        for index in sorted(folder.glob(pattern), key=lambda path: (path.name.count("."), path.name)):
            paths = [folder / Path(name).name for name in sorted(_named_in(index))]
            absent = [path.name for path in paths if not path.is_file()]
            if not absent:
                return paths, ""
            missing = missing or f"{', '.join(absent)}, which {index.name} names"
    return [], missing


def _named_in(index: Path) -> set[str]:
    """The files that an index of shards names."""
    try:
        return {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _unreadable(index, error) from None


def assemble(module_class: type[nn.Module], config, state: State, dtype: torch.dtype | None, label: str) -> nn.Module:
    """A frozen module in eval mode over the given tensors.

    Args:
        module_class: made by `from_config` (diffusers) or by its constructor (transformers).
        dtype: of the module's weights; None = as they are.
        label: what to call it in a message: the part and where it came from.

    Raises:
        BadInput: keys are missing or unexpected, shapes differ, or values are not finite (with dtype None these are
            not looked at: a host may hold them in formats that cannot be summed).
    """
    module = _empty(getattr(module_class, "from_config", module_class), config)
    wanted = module.state_dict()
    problems = compare(wanted, state)
    if problems:
        raise BadInput(f"base: {label} does not fit its configuration: {'; '.join(problems)}")
    module.requires_grad_(False)
    filled = {key: state[key].to(dtype or state[key].dtype) for key in wanted}
    broken = [key for key, tensor in filled.items() if not _is_finite(tensor)] if dtype else []
    if broken:
        remedy = ", or the precision bf16 or fp32" if dtype == torch.float16 else ""
        raise BadInput(
            f"base: {label} holds NaN or infinite numbers in {_count('of its tensors', broken)}; download it again, or "
            f"choose another base{remedy}"
        )
    module.load_state_dict(filled, assign=True)
    return module.requires_grad_(False).eval()


def _empty(make: Callable[..., nn.Module], config) -> nn.Module:
    """A module whose weights have no storage yet; what no file brings is computed."""
    with torch.device("meta"):
        module = make(config)
    brought = module.state_dict().keys()
    apart = [tensor for part in module.modules() for tensor in vars(part).values() if isinstance(tensor, torch.Tensor)]
    if not apart and all(name in brought for name, _ in module.named_buffers()):
        # Nothing is computed in vain: the table of positions of Stable Diffusion 3.5 Medium would take gigabytes.
        return module
    with init_empty_weights(include_buffers=False):
        return make(config)


def compare(wanted: State, state: State) -> list[str]:
    """What keeps `state` from filling a module, in words; extra keys that old exporters leave behind do not count."""
    missing = [key for key in wanted if key not in state]
    extra = [key for key in state if key not in wanted and not key.endswith("position_ids")]
    misshaped = [
        f"{key} is {list(state[key].shape)} instead of {list(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in state and state[key].shape != tensor.shape
    ]
    found = [_count("missing", missing), _count("unexpected", extra), _count("misshaped", misshaped)]
    return [text for text in found if text]


def _is_finite(tensor: torch.Tensor) -> bool:
    # NaN and infinity survive a sum, which is many times faster than looking at each number and holds no second copy.
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor.sum(dtype=torch.float32)))


def _count(word: str, entries: list[str]) -> str:
    if not entries:
        return ""
    shown = ", ".join(entries[:3]) + (", …" if len(entries) > 3 else "")
    return f"{len(entries)} {word} ({shown})"


def _first_line(error: Exception) -> str:
    said = re.sub(r"\x1b\[[\d;]*m", "", str(error))
    # torch begins with what it changed in 2.6; what is wrong with the file comes behind this mark.
    lines = said.rpartition("WeightsUnpickler error:")[2].strip().splitlines()
    return "".join(letter for letter in (lines or [type(error).__name__])[0][:200] if letter.isprintable())
