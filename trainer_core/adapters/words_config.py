"""What the user asks of new words: their names, their size, what they begin as; obeyed by words.py."""

import re
from dataclasses import dataclass

from ..options import option

NAME = re.compile(r"<\w[\w-]*>|\w[\w-]*")
"""A word that can also be a file's name on every system, once the brackets around it are gone."""
LONGEST = 60
"""Letters of a word."""
USUAL_RATE = 5e-3
"""Gal et al. 2022, section 4: the base learning rate of their experiments."""


def stem(name: str) -> str:
    """The file name of a word, without its ending: the word without its brackets, which Windows allows in no name and
    at which ComfyUI's `embedding:` ends one."""
    return name.strip("<>")


@dataclass(kw_only=True)
class WordsConfig:
    """Settings of textual inversion (Gal et al. 2022): new words, for each of which vectors are learned that stand in
    its place where a text encoder looks up its tokens."""

    names: list[str] = option(
        factory=list,
        help="New words that are learned (textual inversion), written as they stand in the captions, such as "
        "<my-cat>; empty = none",
    )
    vectors: int = option(
        1, help="Vectors of each new word: more hold more detail, and take as many tokens of a prompt", low=1, high=16
    )
    start: list[str] = option(
        factory=list,
        help="What the new words begin as: a known word or several (cat), one entry for all or one for each; empty = "
        "random vectors of the usual length",
    )
    learning_rate: float | None = option(
        None,
        help=f"Learning rate of the new words. Empty = {USUAL_RATE:g}, or what an optimiser finds that finds it itself",
        above=0,
        high=1,
        advanced=True,
    )
    weight_decay: float = option(0.0, help="Pull of the new words' vectors towards zero", low=0, high=10, advanced=True)
    alone: bool = option(
        False, help="There is no LoRA, and the model stays as it is: the new words learn alone, or beside a decorator"
    )

    @property
    def learn(self) -> bool:
        """Whether there are any."""
        return bool(self.names)

    @property
    def files(self) -> list[str]:
        """The file names of `names`."""
        return [f"{stem(name)}.safetensors" for name in self.names]

    @property
    def starts(self) -> list[str]:
        """What each of `names` begins as; empty text for random vectors."""
        if not self.start:
            return [""] * len(self.names)
        return [entry.strip() for entry in (self.start * len(self.names) if len(self.start) == 1 else self.start)]

    def problems(self, where: str = "") -> list[str]:
        found = [
            f"{where}.names: {name!r:.80} cannot be a word: it becomes a file's name, too. Write letters, digits, - "
            f"and _, at most {LONGEST}, or such between < and >"
            for name in self.names
            if not NAME.fullmatch(name) or len(name) > LONGEST
        ]
        stems = [stem(name).lower() for name in self.names]
        for number, one in enumerate(stems):
            if one in stems[:number]:
                found.append(
                    f"{where}.names: {self.names[number]} has the file of {self.names[stems.index(one)]} (neither "
                    "brackets nor capitals tell words apart); choose another"
                )
        if self.names and self.start and len(self.start) not in (1, len(self.names)):
            found.append(
                f"{where}.start: has {len(self.start)} entries for {len(self.names)} new words; write one for all, or "
                "one for each"
            )
        return found + (self._idle(where) if not self.names else [])

    def _idle(self, where: str) -> list[str]:
        """Settings that say nothing while there are no new words."""
        said = {
            "vectors": self.vectors if self.vectors != 1 else None,
            "start": ", ".join(self.start) or None,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay or None,
            "alone": "on" if self.alone else None,
        }
        return [
            f"{where}.{key}: {value}, but there are no new words; name some in {where}.names, or leave it as it was"
            for key, value in said.items()
            if value is not None
        ]
