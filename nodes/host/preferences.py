"""What a person has set for the pack in ComfyUI's settings dialog, as far as the server obeys it."""

import json
from pathlib import Path

import folder_paths

INTERVAL_ID = "Scion.EventInterval"
INTERVAL, INTERVAL_LEAST, INTERVAL_MOST = 0.1, 0.05, 60.0
"""Seconds between two messages of one kind: fast work must not flood the page."""


def event_interval() -> float:
    """Seconds between two messages about steps; what cannot be meant counts as not set.

    A run has no user, so where the host has several it is the first one's.
    """
    path = Path(folder_paths.get_user_directory()) / "default" / "comfy.settings.json"
    try:
        asked = json.loads(path.read_text(encoding="utf-8"))[INTERVAL_ID]
    except (OSError, ValueError, KeyError, TypeError):
        return INTERVAL
    fits = isinstance(asked, int | float) and INTERVAL_LEAST <= asked <= INTERVAL_MOST
    return float(asked) if fits else INTERVAL
