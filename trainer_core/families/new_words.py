"""New words in captions: where they stand in a text, and the ids that they have among a tokenizer's."""

import re
from collections.abc import Iterator, Mapping, Sequence

TOGETHER = 8
"""Tokens of a piece from which on it may be torn between two windows; shorter ones are kept whole (ComfyUI's number, so
that a caption means there what it meant in training)."""


class Vocabulary:
    """New words and their ids.

    Ids are counted down from -1: what stands behind a tokenizer's vocabulary may be an embedding all the same (tables
    are padded to round lengths), and where old configurations have the wrong end token, transformers takes the highest
    id of a caption for it.

    Args:
        vectors: how many each word has, by word.
    """

    def __init__(self, vectors: Mapping[str, int] | None = None):
        self.vectors = dict(vectors or {})
        self._ids: dict[str, list[int]] = {}
        taken = 0
        for name, count in self.vectors.items():
            self._ids[name.lower()] = list(range(-taken - 1, -taken - count - 1, -1))
            taken += count
        # The longest first: of two words that begin alike the shorter would hide the other.
        longest = sorted(self.vectors, key=len, reverse=True)
        self._words = re.compile("|".join(map(bounded, longest)), re.IGNORECASE) if longest else None

    def __bool__(self) -> bool:
        return bool(self.vectors)

    def pieces(self, text: str) -> Iterator[str | list[int]]:
        """A text in its order: what stands between new words, and the ids of each new word.

        Capitals do not tell words apart, as in CLIP's own vocabulary.
        """
        at = 0
        for found in self._words.finditer(text) if self._words else ():
            if text[at : found.start()].strip():
                yield text[at : found.start()]
            yield self._ids[found[0].lower()]
            at = found.end()
        if text[at:].strip():
            yield text[at:]

    def held(self, text: str) -> set[str]:
        """The new words that stand in a text."""
        found = {match[0].lower() for match in self._words.finditer(text)} if self._words else set()
        return {name for name in self.vectors if name.lower() in found}


NO_WORDS = Vocabulary()


def bounded(name: str) -> str:
    """A pattern by which a word is none within a longer one; brackets are bounds themselves."""
    before, after = (r"(?<!\w)" if name[0] != "<" else ""), (r"(?!\w)" if name[-1] != ">" else "")
    return before + re.escape(name) + after


def windows(pieces: Sequence[list[int]], room: int) -> list[list[int]]:
    """Pieces of token ids as windows of at most `room`; one empty window for none.

    A short piece that a window has no room for begins the next one.
    """
    made: list[list[int]] = [[]]
    for piece in pieces:
        left = list(piece)
        while left:
            free = room - len(made[-1])
            if len(left) > free and len(piece) < TOGETHER and made[-1]:
                made.append([])
                continue
            made[-1] += left[:free]
            left = left[free:]
            if left:
                made.append([])
    return made
