"""Checkpoints: all that a run needs to go on, in safetensors and JSON, whole or not there at all."""

import errno
import math
import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import BadInput, ScionError
from ..files import read_json, write_json
from ..lora_file.safe_io import read_tensors, write_tensors

FORMAT = 1
PARTIAL = ".partial-"
PATIENCE = 2.0
"""Seconds for which a refused renaming is tried again."""


class NewerFormat(BadInput):
    """A checkpoint that is whole, but not for this version."""


@dataclass
class Checkpoint:
    step: int
    """Optimiser steps done."""
    parameters: dict[str, torch.Tensor]
    """What trains, fp32, by parameter name."""
    optimizer: dict[str, Any]
    """`optimizer_state.pack`'s result without its tensors."""
    optimizer_tensors: dict[str, torch.Tensor]
    extras: dict[str, Any] = field(default_factory=dict)
    """Small numbers: the gradient scaler's, counts of skipped steps, what validations have shown."""
    path: Path | None = None
    """Where it was read."""
    averages: dict[str, torch.Tensor] = field(default_factory=dict)
    """The moving average of what trains, fp32, by parameter name; empty where none is kept."""


def save(
    folder: Path, checkpoint: Checkpoint, keep: int, also: Callable[[Path], None] | None = None, spare: int = 0
) -> Path:
    """Writes a checkpoint under a temporary name, then names it.

    Deleted are those before the last `keep`, and those of later steps: the run is not there, they were torn.

    Args:
        folder: of all checkpoints of the run.
        also: writes more files into the checkpoint's folder before it gets its name.
        spare: a step whose checkpoint is kept, however many came after it.

    Raises:
        ScionError: weights or the optimiser's state are not finite (nothing is written then), or the disk refuses.
    """
    kinds = {
        "trained": checkpoint.parameters,
        "of the optimiser's": checkpoint.optimizer_tensors,
        "averaged": checkpoint.averages,
    }
    for what, tensors in kinds.items():
        broken = [name for name, tensor in tensors.items() if not _is_finite(tensor)]
        if broken:
            raise ScionError(
                f"step {checkpoint.step}: {len(broken)} {what} tensors are not finite ({broken[0]}); not saved"
            )
    final = path_of(folder, checkpoint.step)
    partial = folder / f"{PARTIAL}{secrets.token_hex(6)}"
    try:
        partial.mkdir(parents=True)
        write_tensors(partial / "adapter.safetensors", checkpoint.parameters)
        write_tensors(partial / "optimizer.safetensors", checkpoint.optimizer_tensors)
        if checkpoint.averages:
            write_tensors(partial / "ema.safetensors", checkpoint.averages)
        if also:
            also(partial)
        write_json(
            partial / "state.json",
            {
                "format": FORMAT,
                "step": checkpoint.step,
                "optimizer": checkpoint.optimizer,
                "ema": bool(checkpoint.averages),
                "extras": {key: value if _plain(value) else None for key, value in checkpoint.extras.items()},
            },
        )
        if final.exists():  # torn, or this step would not have been done again
            shutil.rmtree(final)
        _rename(partial, final)
    except BaseException as error:  # an interrupt too leaves no half checkpoint behind
        shutil.rmtree(partial, ignore_errors=True)
        refusal = error.__cause__ if isinstance(error, ScionError) else error
        if isinstance(refusal, OSError):
            raise ScionError(
                f"{final}: cannot be written ({refusal.strerror or refusal}); {_remedy(refusal)}"
            ) from error
        raise
    prune(folder, checkpoint.step, keep, spare)
    return final


def prune(folder: Path, step: int, keep: int, spare: int = 0) -> None:
    """Deletes the checkpoints before the last `keep` up to `step`, but for that of step `spare`, and those of later
    steps."""
    named = _named(folder)
    done = [path for path in named if _step(path) <= step]
    for path in named:
        if path not in done[-keep:] and _step(path) != spare:
            shutil.rmtree(path, ignore_errors=True)


def _is_finite(tensor: torch.Tensor) -> bool:
    # Floats of 8 bits know no such question.
    wide = tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor
    return bool(torch.isfinite(wide).all())


def _rename(partial: Path, final: Path) -> None:
    # On Windows a fresh folder cannot be renamed while a virus scanner or an indexer looks into it.
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return os.replace(partial, final)
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return "free space on the disk"
    if isinstance(error, PermissionError):
        return "close the program that holds the folder (a virus scanner?), or allow writing in it"
    return "choose another run folder"


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:08d}"


def exist(folder: Path) -> bool:
    """Whether there is any checkpoint, whole or not."""
    return folder.is_dir() and bool(_named(folder))


def latest(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; `warn` hears of each that is not. What killed writers left is removed.

    Raises:
        BadInput: a newer Scion wrote one; going on from an older one would delete it.
    """
    if not folder.is_dir():
        return None
    for leftover in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    found, torn = None, []
    for path in reversed(_named(folder)):
        try:
            found = read(path)
            break
        except NewerFormat:
            raise
        except ScionError as error:
            torn.append(f"{path} is not whole ({error})")
    for one in torn:
        used = (
            f"the checkpoint before it is used, of step {found.step}"
            if found
            else "no other is, so the run begins anew"
        )
        warn(f"{one}; {used}")
    return found


def read(path: Path) -> Checkpoint:
    """A checkpoint from its folder.

    Raises:
        ScionError: it is torn, or of a newer format.
    """
    state = read_json(path / "state.json")
    written = state.get("format") if isinstance(state, dict) else None
    if type(written) is int and written > FORMAT:
        raise NewerFormat(
            f"{path}: was written by a newer Scion (format {written}, this one reads up to {FORMAT}); update Scion, or "
            "choose another run folder"
        )
    if written != FORMAT:
        raise ScionError(f"{path}: state.json is of no format that is known here ({written!r})")
    absent = [key for key in ("step", "optimizer", "extras") if key not in state]
    if absent:
        raise ScionError(f"{path}: state.json lacks {', '.join(absent)}")
    parameters, _ = read_tensors(path / "adapter.safetensors")
    tensors, _ = read_tensors(path / "optimizer.safetensors")
    averages = read_tensors(path / "ema.safetensors")[0] if state.get("ema") else {}
    return Checkpoint(state["step"], parameters, state["optimizer"], tensors, state["extras"], path, averages)


def first_difference(found: dict[str, tuple], expected: dict[str, tuple]) -> str:
    """In words, of tensors' shapes by name."""
    for name, shape in found.items():
        if name not in expected:
            return f"{name} does not train here"
        if shape != expected[name]:
            return f"{name} is {list(shape)} there, {list(expected[name])} here"
    return f"{next(name for name in expected if name not in found)} is not in it"


def _named(folder: Path) -> list[Path]:
    """The run's checkpoints, torn ones too, in the order of their steps."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal() and path.is_dir()]
    return sorted(found, key=_step)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _plain(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
