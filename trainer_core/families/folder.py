"""A diffusers folder taken apart: what it lacks, its parts' weights and their configurations."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInput
from .weights import State, read_folder

SCHEDULER = "scheduler/scheduler_config.json"


@dataclass
class Parts:
    """What a base is made of, in diffusers' names."""

    states: dict[str, State]
    """Weights by part: "unet", "vae", "text_encoder", …"""
    configs: dict[str, dict]
    """Of the same parts, and of "scheduler"."""
    where: Path
    """The folder or file they came from."""


def read_parts(
    folder: Path, parts: Iterable[str], others: Mapping[str, Iterable[tuple[str, ...]]], title: str
) -> Parts:
    """
    Args:
        parts: folders with a config.json and weights.
        others: folders of tokenizers, and the sets of files of which each must have one.
        title: the family's, for messages.

    Raises:
        BadInput: what is missing, all of it; or what cannot be read.
    """
    wanted = [*(f"{part}/config.json" for part in parts), SCHEDULER]
    missing = [name for name in wanted if not (folder / name).exists()]
    for place, choices in others.items():
        if not (folder / place).is_dir():
            missing.append(place)
        elif not any(all((folder / place / name).is_file() for name in names) for names in choices):
            missing.append(f"{place}/{' or '.join(' + '.join(names) for names in choices)}")
    if missing:
        raise BadInput(f"base: {folder} lacks {', '.join(missing)}; a {title} folder has them all")
    configs = {name.split("/")[0]: _read_config(folder / name) for name in wanted}
    return Parts({part: read_folder(folder / part) for part in parts}, configs, folder)


def _read_config(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"holds {type(found).__name__} instead of an object")
        return found
    except (OSError, ValueError) as error:
        raise BadInput(f"base: {path} is not readable JSON ({error})") from None
