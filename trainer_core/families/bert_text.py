"""A BERT text encoder with its tokenizer: captions of one length, as its last states."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizer

from ..errors import BadInput
from .weights import State, assemble

log = logging.getLogger(__name__)

VOCABULARIES = (("vocab.txt",), ("tokenizer.json",))
"""Files, either of which makes a tokenizer."""
UNUSED = ("pooler.", "cls.", "embeddings.position_ids", "embeddings.token_type_ids")
"""Beginnings of weights that old files have beside those of the states."""


@dataclass(frozen=True)
class BertText:
    model: BertModel
    tokenizer: BertTokenizer
    length: int
    """Tokens of every caption, the two that frame it included: shorter ones are padded, longer ones cut."""
    title: str
    """Whose it is, for messages."""

    def tokens(self, caption: str) -> tuple[list[int], list[int]]:
        """Ids and which of them are words (1) or padding (0), both of `length`; a caption that is cut is said."""
        count = len(self.tokenizer(caption, verbose=False).input_ids)
        if count > self.length:
            log.warning(
                "caption %r has %d tokens; the first text encoder of %s reads %d, the rest only the second one does",
                f"{caption[:60]}…",
                count,
                self.title,
                self.length,
            )
        told = self.tokenizer(caption, padding="max_length", max_length=self.length, truncation=True)
        return told.input_ids, told.attention_mask

    @torch.no_grad()
    def states(self, caption: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The last states, float32 [length, width], and the mask of words, int64 [length]; on the CPU. Words see words
        alone."""
        ids, words = (torch.tensor([row]) for row in self.tokens(caption))
        place = self.model.device
        states = self.model(input_ids=ids.to(place), attention_mask=words.to(place)).last_hidden_state
        return states[0].float().cpu(), words[0]

    @property
    def settings(self) -> tuple:
        """What changes states without changing a weight's shape."""
        config, words = self.model.config, self.tokenizer
        lower = getattr(words, "do_lower_case", True)
        return (
            [config.hidden_act, config.num_attention_heads, config.layer_norm_eps],
            [self.length, lower, words.cls_token_id, words.sep_token_id, words.pad_token_id],
            words.get_vocab(),
        )


def bert_text(state: State, config: dict, tokenizer: BertTokenizer, length: int, title: str, label: str) -> BertText:
    """The encoder over its weights, in fp32, frozen.

    Args:
        state: in transformers' names.
        label: what to call the weights in messages: the part and where it came from.

    Raises:
        BadInput: weights, configuration and tokenizer do not belong together.
    """
    read = BertConfig.from_dict(config)
    if read.vocab_size < len(tokenizer):
        raise BadInput(
            f"base: the tokenizer for {label} has {len(tokenizer)} tokens and its table {read.vocab_size} rows; "
            "they do not belong together"
        )
    own = {key.removeprefix("bert."): tensor for key, tensor in state.items()}
    own = {key: tensor for key, tensor in own.items() if not key.startswith(UNUSED)}
    model = assemble(partial(BertModel, add_pooling_layer=False), read, own, torch.float32, label)
    return BertText(model, tokenizer, length, title)


def config_of(state: State, head: int) -> dict:
    """A BERT's configuration, read off its shapes.

    Args:
        state: in transformers' names.
        head: channels of an attention head.

    Raises:
        KeyError: a weight that tells a size is missing.
    """
    rows, width = state["embeddings.word_embeddings.weight"].shape
    return {
        "vocab_size": rows,
        "hidden_size": width,
        "num_hidden_layers": sum(key.endswith(".intermediate.dense.weight") for key in state),
        "num_attention_heads": width // head,
        "intermediate_size": state["encoder.layer.0.intermediate.dense.weight"].shape[0],
        "max_position_embeddings": state["embeddings.position_embeddings.weight"].shape[0],
        "type_vocab_size": state["embeddings.token_type_embeddings.weight"].shape[0],
    }


def read_tokenizer(folder: Path) -> BertTokenizer:
    """
    Raises:
        BadInput: its files cannot be read.
    """
    try:
        return BertTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library raises nothing more exact
        raise BadInput(
            f"base: {folder} cannot be read as BERT's tokenizer ({error}); is the download complete?"
        ) from None
