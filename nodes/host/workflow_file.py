"""The workflow that a run was queued with, beside the run: with it the page can open the run's graph, and go on."""

import json
from pathlib import Path
from typing import Any

from ...trainer_core.errors import ScionError
from ...trainer_core.files import write_bytes

NAME = "workflow.json"
MOST = 4 * 2**20
"""Bytes of the file."""


def said_with(extra_pnginfo: Any) -> dict[str, Any] | None:
    """The workflow among what a page sends beside a prompt; None where a script queued the prompt alone."""
    workflow = extra_pnginfo.get("workflow") if isinstance(extra_pnginfo, dict) else None
    return workflow if isinstance(workflow, dict) and workflow else None


def keep(folder: Path, workflow: dict[str, Any]) -> None:
    """Writes it into a run's folder, as ComfyUI itself saves and loads workflows.

    Raises:
        ScionError: it is too large, or cannot be written.
    """
    try:
        # A lone half of a surrogate pair, which JSON may name, is no UTF-8.
        data = json.dumps(workflow, ensure_ascii=False, allow_nan=False).encode(errors="replace")
    except (ValueError, RecursionError) as error:
        raise ScionError(f"{folder / NAME}: not kept, the workflow is no JSON ({error}).") from None
    if len(data) > MOST:
        raise ScionError(
            f"{folder / NAME}: not kept, the workflow has more than {MOST:,} bytes; save it yourself to go on with it."
        )
    write_bytes(folder / NAME, data)


def is_kept(folder: Path) -> bool:
    return (folder / NAME).is_file()
