"""Pictures and captions that a page sends: checked under a temporary name, and only then part of a dataset."""

import contextlib
import os
import re
import secrets
from pathlib import Path

from ...trainer_core.data import captions
from ...trainer_core.data.pictures import ENDINGS, check_picture
from ...trainer_core.data.walk import CAPTION_ENDINGS
from ...trainer_core.files import PARTIAL
from .paths import NAME

RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Names that mean devices on Windows."""


def is_picture(name: str) -> bool:
    """By its ending alone."""
    return name.lower().endswith(ENDINGS)


class AlreadyThere(ValueError):
    """Another file of that name is in the dataset, in words for a person."""

    def __init__(self):
        super().__init__("is there already; rename it, or replace that one.")


class Upload:
    """One file on its way into a folder.

    Raises:
        ValueError: a file of this name is not taken, in words for a person.
    """

    def __init__(self, folder: Path, name: str, replace: bool):
        fits = re.fullmatch(rf"{NAME}{{1,120}}", name) and name.strip(". ") == name and not RESERVED.fullmatch(name)
        if not fits:
            raise ValueError("cannot be a file's name everywhere; rename it.")
        if not name.lower().endswith((*ENDINGS, *CAPTION_ENDINGS)):
            raise ValueError("is neither a picture (.jpg, .jpeg, .png, .webp, .bmp, .avif) nor a caption (.txt).")
        self.path, self._replace = folder / name, replace
        if not replace and self.path.exists():
            raise AlreadyThere
        folder.mkdir(parents=True, exist_ok=True)
        self._partial = folder / PARTIAL.replace("*", secrets.token_hex(8))
        self._file = open(self._partial, "xb")
        self.size = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)

    def finish(self) -> None:
        """Puts the file under its name.

        Raises:
            ValueError: it is not what its name says, or another of that name is there; in words for a person.
        """
        self._file.close()
        if is_picture(self.path.name):
            check_picture(str(self._partial))
        else:
            captions.read_text(self._partial)
        if self._replace:
            os.replace(self._partial, self.path)
            return
        try:
            os.link(self._partial, self.path)  # which refuses where a file of that name has come meanwhile
        except FileExistsError:
            raise AlreadyThere from None
        except OSError:  # a file system without links
            if self.path.exists():
                raise AlreadyThere from None
            os.replace(self._partial, self.path)

    def close(self) -> None:
        """Leaves nothing behind but a file that is finished."""
        self._file.close()
        with contextlib.suppress(OSError):
            self._partial.unlink()
