"""The catalogue of a dataset that pages look at: its listing, and what was found out of its pictures so far."""

import contextlib
import math
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from .config import DatasetConfig
from .layout import Found, Listing, list_folder
from .pictures import Checked, check_picture
from .prefetch import prefetch
from .scan_index import scan_index
from .walk import Stamp

LISTED_FOR = 10.0
"""Seconds for which a listing holds: pages that are scrolled through ask for it many times a second."""
CATALOGUES = 4
THREADS = 2
"""Pictures that are opened at a time: training may go on beside it."""


class Catalogue:
    """What is known of one dataset; several threads may ask.

    Args:
        folder: of the pictures.
        captions: where these come from: "auto", "metadata" or "files".
        cache: the folder where scans keep what they found out about files; None = nowhere.
    """

    def __init__(self, folder: Path, captions: str, cache: Path | None):
        self._root, self._cache = folder.resolve(), cache
        self._config = DatasetConfig(path=str(folder), captions=captions)
        self._listing, self._listed = Listing(), -math.inf
        self._facts: dict[str, tuple[Stamp, Checked | str]] = {}
        self._lists, self._looks = threading.Lock(), threading.Lock()

    def listing(self) -> Listing:
        """Every picture with its caption, sorted by key, as it was at most `LISTED_FOR` seconds ago."""
        with self._lists:
            if time.monotonic() - self._listed > LISTED_FOR:
                self._listed = time.monotonic()  # beforehand: what is changed meanwhile outdates the new listing, too
                try:
                    self._list()
                except BaseException:  # half a listing must not hold for the next who asks
                    self.outdate()
                    raise
            return self._listing

    def _list(self) -> None:
        with scan_index(self._cache) as index:
            self._listing = list_folder(self._root, self._config, index)
        told = {found.key: self._still_true(found) for found in self._listing.found}
        self._facts = {key: facts for key, facts in told.items() if facts}

    def _still_true(self, found: Found) -> tuple[Stamp, Checked | str] | None:
        if found.known:
            return found.picture.stamp, found.known
        told = self._facts.get(found.key)
        return told if told and told[0] == found.picture.stamp else None

    def outdate(self) -> None:
        """Files were changed: the next look lists them anew. What is known of unchanged pictures stays."""
        self._listed = -math.inf

    def known(self, found: Found) -> Checked | str | None:
        """What a check of a picture found, or why it cannot be used; None where it was not opened yet."""
        told = self._facts.get(found.key)
        return told[1] if told else None

    def check(self, pictures: Iterable[Found], seconds: float = math.inf) -> None:
        """Opens those pictures that are not known yet, until the time is over."""
        unknown = [found for found in pictures if found.key not in self._facts]
        until = time.monotonic() + seconds
        with scan_index(self._cache if unknown else None) as index:
            with contextlib.closing(prefetch(_checked, unknown, THREADS)) as results:
                for found, told in zip(unknown, results, strict=True):
                    self._facts[found.key] = found.picture.stamp, told
                    if isinstance(told, Checked):
                        index.keep(found.picture, told)
                    if time.monotonic() > until:
                        break

    def look_ahead(self, seconds: float) -> None:
        """Checks some of the others, unless somebody does so already."""
        if self._looks.acquire(blocking=False):
            try:
                self.check(self.listing().found, seconds)
            finally:
                self._looks.release()


_kept: dict[tuple[Path, str, Path | None], Catalogue] = {}
_keeping = threading.Lock()


def catalogue_of(folder: Path, captions: str, cache: Path | None) -> Catalogue:
    """The one that this process keeps of a dataset, among those that were asked for last."""
    key = folder, captions, cache
    with _keeping:
        catalogue = _kept.pop(key, None) or Catalogue(*key)
        _kept[key] = catalogue
        for oldest in list(_kept)[:-CATALOGUES]:
            del _kept[oldest]
    return catalogue


def outdate_all() -> None:
    """Files of some dataset were changed. It may lie in another, so each is listed anew when it is asked for."""
    with _keeping:
        for catalogue in _kept.values():
            catalogue.outdate()


def _checked(found: Found) -> Checked | str:
    try:
        return check_picture(found.picture.path)
    except ValueError as error:
        return str(error)
