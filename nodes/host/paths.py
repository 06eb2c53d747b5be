"""The host's folders: models by their names in a workflow, and where runs and LoRAs are written."""

import re
from pathlib import Path

import folder_paths

from ...trainer_core.adapters.decorator_config import ENDING
from ...trainer_core.errors import BadInput

NAME = r'[^/\\\x00-\x1f<>:"|?*]'
"""A character that a file's name may have on every system."""


def checkpoint_names() -> list[str]:
    return folder_paths.get_filename_list("checkpoints")


def checkpoint(name: str) -> str:
    return folder_paths.get_full_path_or_raise("checkpoints", name)


def lora_names() -> list[str]:
    """LoRAs, without the decorators that lie beside them."""
    return [name for name in folder_paths.get_filename_list("loras") if not name.endswith(ENDING)]


def lora(name: str) -> str:
    """The file of a LoRA, or of what lies beside LoRAs, by its name in the host's lists."""
    return folder_paths.get_full_path_or_raise("loras", name)


def decorator_names() -> list[str]:
    """Files of decorators among the host's LoRAs, beside which they lie."""
    return [name for name in folder_paths.get_filename_list("loras") if name.endswith(ENDING)]


def diffusers_names() -> list[str]:
    """Folders with a model_index.json in the host's `diffusers` folders."""
    return list(_diffusers())


def diffusers_folder(name: str) -> Path:
    """
    Raises:
        BadInput: there is no such folder.
    """
    found = _diffusers().get(name)
    if found is None:
        raise BadInput(f"base: {name!r} is no folder with a model_index.json in the host's 'diffusers' folders")
    return found


def _diffusers() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for root in folder_paths.get_folder_paths("diffusers"):
        for index in sorted(Path(root).glob("*/model_index.json")):
            found.setdefault(index.parent.name, index.parent)
    return found


def runs() -> Path:
    """Where runs lie: in the output folder, so that the host shows their pictures."""
    return Path(folder_paths.get_output_directory()) / "scion"


def encoded_cache() -> Path:
    return Path(folder_paths.get_user_directory()) / "scion" / "encoded"


def run_folder(fingerprint: str, name: str) -> Path:
    """The folder of the run with this fingerprint: the one written last, or a new one that is called after the LoRA."""
    mark = fingerprint[:12]
    known = [path for path in runs().glob(f"*-{mark}*") if re.fullmatch(rf".*-{mark}(-\d+)?", path.name)]
    known.sort(key=lambda path: (path / "run.json").stat().st_mtime if (path / "run.json").is_file() else 0.0)
    return known[-1] if known else runs() / f"{name}-{mark}"


def run_by_id(run: str) -> Path | None:
    """The folder of a run by its id, which is the folder's name; None if there is none."""
    if not re.fullmatch(rf"{NAME}{{1,200}}", run) or run in (".", ".."):
        return None
    folder = runs() / run
    return folder if (folder / "run.json").is_file() else None


def lora_file(name: str, ending: str = ".safetensors") -> Path:
    """Where a LoRA of this name, or what lies beside it, is written: in the host's first `loras` folder.

    Args:
        name: may begin with subfolders, and end in .safetensors.
        ending: of the file's name.

    Raises:
        BadInput: it leads out of the folder, or cannot be a file's name.
    """
    parts = re.split(r"[/\\]", name.strip().removesuffix(".safetensors"))
    wrong = [p for p in parts if not re.fullmatch(rf"{NAME}{{1,120}}", p) or p.strip(". ") != p]
    if wrong:
        raise BadInput(
            f"name: {name!r:.140} cannot be a file's name: {wrong[0]!r:.140}. Use at most 120 letters, digits, spaces, "
            "- and _, with / for a subfolder"
        )
    root = Path(folder_paths.get_folder_paths("loras")[0])
    path = root.joinpath(*parts[:-1], f"{parts[-1]}{ending}")
    if not path.resolve().is_relative_to(root.resolve()):
        raise BadInput(f"name: {name!r} leads out of {root}; choose another")
    return path


def word_file(name: str) -> Path:
    """Where the file of a new word lies: in the host's first `embeddings` folder.

    Args:
        name: with its ending.
    """
    return Path(folder_paths.get_folder_paths("embeddings")[0]) / name


def words_changed() -> None:
    """The host lists new embeddings from now on."""
    folder_paths.filename_list_cache.pop("embeddings", None)


def lora_listed(path: Path) -> str:
    """A file's name as the host's own loader lists it, which hears of the file by this."""
    root = Path(folder_paths.get_folder_paths("loras")[0])
    # The host notices new files by the folder's time, which some file systems keep only to the second.
    folder_paths.filename_list_cache.pop("loras", None)
    return str(path.relative_to(root))
