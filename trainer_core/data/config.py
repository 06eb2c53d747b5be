"""What the user asks of a dataset, and of each of its folders; obeyed by the other modules of this folder."""

import dataclasses
from dataclasses import dataclass

from ..options import option, options_of
from .caption_features import ARROW, parsed, weight_in

SIDE_LEAST, SIDE_MOST = 16, 8192
"""Bounds of a training picture's side, in pixels."""
PLACEHOLDER = "[trigger]"
"""Stands for the trigger word inside a caption, as in ai-toolkit's datasets."""


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
        per_folder=True,
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
        per_folder=True,
    )
    flip: bool = option(
        False,
        help="Mirror half of the views; leave off for faces, text and anything with a left and right",
        per_folder=True,
    )
    colour_jitter: float = option(
        0.0,
        help="Random change of brightness, contrast and saturation (up to half of this, either way) and of hue (up to "
        "a tenth of this, in turns)",
        low=0,
        high=1,
        per_folder=True,
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
        1,
        help="How often an epoch shows each picture; multiplies kohya's folder repeats",
        low=1,
        high=10000,
        per_folder=True,
    )
    trigger: str = option(
        "",
        help="Trigger word: put in front of each caption unless already in it; also replaces [trigger] in captions",
        per_folder=True,
    )
    caption_dropout: float = option(
        0.0,
        help="Share of captions replaced by the empty caption, drawn anew every epoch",
        low=0,
        high=1,
        per_folder=True,
    )
    shuffle_tags: bool = option(
        False,
        help="Shuffle comma-separated tags every epoch; captions are then encoded while training",
        per_folder=True,
    )
    keep_tags: int = option(
        0,
        help="With shuffle_tags: this many first tags stay where they are",
        unit="tags",
        low=0,
        high=1000,
        advanced=True,
        per_folder=True,
    )
    default_caption: str = option(
        "",
        help="Caption of a picture that has none, instead of what missing_captions says; for pictures of a class, "
        "their prompt",
        per_folder=True,
        advanced=True,
    )
    caption_replace: list[str] = option(
        factory=list,
        help='Words to replace in captions, as "old => new": whole words in any case, one after another; '
        "nothing behind the arrow deletes",
        separated=False,
        per_folder=True,
        advanced=True,
    )
    wildcards: bool = option(
        False,
        help="{red|blue} in a caption, its prefix or suffix becomes one of the alternatives, drawn for each showing; "
        "validation and previews take the first",
        per_folder=True,
        advanced=True,
    )
    caption_weights: str = option(
        "error",
        help="Prompt weights in captions, such as (word:1.3), which training does not obey: refuse them (error), take "
        "them away, or train them as they are written (literal)",
        choices=("error", "remove", "literal"),
        per_folder=True,
        advanced=True,
    )
    caption_prefix: str = option(
        "",
        help="Put in front of every caption, before the trigger word; may hold [trigger]",
        per_folder=True,
        advanced=True,
    )
    caption_suffix: str = option(
        "", help="Put behind every caption; may hold [trigger]", per_folder=True, advanced=True
    )
    missing_captions: str = option(
        "error",
        help="A picture without a caption, or with a blank one: refuse it (error), train it with the empty caption, "
        "with the trigger word, or with its file's name as the caption",
        choices=("error", "empty", "trigger", "name"),
        per_folder=True,
    )
    skip_bad: bool = option(
        False,
        help="Leave out files that cannot be used, with a note, instead of refusing to start",
        decides=False,
        per_folder=True,
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

    weight: float = option(
        1.0,
        help="How much each picture counts in the loss, against the other folders' pictures",
        above=0,
        high=1000,
        per_folder=True,
        advanced=True,
    )
    regularisation: bool = option(
        False,
        help="The folder shows the class that the base knows already, to be kept (prior preservation): no trigger "
        "word, never held out, as many showings an epoch as the other pictures have together",
        per_folder=True,
        advanced=True,
    )
    prior_weight: float = option(
        1.0,
        help="How much the pictures of regularisation folders count in the loss (Ruiz et al. 2023, eq. 2)",
        above=0,
        high=1000,
        advanced=True,
    )
    mask: str = option(
        "off",
        help="What of a picture counts in the loss: all of it (off), where it is opaque (alpha), or where a picture of "
        "the same name in the folder of masks is white (folder); grey counts in part",
        choices=("off", "alpha", "folder"),
        per_folder=True,
        advanced=True,
    )
    mask_path: str = option(
        "",
        help="With mask=folder: the folder of the masks, named as the pictures and in the same subfolders",
        decides=False,
        per_folder=True,
        advanced=True,
    )
    mask_floor: float = option(
        0.0,
        help="With a mask: how much counts what it leaves out; 0 = nothing, 1 = as much as the rest",
        low=0,
        high=1,
        per_folder=True,
        advanced=True,
    )
    missing_masks: str = option(
        "error",
        help="A picture without a mask: refuse it (error), or let the whole picture count",
        choices=("error", "whole"),
        per_folder=True,
        advanced=True,
    )
    folders: "list[FolderConfig]" = option(
        factory=list,
        help="More folders, beside path or instead of it, each a table with a path and settings of its own",
        advanced=True,
    )

    def parts(self) -> list["DatasetConfig"]:
        """The settings of each folder, as if it were the only one: path's first, then those of `folders`.

        A regularisation folder has no trigger word, whatever the dataset's is.
        """
        alone = [dataclasses.replace(self, folders=[])] if self.path or not self.folders else []
        return [_without_trigger(part) for part in (*alone, *map(self._of_folder, self.folders))]

    def _of_folder(self, folder: "FolderConfig") -> "DatasetConfig":
        own = {name: getattr(folder, name) for name in PER_FOLDER if getattr(folder, name) is not None}
        return dataclasses.replace(self, path=folder.path, folders=[], **own)

    def folders_decide(self) -> list[dict]:
        """What of `folders` decides the weights: the settings that differ from the dataset's."""
        options = options_of(DatasetConfig)
        deciding = [name for name in PER_FOLDER if options[name].decides]
        return [
            {n: getattr(folder, n) for n in deciding if getattr(folder, n) not in (None, getattr(self, n))}
            for folder in self.folders
        ]

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
        for place, said in ((at, self), *((f"{at}folders[{n}].", folder) for n, folder in enumerate(self.folders))):
            found += _badly_written(place, said)
        if self.path or not self.folders:
            found += self._at_odds(at, self)
        for number, folder in enumerate(self.folders):
            found += self._of_folder(folder)._at_odds(f"{at}folders[{number}].", folder)
        return found

    def _at_odds(self, at: str, said: "DatasetConfig | FolderConfig") -> list[str]:
        """Which of a folder's settings do not go together.

        Args:
            at: what the messages begin with.
            said: what was said of this folder alone, the rest being the dataset's.
        """
        found = []
        no_trigger = self.regularisation or not self.trigger.strip()
        if self.regularisation and said is not self and said.trigger:
            found.append(f"{at}trigger: {said.trigger!r}, but a regularisation folder has none; take one of them out.")
        if said.missing_captions == "trigger" and no_trigger:
            found.append(
                f"{at}missing_captions: 'trigger' needs a trigger word; set {at}trigger, or choose 'empty' or 'name'."
            )
        for name in ("default_caption", "caption_prefix", "caption_suffix"):
            text = getattr(self, name)
            if PLACEHOLDER in text and no_trigger:
                why = "a regularisation folder has none; give it another text." if self.regularisation else "set one."
                found.append(f"{at}{name}: {text!r} holds {PLACEHOLDER}, but there is no trigger word here; {why}")
            weight = weight_in(text) if self.caption_weights == "error" else None
            if weight:
                found.append(
                    f"{at}{name}: {text!r} holds the prompt weight {weight!r}, which training does not obey; take it "
                    f"out, or set {at}caption_weights to 'remove' or 'literal'."
                )
            try:
                parsed(text if self.wildcards else "")
            except ValueError as error:
                found.append(f"{at}{name}: {text!r} {error}")
        for entry in self.caption_replace if self.wildcards else []:
            try:
                parsed(entry.partition(ARROW)[2])
            except ValueError as error:
                found.append(f"{at}caption_replace: {entry!r} {error}")
        if self.mask == "folder" and not self.mask_path.strip():
            found.append(f"{at}mask_path: is empty, but mask is 'folder'; give the folder of the masks.")
        # Without a mask of its own, path may have named a folder of masks for the other folders.
        if said.mask_path and self.mask != "folder" and not (said is self and self.folders):
            found.append(f"{at}mask_path: is given, but mask is {self.mask!r}; set mask to 'folder', or take it out.")
        return found


PER_FOLDER = tuple(
    field.name for field in dataclasses.fields(DatasetConfig) if field.metadata["option"].get("per_folder")
)
"""The settings that a folder can have of its own."""

FolderConfig = dataclasses.make_dataclass(
    "FolderConfig",
    [
        ("path", str, option("", help="The folder, as dataset.path", decides=False)),
        *(
            (field.name, field.type | None, option(None, **field.metadata["option"]))
            for field in dataclasses.fields(DatasetConfig)
            if field.name in PER_FOLDER
        ),
    ],
    kw_only=True,
    namespace={"__doc__": "One of a dataset's folders; what it does not set (None) is as the dataset has it."},
)
FolderConfig.__module__ = __name__


def _without_trigger(part: DatasetConfig) -> DatasetConfig:
    """A regularisation folder shows the class, which the trigger word must not mean."""
    if not part.regularisation:
        return part
    missing = "error" if part.missing_captions == "trigger" else part.missing_captions
    return dataclasses.replace(part, trigger="", missing_captions=missing)


def _badly_written(at: str, said: "DatasetConfig | FolderConfig") -> list[str]:
    """Texts that cannot be used, each by itself."""
    found = []
    for name in ("trigger", "default_caption", "caption_prefix", "caption_suffix"):
        text = getattr(said, name) or ""
        if not text.isprintable():
            found.append(f"{at}{name}: {text!r} has a line break or control character; leave those out.")
    for entry in said.caption_replace or []:
        old, arrow, new = entry.partition(ARROW)
        if not arrow or not old.strip() or ARROW in new or not entry.isprintable():
            found.append(f'{at}caption_replace: {entry!r} is no replacement; write "old => new" on one line.')
    return found
