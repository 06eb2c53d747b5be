"""What run folders tell of their runs: each in the list of all, and one's whole history."""

import re
from pathlib import Path
from typing import Any

from ...trainer_core.engine import metrics
from ...trainer_core.engine.history import History
from ...trainer_core.engine.run_folder import RunFolder, RunState
from ...trainer_core.errors import BadInput, ScionError
from ...trainer_core.files import read_json
from . import datasets, workflow_file

CURVE = 64
"""Points of the small curve in the list."""
SETTINGS = (
    "adapter.kind",
    "adapter.rank",
    "adapter.alpha",
    "optimizer.name",
    "optimizer.learning_rate",
    "optimizer.schedule",
    "run.batch_size",
    "run.accumulation",
    "run.seed",
    "run.precision",
)
"""The settings that tell one run from another at a glance."""

_known: dict[Path, tuple[tuple[int, int, int], dict[str, Any]]] = {}
"""What the history of each run came to, by its metrics file, with size and time of that file and steps of the run."""


def all_runs(folder: Path) -> list[dict[str, Any]]:
    """Every run that can be read, that which began or ended last first."""
    told = [_listed(RunFolder(path.parent)) for path in folder.glob("*/run.json")]
    for path in list(_known):  # other threads add to it meanwhile
        if not path.exists():
            _known.pop(path, None)
    return sorted(filter(None, told), key=_last_activity, reverse=True)


def _last_activity(run: dict[str, Any]) -> float:
    return max(run["started_at"], run["finished_at"] or 0)


def history(folder: RunFolder, points: int, after: int, every_setting: bool) -> dict[str, Any] | None:
    """A run with its history after a step; None where it was deleted.

    Args:
        every_setting: all that decide its weights, not SETTINGS alone.

    Raises:
        ScionError: another version of Scion wrote it.
    """
    state = folder.state()
    if state is None:
        return None
    read = History(metrics.read(folder.metrics))
    series = read.thinned(points, after)
    return {
        "run": folder.path.name,
        "status": state.status,
        "early": state.is_early,
        "by_hand": state.is_early and state.ended_by_hand,
        "failure": state.failure,
        "step": _step(state, read.last),
        "total": state.total,
        "lora": _lora(folder, state),
        "settings": _settings(state, every_setting),
        "loss": read.smoothed_loss(state.total),
        "series": vars(series),
        "learning_rate": read.learning_rate(points, after),
        "validation": [point for point in read.validation if point[0] > after],
        "best": read.best_validation,
        "checkpoints": [step for step in read.checkpoints if step > after],
        "previews": [one for one in read.previews if one["step"] > after],
        "seconds_per_step": read.seconds_per_step,
        "dataset": _dataset(folder),
    }


def _listed(folder: RunFolder) -> dict[str, Any] | None:
    try:
        state = folder.state()
    except ScionError:  # another version wrote it
        return None
    if state is None:
        return None
    told = _summary(folder.metrics, state.total)
    return {
        "run": folder.path.name,
        "name": Path(state.lora).stem or re.sub(r"-[0-9a-f]{12}(-\d+)?$", "", folder.path.name),
        "status": state.status,
        "early": state.is_early,
        "failure": state.failure,
        "step": _step(state, told["last"]),
        "total": state.total,
        "started_at": state.started_at,
        "finished_at": state.finished_at or None,
        "loss": told["loss"],
        "validation": told["validation"],
        "lora": _lora(folder, state),
        "settings": _settings(state, False),
        "bytes": folder.size,
        "preview": _preview(folder, told["validation"]),
        "curve": told["curve"],
        "workflow": workflow_file.is_kept(folder.path),
    }


def _preview(folder: RunFolder, best: dict[str, Any] | None) -> str | None:
    """The preview that shows a run best: the one drawn nearest to its best validation, else the last."""
    names = [path.name for path in folder.previews.glob("step-*.png") if path.stem[5:].isdecimal()]
    drawn = {int(name[5:-4]): name for name in names}
    wanted = best["step"] if best else max(drawn, default=0)
    return drawn[min(drawn, key=lambda step: (abs(step - wanted), -step))] if drawn else None


def _settings(state: RunState, every: bool) -> dict[str, Any]:
    return state.settings if every else {name: state.settings[name] for name in SETTINGS if name in state.settings}


def _dataset(folder: RunFolder) -> list[str]:
    """The names of its folders; "" = pictures that were wired. Empty where its recipe cannot be read."""
    try:
        asked = read_json(folder.recipe)["dataset"]
        others = [one["path"] for one in asked.get("folders") or []]
        paths = [asked["path"], *others] if asked["path"] or not others else others
        return [datasets.name_of(Path(path)) if path else "" for path in paths]
    except (BadInput, KeyError, TypeError, AttributeError):  # whoever wrote it, it is not what this Scion writes
        return []


def _summary(path: Path, total: int) -> dict[str, Any]:
    """What the list says of a history; it is read again only when its file has changed."""
    try:
        status = path.stat()
        stamp = status.st_size, status.st_mtime_ns, total
    except OSError:
        stamp = 0, 0, total
    before, told = _known.get(path, (None, {}))
    if before != stamp:
        read = History(metrics.read(path))
        thin = read.thinned(CURVE)
        told = {
            "last": read.last,
            "loss": read.smoothed_loss(total),
            "validation": read.best_validation,
            "curve": list(zip(thin.step, thin.loss, strict=True)),
        }
        _known[path] = stamp, told
    return told


def _step(state: RunState, told: int) -> int:
    """The state is written with checkpoints only; while a run trains, its history is further."""
    return max(state.step, told)


def _lora(folder: RunFolder, state: RunState) -> str | None:
    """The LoRA's file, or where others have learned without one the first of theirs."""
    return next((path.name for path in state.made(folder.path).files if path.is_file()), None)
