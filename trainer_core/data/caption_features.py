"""What a caption's own words may ask for: replacements, wildcards, prompt weights."""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator

ARROW = "=>"
"""Between what a replacement finds in captions and what it puts there."""
DEEPEST = 10
"""Levels of wildcards within wildcards."""
WORD = r"[A-Za-z0-9_]"
"""What joins words: "sks" is not in "masks", 狗 is in 一只狗."""

Template = tuple["str | tuple[Template, ...]", ...]
"""A caption with wildcards: its texts in order, and for each wildcard its alternatives, which are templates again."""

_WEIGHT = re.compile(
    r"(?<!\\)(?:\((?P<round>[^()]*):\s*[-+]?[\d.]*\d\s*\)|\[(?P<square>[^\[\]]*):\s*[-+]?[\d.]*\d\s*\])"
)


def holds(text: str, words: str) -> bool:
    """Whether words occur in a text as words, in any case."""
    return bool(words) and bool(re.search(_as_words(words), text, re.IGNORECASE))


def _as_words(words: str) -> str:
    return rf"(?<!{WORD}){re.escape(words)}(?!{WORD})"


# ---- replacements


def replaced(text: str, replacements: Iterable[str]) -> str:
    """The text after each "old => new", one after another; whole words in any case.

    A replacement by nothing takes the tag with it, where no word is left of it.
    """
    for entry in replacements:
        old, _, new = (part.strip() for part in entry.partition(ARROW))
        text = re.sub(_as_words(old), lambda _, new=new: new, text, flags=re.IGNORECASE)
        if not new:
            text = " ".join(text.split())
            text = re.sub(r"\s*,(?:\s*,)*", ",", text).strip(", ")
    return text


# ---- prompt weights


def weight_in(text: str) -> str | None:
    """The first prompt weight in a caption, as it is written: (word:1.3) or [word:0.5]; None where there is none.

    There must be a letter before the colon: (16:9) and (10:30) are no weights, and neither is the bare parenthesis of
    tags such as "hatsune miku (vocaloid)".
    """
    return next((found[0] for found in _WEIGHT.finditer(text) if _weighted(found) != found[0]), None)


def without_weights(text: str) -> str:
    """The text with what was weighted, and without its parentheses and weights."""
    while (plain := _WEIGHT.sub(_weighted, text)) != text:
        text = plain
    return text


def _weighted(found: re.Match) -> str:
    """What a weight stands around; all that was found where it is no weight."""
    words = found["round"] if found["square"] is None else found["square"]
    return words.strip() if any(letter.isalpha() for letter in words) else found[0]


# ---- wildcards


def parsed(text: str) -> Template:
    """A caption in which {a|b} stands for one of its alternatives; they may hold wildcards again.

    Raises:
        ValueError: in words for a person, to be put behind what names the caption.
    """
    template, end = _template(text, 0, 0)
    if end < len(text):
        raise ValueError(f"closes a wildcard that is not open (before {text[end:][:20]!r}).")
    return template


def _template(text: str, start: int, depth: int) -> tuple[Template, int]:
    """What stands from `start` to the end, or inside a wildcard to its next `|` or `}`; and where that is."""
    if depth > DEEPEST:
        raise ValueError(f"has wildcards within wildcards, more than {DEEPEST} deep.")
    parts: list = []
    stops = "{|}" if depth else "{}"
    while start < len(text):
        end = next((n for n in range(start, len(text)) if text[n] in stops), len(text))
        if end > start:
            parts.append(text[start:end])
        start = end
        if start == len(text) or text[start] != "{":
            break
        alternatives = []
        while start < len(text) and text[start] in "{|":
            alternative, start = _template(text, start + 1, depth + 1)
            alternatives.append(alternative)
        if start == len(text):
            raise ValueError("opens a wildcard that is not closed; write {one|other}.")
        parts.append(tuple(alternatives))
        start += 1
    return tuple(parts), start


def chosen(template: Template, choose: Callable[[int], int]) -> str:
    """The caption where `choose(count)` says which alternative of each wildcard is taken, from 0."""
    return "".join(part if isinstance(part, str) else chosen(part[choose(len(part))], choose) for part in template)


def combinations(template: Template) -> int:
    """How many captions a template stands for."""
    count = 1
    for part in template:
        count *= 1 if isinstance(part, str) else sum(combinations(alternative) for alternative in part)
    return count


def all_of(template: Template) -> Iterator[str]:
    """Every caption that a template stands for."""
    choices = [[part] if isinstance(part, str) else [text for one in part for text in all_of(one)] for part in template]
    return map("".join, itertools.product(*choices))
