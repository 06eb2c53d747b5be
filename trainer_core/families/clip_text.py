"""A CLIP text encoder with its tokenizer, which makes windows of ids of a caption."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ..errors import BadInput
from . import new_words
from .new_words import NO_WORDS, Vocabulary
from .weights import State, assemble

VOCABULARIES = (("vocab.json", "merges.txt"), ("tokenizer.json",))
"""Files, either of which sets make a tokenizer."""


@dataclass(frozen=True)
class ClipText:
    model: CLIPTextModel | CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer
    penultimate: bool = False
    """Whether the states in front of the last layer are taken."""

    def windows(self, caption: str, words: Vocabulary = NO_WORDS) -> list[list[int]]:
        """The ids of a caption, framed and padded, 75 tokens a window; one window without words for none."""
        pieces = [self.ids(piece) if isinstance(piece, str) else piece for piece in words.pieces(caption)]
        return [self._framed(window) for window in new_words.windows(pieces, self.tokenizer.model_max_length - 2)]

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without a frame."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids

    def _framed(self, ids: list[int]) -> list[int]:
        tokens = self.tokenizer
        window = [tokens.bos_token_id, *ids, tokens.eos_token_id]
        return window + [tokens.pad_token_id] * (tokens.model_max_length - len(window))

    @property
    def layer(self) -> tuple[int, bool]:
        return layer_of(self.penultimate)

    @property
    def weights(self) -> State:
        # Versions of transformers differ in this prefix.
        return {key.removeprefix("text_model."): value for key, value in self.model.state_dict().items()}

    @property
    def settings(self) -> tuple:
        """What changes text states without changing a weight's shape.

        CLIP's own eos_token_id is none of it: it only chooses the pooled state, and where old configurations have it
        wrong transformers takes the end token all the same.
        """
        text, words = self.model.config, self.tokenizer
        return (
            [text.hidden_act, text.num_attention_heads, text.layer_norm_eps],
            [words.bos_token_id, words.eos_token_id, words.pad_token_id, words.model_max_length],
            words.get_vocab(),
        )


def layer_of(penultimate: bool) -> tuple[int, bool]:
    """Whose hidden states are taken, counted from the end, and whether the last norm follows them."""
    return (-2, False) if penultimate else (-1, True)


def clip_text(
    state: State, config: dict, tokenizer: CLIPTokenizer, part: str, where: Path, penultimate: bool, projects: bool
) -> ClipText:
    """The encoder over its weights, float32 and frozen.

    Args:
        part: what the encoder is called in messages, "text_encoder".
        where: where the weights came from.
        projects: whether it has a projection of its pooled state.

    Raises:
        BadInput: weights, configuration and tokenizer do not belong together.
    """
    module_class = CLIPTextModelWithProjection if projects else CLIPTextModel
    read = CLIPTextConfig.from_dict(config)
    _check_tokenizer(tokenizer, read, where)
    fitting = fit_prefix(state, module_class, read)
    return ClipText(
        assemble(module_class, read, fitting, torch.float32, f"the {part} of {where}"), tokenizer, penultimate
    )


def read_tokenizer(folder: Path) -> CLIPTokenizer:
    """
    Raises:
        BadInput: its files cannot be read.
    """
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises nothing more exact
        raise BadInput(
            f"base: {folder} cannot be read as CLIP's tokenizer ({error}); is the download complete?"
        ) from None


def _check_tokenizer(tokenizer: CLIPTokenizer, text_config: CLIPTextConfig, where: Path) -> None:
    """Every id needs its embedding. Tables may be padded to a round length, but are never twice as long: that is the
    tokenizer of another model, whose ids mean other words.

    A tokenizer that does not say how long its windows are takes the text encoder's length.
    """
    tokens, embeddings = len(tokenizer), text_config.vocab_size
    if not embeddings < 2 * tokens <= 2 * embeddings:
        raise BadInput(
            f"base: the tokenizer of {where} has {tokens} tokens and its text encoder {embeddings} embeddings; "
            "they do not belong together"
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, text_config.max_position_embeddings)


def fit_prefix(state: State, module_class: type, config: CLIPTextConfig) -> State:
    """CLIP's keys with or without `text_model.`, as the installed transformers names them."""
    with torch.device("meta"):
        wanted = module_class(config).state_dict()
    prefixed = any(key.startswith("text_model.") for key in wanted)
    bare = {key.removeprefix("text_model."): value for key, value in state.items()}
    outside = {key for key in wanted if not key.startswith("text_model.")}
    return {f"text_model.{key}" if prefixed and key not in outside else key: value for key, value in bare.items()}
