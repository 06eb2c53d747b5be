"""What lies in a run's folder: whether it is whole after a death, and how it differs from another's, times aside."""

import json
from pathlib import Path

import torch

from trainer_core.data.disk_cache import DiskCache
from trainer_core.engine import checkpoints, metrics
from trainer_core.errors import ScionError
from trainer_core.lora_file.safe_io import read_tensors

TIMES = {"started_at", "finished_at", "seconds"}
OF_TIME = ("ss_training_started_at", "ss_training_finished_at", "modelspec.date")


def encoded(cache: Path) -> list[Path]:
    """The encoded items that are whole; a torn one raises."""
    files = sorted(cache.glob("*/*.safetensors"))
    store = DiskCache(cache) if files else None
    assert all(store.get(path.stem) is not None for path in files), f"{cache}: an encoded item is torn"
    return files


def state_after_death(folder: Path) -> str:
    """What the run was doing."""
    if not (folder / "recipe.json").exists():
        return "scanning and encoding"
    if any(path.suffix == ".safetensors" for path in folder.iterdir()):
        return "closing or done"
    return "training"


def problems_while_dead(folder: Path) -> list[str]:
    """What is not whole right after a death."""
    problems = []
    for path in folder.glob("*.json"):
        try:
            json.loads(path.read_text())
        except ValueError:
            problems.append(f"{path.name} is torn")
    for path in folder.glob("*.safetensors"):
        try:
            read_tensors(path)
        except ScionError as error:
            problems.append(f"the LoRA is torn: {error}")
    steps = sorted((folder / "checkpoints").glob("step-*"))
    for path in steps[-1:]:
        try:
            checkpoints.read(path)
        except ScionError as error:
            problems.append(f"the last checkpoint is torn: {error}")
    told = json.loads((folder / "run.json").read_text())["step"] if (folder / "run.json").exists() else 0
    if told and (not steps or int(steps[-1].name[5:]) < told):
        problems.append(f"run.json tells of step {told}, of which there is no checkpoint")
    return problems


def leftovers(*folders: Path) -> list[str]:
    """What unfinished writes left."""
    names = (path for folder in folders for path in folder.rglob("*") if path.name.startswith((".scion-", ".partial-")))
    return [f"left behind: {path}" for path in names]


def differences(one: Path, other: Path) -> list[str]:
    """Between two runs' folders, file by file; what tells of time or of threads does not count."""
    files = [{str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} for folder in (one, other)]
    problems = [f"only in one of them: {name}" for name in sorted(files[0] ^ files[1])]
    for name in sorted(files[0] & files[1]):
        if not _same(one / name, other / name):
            problems.append(f"differs: {name}")
    return problems


def _same(one: Path, other: Path) -> bool:
    if one.suffix == ".safetensors":
        (tensors, said), (others, told) = read_tensors(one), read_tensors(other)
        same = tensors.keys() == others.keys() and all(torch.equal(tensors[key], others[key]) for key in tensors)
        return same and _timeless_metadata(said) == _timeless_metadata(told)
    if one.suffix == ".jsonl":
        return [_timeless(line) for line in metrics.read(one)] == [_timeless(line) for line in metrics.read(other)]
    if one.suffix == ".json":
        return _timeless(json.loads(one.read_text())) == _timeless(json.loads(other.read_text()))
    return one.read_bytes() == other.read_bytes()


def _timeless(values: dict) -> dict:
    kept = {key: value for key, value in values.items() if key not in TIMES}
    if "dataset" in kept:
        kept["dataset"] = {key: v for key, v in kept["dataset"].items() if key not in ("workers", "cache_path")}
    return kept


def _timeless_metadata(said: dict[str, str]) -> dict:
    kept = {key: value for key, value in said.items() if key not in OF_TIME}
    if "scion.recipe" in kept:
        kept["scion.recipe"] = _timeless(json.loads(kept["scion.recipe"]))
    return kept
