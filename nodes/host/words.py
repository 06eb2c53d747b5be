"""New words in the host's CLIP: prompts hold them as they held them in training, by the host's own embeddings."""

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import comfy.sd1_clip

from ...trainer_core.families.new_words import Vocabulary, bounded, windows
from ...trainer_core.lora_file.safe_io import write_tensors
from ...trainer_core.lora_file.words import Word, to_tensors
from ..edges import digest_of
from . import paths

ATTRIBUTE = "scion_words"
"""Under this name a tokenizer that has new words carries what they are."""
PREFIX = "embedding:"
"""What the host's prompts write before the name of an embedding."""


@dataclass(frozen=True)
class Applied:
    """New words in a tokenizer of the host."""

    tokenizer: object
    """The one without them."""
    files: dict[str, Path]
    """By word."""


def with_words(clip, words: Iterable[Word]):
    """A CLIP that knows new words, too; the one that came in is not changed.

    Prompts write a word as the captions did, or as they would if it were in the host's embeddings folder.
    """
    before = getattr(clip.tokenizer, ATTRIBUTE, Applied(clip.tokenizer, {}))
    files = before.files | {word.name: _written(word) for word in words}
    made = clip.clone()
    made.tokenizer = _tokenizer(before.tokenizer, files)
    return made


def applied_to(clip) -> dict[str, str]:
    """The new words in a CLIP and what tells their vectors from others, by word."""
    applied = getattr(clip.tokenizer, ATTRIBUTE, None)
    return {name: path.stem for name, path in applied.files.items()} if applied else {}


def framed(tokenizer: comfy.sd1_clip.SDTokenizer, caption: str, vocabulary: Vocabulary) -> list[list[int]]:
    """The windows of ids that the host would make of a caption whose new words are embeddings: framed and padded, with
    the ids that the words have in the engine."""
    pieces = [ids_of(tokenizer, piece) if isinstance(piece, str) else piece for piece in vocabulary.pieces(caption)]
    made = []
    for window in windows(pieces, tokenizer.max_length - 2):
        whole = [tokenizer.start_token, *window, tokenizer.end_token]
        made.append(whole + [tokenizer.pad_token] * (tokenizer.max_length - len(whole)))
    return made


def ids_of(tokenizer: comfy.sd1_clip.SDTokenizer, text: str) -> list[int]:
    """The tokens of a text, without a frame; weights are none."""
    plain = comfy.sd1_clip.unescape_important(comfy.sd1_clip.escape_important(text))
    return tokenizer.tokenizer(plain)["input_ids"][1:-1]


def _written(word: Word) -> Path:
    """A word's file under a name that no other embedding has: of several of one name the host takes any."""
    tensors = to_tensors(word.vectors)
    name = re.sub(r"[^\w-]", "", word.name)
    path = paths.runs() / "words" / f"scion-{digest_of(tensors)[:16]}-{name}.safetensors"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, tensors, word.metadata)
    return path


def _tokenizer(tokenizer, files: dict[str, Path]):
    """A copy of a tokenizer that looks for embeddings where the files are, too, and writes words in their names."""
    made = copy.copy(tokenizer)
    folders = sorted({str(path.parent) for path in files.values()})
    for name, part in vars(tokenizer).items():
        if isinstance(part, comfy.sd1_clip.SDTokenizer):
            own = copy.copy(part)
            before = part.embedding_directory or []
            own.embedding_directory = [*([before] if isinstance(before, str) else before), *folders]
            setattr(made, name, own)
    own_call, names = made.tokenize_with_weights, _names(files)
    pattern = re.compile("|".join(sorted(map(_pattern, names), key=len, reverse=True)), re.IGNORECASE)

    def tokenize_with_weights(text, *given, **named):
        # Between spaces the host tells where a name ends.
        written = pattern.sub(lambda found: f" {PREFIX}{names[found[0].lower()]} ", text)
        return own_call(written, *given, **named)

    made.tokenize_with_weights = tokenize_with_weights
    setattr(made, ATTRIBUTE, Applied(tokenizer, files))
    return made


def _names(files: dict[str, Path]) -> dict[str, str]:
    """What prompts may write, in small letters, and the name of the embedding."""
    found = {}
    for name, path in files.items():
        found |= {name.lower(): path.stem, f"{PREFIX}{name.strip('<>').lower()}": path.stem}
    return found


def _pattern(name: str) -> str:
    if name.startswith(PREFIX):  # of a file, whose name may be longer
        return rf"(?<!\w){re.escape(name)}(?![\w-])"
    return bounded(name)
