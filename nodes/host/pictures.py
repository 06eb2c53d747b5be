"""Pictures of a run for the graph: from files to IMAGE, and to what the host's page can show."""

from pathlib import Path

import folder_paths
import numpy as np
import torch
from PIL import Image


def read_pictures(files: list[Path]) -> torch.Tensor:
    """PNG files of one size as an IMAGE: float32 [N, H, W, 3] in 0..1."""
    pictures = []
    for path in files:
        with Image.open(path, formats=["PNG"]) as picture:
            pictures.append(torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255))
    return torch.stack(pictures)


def shown(files: list[Path]) -> list[dict[str, str]]:
    """Files in the host's output folder as its page asks for them."""
    root = Path(folder_paths.get_output_directory())
    return [
        {"filename": path.name, "subfolder": path.parent.relative_to(root).as_posix(), "type": "output"}
        for path in files
    ]
