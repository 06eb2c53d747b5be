"""What the user asks of a dataset: one dataclass, obeyed by the other modules of this folder."""

from dataclasses import dataclass

from ..options import option

SIDE_LEAST, SIDE_MOST = 16, 8192
"""Bounds of a training picture's side, in pixels."""


@dataclass(kw_only=True)
class DatasetConfig:
    """Settings of a dataset of pictures with captions; every combination that `problems` lets through works."""

    path: str = option(
        "",
        help="Folder of pictures with captions: same-named .txt files, metadata.csv or metadata.jsonl (file_name, "
        "text), kohya's <repeats>_<name> folders, or any of these in subfolders",
        decides=False,
    )
    captions: str = option(
        "auto",
        help="Where captions come from: metadata.csv or .jsonl where there is one and same-named text files otherwise "
        "(auto), or only one of the two",
        choices=("auto", "metadata", "files"),
        advanced=True,
    )
    resolution: int = option(
        0,
        help="Side of the training pictures (their area is its square); 0 = the base's own",
        unit="pixels",
        low=0,
        high=8192,
    )
    width: int = option(
        0,
        help="With height: one fixed size, used instead of resolution and buckets; 0 = off",
        unit="pixels",
        low=0,
        high=8192,
        advanced=True,
    )
    height: int = option(
        0,
        help="With width: one fixed size, used instead of resolution and buckets; 0 = off",
        unit="pixels",
        low=0,
        high=8192,
        advanced=True,
    )
    buckets: bool = option(
        True, help="Group pictures by aspect ratio, so that little is cropped; off = every picture becomes a square"
    )
    bucket_step: int = option(
        0,
        help="Sides of buckets are multiples of this; 0 = the smallest step that the base allows",
        unit="pixels",
        low=0,
        high=1024,
        advanced=True,
    )
    crop: str = option(
        "center",
        help="Where a picture is cut to its bucket; random draws the place anew for every view",
        choices=("center", "random"),
    )
    flip: bool = option(
        False, help="Mirror half of the views; leave off for faces, text and anything with a left and right"
    )
    colour_jitter: float = option(
        0.0,
        help="Random change of brightness, contrast and saturation (up to half of this, either way) and of hue (up to "
        "a tenth of this, in turns)",
        low=0,
        high=1,
    )
    variants: int = option(
        4,
        help="How many views of a picture are prepared where the crop is random or colours jitter; 0 = a fresh view "
        "every epoch, for which the encoder stays in memory",
        unit="views",
        low=0,
        high=1000,
        advanced=True,
    )
    repeats: int = option(
        1, help="How often an epoch shows each picture; multiplies kohya's folder repeats", low=1, high=10000
    )
    trigger: str = option(
        "", help="Trigger word: put in front of each caption unless already in it; also replaces [trigger] in captions"
    )
    caption_dropout: float = option(
        0.0, help="Share of captions replaced by the empty caption, drawn anew every epoch", low=0, high=1
    )
    shuffle_tags: bool = option(
        False, help="Shuffle comma-separated tags every epoch; captions are then encoded while training"
    )
    keep_tags: int = option(
        0,
        help="With shuffle_tags: this many first tags stay where they are",
        unit="tags",
        low=0,
        high=1000,
        advanced=True,
    )
    missing_captions: str = option(
        "error",
        help="A picture without a caption, or with a blank one: refuse it (error), train it with the empty caption, "
        "with the trigger word, or with its file's name as the caption",
        choices=("error", "empty", "trigger", "name"),
    )
    skip_bad: bool = option(
        False, help="Leave out files that cannot be used, with a note, instead of refusing to start", decides=False
    )
    holdout: int = option(
        0, help="Pictures kept out of training, to measure the validation loss on", unit="pictures", low=0, high=100000
    )
    cache: str = option(
        "memory",
        help="Where encoded pictures and captions are kept; off = encode again at every step. Results are the same",
        choices=("memory", "disk", "off"),
        decides=False,
    )
    cache_path: str = option(
        "", help="With cache=disk: its folder; empty = .cache/scion/encoded in your home", decides=False, advanced=True
    )
    cache_limit_gb: float = option(
        50.0,
        help="Largest size of the cache; on disk the entries unused for longest are deleted, never those of this run; "
        "0 = no limit",
        unit="GB",
        low=0,
        high=100000,
        decides=False,
        advanced=True,
    )
    workers: int = option(
        2,
        help="Threads that read and prepare pictures ahead: while encoding, and on a GPU while training; 0 = none",
        unit="threads",
        low=0,
        high=64,
        decides=False,
        advanced=True,
    )

    def problems(self, where: str = "") -> list[str]:
        """What no single field can say, one sentence each.

        Args:
            where: dotted path of this part in the recipe, for the messages.
        """
        at = f"{where}." if where else ""
        found = []
        for name in ("resolution", "width", "height"):
            value = getattr(self, name)
            if 0 < value < SIDE_LEAST:
                found.append(f"{at}{name}: {value} is out of range: 0 (off), or {SIDE_LEAST} to {SIDE_MOST} pixels")
        if bool(self.width) != bool(self.height):
            found.append(
                f"{at}width, {at}height: {self.width} and {self.height}; a fixed size needs both. "
                "Give both, or 0 for both to use the resolution."
            )
        elif self.width and self.resolution:
            found.append(
                f"{at}resolution: {self.resolution} together with the fixed size {self.width}×{self.height}; "
                "set one of them to 0."
            )
        if self.missing_captions == "trigger" and not self.trigger.strip():
            found.append(
                f"{at}missing_captions: 'trigger' needs a trigger word; set {at}trigger, or choose 'empty' or 'name'."
            )
        if not self.trigger.isprintable():
            found.append(f"{at}trigger: {self.trigger!r} has a line break or control character; leave those out.")
        return found
