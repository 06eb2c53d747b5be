"""Captions: reading them from text files and metadata tables, and what becomes of them in an epoch."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .. import randomness
from .config import DatasetConfig
from .items import Item

CAPTION_MOST = 20_000
"""Characters of a caption; text encoders read far fewer, so a longer one is some other file."""

TEXT_BYTES_MOST = 4 * CAPTION_MOST + 3
TABLE_BYTES_MOST = 256 * 2**20

PLACEHOLDER = "[trigger]"
"""Stands for the trigger word inside a caption, as in ai-toolkit's datasets."""


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
    if caption or config.missing_captions == "empty":
        return caption
    if config.missing_captions == "trigger":
        return config.trigger.strip()
    return tidy(name.replace("_", " ")) if config.missing_captions == "name" else None


def fixed_caption(item: Item, config: DatasetConfig) -> str:
    """The caption with its trigger word, before anything random: what validation and static captions use."""
    return _with_trigger(item.caption.replace(PLACEHOLDER, config.trigger.strip()), config.trigger.strip())


def shuffles(item: Item, config: DatasetConfig) -> bool:
    """Whether the caption differs from epoch to epoch by more than dropout."""
    return config.shuffle_tags and len(_tags(item, config)[1]) > 1


def caption_for(item: Item, config: DatasetConfig, seed: int, epoch: int, repeat: int) -> str:
    """The caption that `item` is trained with in one showing; "" where dropout took it."""
    dice = randomness.dice(seed, "caption", epoch, item.key, repeat)
    if dice.random() < config.caption_dropout:
        return ""
    if not shuffles(item, config):
        return fixed_caption(item, config)
    kept, moving = _tags(item, config)
    dice.shuffle(moving)
    return _with_trigger(", ".join(kept + moving), config.trigger.strip())


def _tags(item: Item, config: DatasetConfig) -> tuple[list[str], list[str]]:
    """Tags that stay in front, the trigger word among them, and tags that move."""
    trigger = config.trigger.strip()
    tags = [tag.strip() for tag in item.caption.replace(PLACEHOLDER, trigger).split(",") if tag.strip()]
    kept, rest = tags[: config.keep_tags], tags[config.keep_tags :]
    kept += [tag for tag in rest if _holds(tag, trigger)]
    return kept, [tag for tag in rest if not _holds(tag, trigger)]


def _with_trigger(caption: str, trigger: str) -> str:
    # An empty caption is meant to be empty: it teaches the unconditional prediction.
    if not trigger or not caption or _holds(caption, trigger):
        return caption
    return f"{trigger}, {caption}"


def _holds(text: str, trigger: str) -> bool:
    """Whether the trigger occurs as a word. Only ASCII letters join words: "sks" is not in "masks", 狗 is in 一只狗."""
    word = r"[A-Za-z0-9_]"
    return bool(trigger) and bool(re.search(rf"(?<!{word}){re.escape(trigger)}(?!{word})", text, re.IGNORECASE))
