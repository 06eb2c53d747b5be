"""New words that learn: whether they can, what they begin as, and putting them into a model's text encoders."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from .. import randomness
from ..adapters import lora, words
from ..adapters.words_config import WordsConfig
from ..errors import BadInput
from ..families.base import Encoder, Model
from ..families.new_words import NO_WORDS, Vocabulary
from ..lora_file.words import Word

Words = Mapping[str, Mapping[str, torch.Tensor]]
"""Vectors, float32 [n, width], by word and by text encoder ("te")."""


def check(model: Model, config: WordsConfig) -> None:
    """
    Raises:
        BadInput: the base's text encoders cannot learn, a word is none that is new, or one begins as more than it
            can hold; with every problem at once.
    """
    if not config.learn:
        return
    if not model.encoder.text_encoders:
        raise BadInput(
            f"words.names: {', '.join(config.names)}, but the text encoders of {model.family.title} do not learn here; "
            "leave it empty"
        )
    problems = []
    for name, start in zip(config.names, config.starts, strict=True):
        if any(len(ids) == 1 for ids in model.encoder.ids(name).values()):
            problems.append(
                f"words.names: {name!r} is a word that the text encoder knows already, so it would lose what it means; "
                f"choose another, such as <{name.strip('<>')}-1>"
            )
        count = max(map(len, model.encoder.ids(start).values()))
        if count > config.vectors:
            problems.append(
                f"words.start: {start!r} is {count} tokens, but words.vectors is {config.vectors}; set words.vectors "
                f"to {count} or more, or choose fewer or commoner words"
            )
        elif start and not count:
            problems.append(f"words.start: {start!r} is no word to the text encoder; choose another")
    if problems:
        raise BadInput(*problems)


def check_captions(config: WordsConfig, captions: Iterable[str]) -> None:
    """
    Args:
        captions: every text that training may show.

    Raises:
        BadInput: a new word stands in none of them, so it would not learn.
    """
    vocabulary, missing = vocabulary_of(config), set(config.names)
    for caption in captions:
        missing -= vocabulary.held(caption)
        if not missing:
            return
    if missing:
        raise BadInput(
            *(
                f"words.names: {name} stands in no caption, so it would learn nothing; write it into the captions, or "
                "set dataset.trigger to it, which puts it into each"
                for name in config.names
                if name in missing
            )
        )


def vocabulary_of(config: WordsConfig) -> Vocabulary:
    return Vocabulary(dict.fromkeys(config.names, config.vectors)) if config.learn else NO_WORDS


def put(model: Model, config: WordsConfig, seed: int) -> None:
    """New words, as they begin, into all text encoders, and into what cuts captions into tokens; their vectors alone
    train in the model."""
    if not config.learn:
        return
    for part in model.parts.values():
        if not lora.layers(part.module):
            part.module.requires_grad_(False)
    begun = {name: _begun(model.encoder, name, config, seed) for name in model.encoder.text_encoders}
    put_finished(model, {word: {part: begun[part][word] for part in begun} for word in config.names})
    for encoder in model.encoder.text_encoders.values():
        for rows in words.parameters(encoder).values():
            rows.requires_grad_(True)


def put_finished(model: Model, held: Words) -> None:
    """Finished words into a model, frozen."""
    for name, encoder in model.encoder.text_encoders.items():
        words.put(encoder, {word: vectors[name] for word, vectors in held.items()})
        for rows in words.parameters(encoder).values():
            rows.requires_grad_(False)
    model.encoder.words = Vocabulary({word: len(next(iter(vectors.values()))) for word, vectors in held.items()})


def put_read(model: Model, read: Iterable[Word]) -> None:
    """Words from files into a model, frozen; of several with one name the last counts.

    Raises:
        BadInput: a word is of other text encoders.
    """
    held = {word.name: word for word in read}
    widths = {part: words.table_of(module).embedding_dim for part, module in model.encoder.text_encoders.items()}
    for word in held.values():
        found = {part: rows.shape[-1] for part, rows in word.vectors.items()}
        if found != widths:
            raise BadInput(
                f"the new word {word.name} is of another model: its vectors are {_told(found)}, the embeddings of "
                f"{model.name} are {_told(widths) or 'none that words can join'}"
            )
    if held:
        put_finished(model, {name: word.vectors for name, word in held.items()})


def _told(widths: Mapping[str, int]) -> str:
    return " and ".join(f"{width} wide ({part})" for part, width in widths.items())


def remove(model: Model) -> None:
    """Takes them out of both."""
    for encoder in model.encoder.text_encoders.values():
        words.remove(encoder)
    model.encoder.words = NO_WORDS


def parameters(model: Model) -> dict[str, nn.Parameter]:
    """The vectors, float32 [n, width], by name: te.words.<word>."""
    return {
        f"{part}.{name}": rows
        for part, encoder in model.encoder.text_encoders.items()
        for name, rows in words.parameters(encoder).items()
    }


def extract(model: Model) -> dict[str, dict[str, torch.Tensor]]:
    """What each word holds, fp32 copies on the CPU, by word and by text encoder."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, encoder in model.encoder.text_encoders.items():
        for word, rows in words.extract(encoder).items():
            found.setdefault(word, {})[name] = rows
    return found


def _begun(encoder: Encoder, part: str, config: WordsConfig, seed: int) -> dict[str, torch.Tensor]:
    """The vectors that each word begins with in one text encoder, float32 [n, width]."""
    table = words.table_of(encoder.text_encoders[part])
    found = {}
    for name, start in zip(config.names, config.starts, strict=True):
        if start:
            ids = encoder.ids(start)[part]
            # Several are repeated, in their order, as sd-scripts does.
            rows = torch.tensor([ids[n % len(ids)] for n in range(config.vectors)], device=table.weight.device)
            found[name] = table.weight.detach()[rows].float()
            continue
        drawn = torch.randn(
            config.vectors, table.embedding_dim, generator=randomness.generator(seed, "new word", part, name)
        )
        found[name] = drawn / drawn.norm(dim=1, keepdim=True) * words.usual_length(table)
    return found
