"""Captions: reading them from text files and metadata tables, and what becomes of them in an epoch."""

import csv
import io
import itertools
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from .. import randomness
from . import caption_features
from .config import PLACEHOLDER, DatasetConfig
from .items import Item

CAPTION_MOST = 20_000
"""Characters of a caption; text encoders read far fewer, so a longer one is some other file."""

TEXT_BYTES_MOST = 4 * CAPTION_MOST + 3
TABLE_BYTES_MOST = 256 * 2**20

PREPARED_MOST = 16
"""So many captions of one picture are encoded in advance; where wildcards make more, that is done while training."""


class Row(NamedTuple):
    """One line of a metadata table."""

    line: int
    file_name: str
    text: str


def tidy(text: str) -> str:
    """A caption on one line, with single spaces."""
    return " ".join(text.split())


def decode(data: bytes) -> str:
    """UTF-8 text, with or without a byte order mark.

    Raises:
        ValueError: in words for a person, to be put behind the file's name.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("is UTF-16 text; save it as UTF-8.")
    if b"\0" in data:
        raise ValueError("holds NUL bytes, so it is no UTF-8 text (UTF-16, or no text at all?); save it as UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"is not UTF-8 text (byte 0x{data[error.start]:02x} at {error.start}); save it as UTF-8."
        ) from None


def complaint(text: str) -> str | None:
    """What is wrong with a caption's text; None if nothing is."""
    if "\0" in text:
        return "the caption holds a NUL character; delete it."
    if len(text) > CAPTION_MOST:
        return f"the caption has {len(text):,} characters (at most {CAPTION_MOST:,}); shorten it."
    return None


def read_text(path: Path) -> str:
    """The caption in a text file.

    Raises:
        ValueError: in words for a person, to be put behind the file's name.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(TEXT_BYTES_MOST + 1)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error}).") from None
    if len(data) > TEXT_BYTES_MOST:
        raise ValueError(f"is too large for a caption (at most {CAPTION_MOST:,} characters); shorten it.")
    text = tidy(decode(data))
    wrong = complaint(text)
    if wrong:
        raise ValueError(wrong)
    return text


def read_table(path: Path) -> tuple[list[Row], list[str]]:
    """The rows of a metadata.csv or metadata.jsonl, and what is wrong with the others, to be put behind its name."""
    try:
        with open(path, "rb") as file:
            data = file.read(TABLE_BYTES_MOST + 1)
        if len(data) > TABLE_BYTES_MOST:
            return [], [f"is larger than {TABLE_BYTES_MOST:,} bytes; split the dataset."]
        text = decode(data)
    except OSError as error:
        return [], [f"cannot be read ({error.strerror or error})."]
    except ValueError as error:
        return [], [str(error)]
    if not text.strip():
        return [], ["is empty; write a file_name and a text for each picture."]
    return _jsonl_rows(text) if path.suffix.lower() == ".jsonl" else _csv_rows(text)


def _csv_rows(text: str) -> tuple[list[Row], list[str]]:
    rows, problems = [], []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lined = _with_lines(reader)
    try:
        _, names = next(lined, (0, []))
        columns = [name.strip() for name in names]
        absent = [name for name in ("file_name", "text") if name not in columns]
        if absent:
            return [], [
                f"has no column {' and no column '.join(map(repr, absent))} "
                f"(its first line is {','.join(columns)!r:.200}); the first line must be: file_name,text"
            ]
        places = columns.index("file_name"), columns.index("text")
        for line, fields in lined:
            if len(fields) <= max(places):
                problems.append(f"line {line}: has fewer fields than the first line; write file_name,text.")
            elif len(fields) > len(columns):
                problems.append(
                    f"line {line}: has more fields than the first line; put a caption with commas in double quotes."
                )
            else:
                _add(rows, problems, line, *(fields[place] for place in places))
    except NotCsv as error:
        problems.append(str(error))
    return rows, problems


class NotCsv(ValueError):
    """A row that no reader of CSV understands, with its line."""


def _with_lines(reader) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, with the line that it begins on: a quoted field may have several."""
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise NotCsv(f"line {line}: is not CSV ({error}).") from None
        if fields is None:
            return
        if fields:
            yield line, fields


def _jsonl_rows(text: str) -> tuple[list[Row], list[str]]:
    rows, problems = [], []
    # Not splitlines(): JSON strings may hold line separators such as U+2028 as they are.
    for line, entry in enumerate(text.split("\n"), 1):
        if not entry.strip():
            continue
        try:
            values = json.loads(entry)
        except (ValueError, RecursionError) as error:
            problems.append(f"line {line}: is not JSON ({error}).")
            continue
        if not isinstance(values, dict) or not all(isinstance(values.get(k), str) for k in ("file_name", "text")):
            problems.append(f'line {line}: needs a file_name and a text: {{"file_name": "a.jpg", "text": "a caption"}}')
        else:
            _add(rows, problems, line, values["file_name"], values["text"])
    return rows, problems


def _add(rows: list[Row], problems: list[str], line: int, file_name: str, text: str) -> None:
    text = tidy(text)
    wrong = complaint(text)
    if wrong:
        problems.append(f"line {line}: {wrong}")
    else:
        rows.append(Row(line, file_name.strip(), text))


def fill_missing(caption: str, name: str, config: DatasetConfig) -> str | None:
    """The caption of a picture, where a blank one is replaced as the user asked; None where that is an error.

    Args:
        caption: what was read, "" if there was nothing.
        name: the picture's file name without its ending.
    """
    if caption:
        return caption
    if config.default_caption.strip():
        return tidy(config.default_caption)
    if config.missing_captions == "empty":
        return ""
    if config.missing_captions == "trigger":
        return config.trigger.strip()
    return tidy(name.replace("_", " ")) if config.missing_captions == "name" else None


def complaint_about(caption: str, config: DatasetConfig) -> str | None:
    """What is wrong with what a caption asks for; None if nothing is."""
    if PLACEHOLDER in caption and not config.trigger.strip():
        if config.regularisation:
            return "its caption holds [trigger], but it shows the class (regularisation); take it out."
        return "its caption holds [trigger], but there is no trigger word; set trigger."
    weight = caption_features.weight_in(caption) if config.caption_weights == "error" else None
    if weight:
        return (
            f"its caption holds the prompt weight {weight!r:.80}, which training does not obey; take it out, or set "
            "caption_weights to 'remove' or 'literal'."
        )
    if config.wildcards:
        try:
            caption_features.parsed(caption_features.replaced(caption, config.caption_replace))
        except ValueError as error:
            return f"its caption {error}"
    return None


def fixed_caption(item: Item, config: DatasetConfig) -> str:
    """The caption before anything random, each wildcard's first alternative taken: what validation and static captions
    use."""
    return _whole(_chosen(_templates(item, config), lambda _: 0), config)


def is_live(item: Item, config: DatasetConfig) -> bool:
    """Whether training may show an item with more captions than are prepared, so that they are encoded as they come."""
    if shuffles(item, config):
        return True
    return config.wildcards and math.prod(map(caption_features.combinations, _templates(item, config))) > PREPARED_MOST


def prepared(item: Item, config: DatasetConfig) -> list[str]:
    """Every caption that training may show of an item, but the empty one; none where captions are live."""
    if is_live(item, config):
        return []
    every = itertools.product(*map(caption_features.all_of, _templates(item, config)))
    return list(dict.fromkeys(_whole(Parts(*texts), config) for texts in every))


def written(item: Item, config: DatasetConfig) -> list[str]:
    """Texts that hold every word of the captions that training may show of an item."""
    caption = caption_features.replaced(item.caption, config.caption_replace)
    others = [caption, config.caption_prefix, config.caption_suffix] if config.wildcards else []
    return [fixed_caption(item, config), *others]


def shuffles(item: Item, config: DatasetConfig) -> bool:
    """Whether tags change their places from epoch to epoch."""
    if not config.shuffle_tags:
        return False
    return len(_tags(_chosen(_templates(item, config), lambda _: 0).caption, config)[1]) > 1


def caption_for(item: Item, config: DatasetConfig, seed: int, epoch: int, repeat: int) -> str:
    """The caption that `item` is trained with in one showing; "" where dropout took it."""
    dice = randomness.dice(seed, "caption", epoch, item.key, repeat)
    if _takes(dice, config):
        return ""
    # Dice of their own: wildcards leave what the other settings draw as it was.
    wild = randomness.dice(seed, "wildcards", epoch, item.key, repeat)
    parts = _chosen(_templates(item, config), wild.randrange)
    if config.shuffle_tags:
        kept, moving = _tags(parts.caption, config)
        if len(moving) > 1:
            dice.shuffle(moving)
            parts = parts._replace(caption=", ".join(kept + moving))
    return _whole(parts, config)


def is_dropped(item: Item, config: DatasetConfig, seed: int, epoch: int, repeat: int) -> bool:
    """Whether dropout takes the caption of `item` in one showing, as `caption_for` has it."""
    return _takes(randomness.dice(seed, "caption", epoch, item.key, repeat), config)


def _takes(dice: random.Random, config: DatasetConfig) -> bool:
    return dice.random() < config.caption_dropout


class Parts(NamedTuple):
    """What a caption is put together from."""

    caption: str
    prefix: str
    suffix: str


def _templates(item: Item, config: DatasetConfig) -> list[caption_features.Template]:
    """The caption after replacements, and what stands around it, with wildcards still open."""
    around = [tidy(config.caption_prefix), tidy(config.caption_suffix)]
    if config.caption_weights == "remove":
        around = list(map(caption_features.without_weights, around))
    texts = [caption_features.replaced(item.caption, config.caption_replace), *around]
    return [caption_features.parsed(text) if config.wildcards else (text,) for text in texts]


def _chosen(templates: list[caption_features.Template], choose: Callable[[int], int]) -> Parts:
    return Parts(*(caption_features.chosen(template, choose) for template in templates))


def _tags(text: str, config: DatasetConfig) -> tuple[list[str], list[str]]:
    """Tags that stay in front, the trigger word among them, and tags that move."""
    trigger = config.trigger.strip()
    tags = [tag.strip() for tag in _with_word(text, config).split(",") if tag.strip()]
    kept, rest = tags[: config.keep_tags], tags[config.keep_tags :]
    kept += [tag for tag in rest if caption_features.holds(tag, trigger)]
    return kept, [tag for tag in rest if not caption_features.holds(tag, trigger)]


def _with_word(text: str, config: DatasetConfig) -> str:
    """The text with the trigger word in its placeholder's stead."""
    text = text.replace(PLACEHOLDER, config.trigger.strip())
    return tidy(text) if config.wildcards else text  # an empty alternative leaves two spaces


def _whole(parts: Parts, config: DatasetConfig) -> str:
    """The caption with its trigger word, unless it is there already, between prefix and suffix."""
    caption, prefix, suffix = (_with_word(text, config) for text in parts)
    # An empty caption is meant to be empty: it teaches the unconditional prediction.
    if not caption:
        return caption
    trigger = config.trigger.strip()
    if trigger and not any(caption_features.holds(text, trigger) for text in (caption, prefix, suffix)):
        caption = f"{trigger}, {caption}"
    if prefix:
        caption = f"{prefix} {caption}"
    if suffix:
        caption += suffix if suffix[0] in ",.;:!?" else f" {suffix}"
    return caption
