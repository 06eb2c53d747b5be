"""A T5 text encoder (T5 1.1, mT5) with its tokenizer: captions of one length, as its last states."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import T5Config, T5EncoderModel, T5TokenizerFast

from ..errors import BadInput
from .text_precision import make_computable
from .weights import State, assemble

log = logging.getLogger(__name__)

VOCABULARIES = (("tokenizer.json",), ("spiece.model",))
"""Files, either of which makes a tokenizer."""
PAD = 0
END = 1
SHARED, EMBEDDED = "shared.weight", "encoder.embed_tokens.weight"
"""Two names of one table."""


@dataclass(frozen=True)
class Words:
    """A tokenizer: what ids a caption has, `</s>` at its end."""

    ids: Callable[[str], list[int]]
    size: int
    """How many ids there are."""
    identity: str
    """Equal for tokenizers of the same pieces."""


@dataclass(frozen=True)
class T5Text:
    model: T5EncoderModel
    words: Words
    length: int
    """Tokens of every caption: shorter ones are padded, longer ones cut."""
    title: str
    """Whose it is, for messages."""
    masked: bool = False
    """Whether words see words alone, and no padding."""

    def tokens(self, caption: str) -> tuple[list[int], list[int]]:
        """Ids and which of them are words (1) or padding (0), both of `length`; a caption that is cut is said."""
        ids = self.words.ids(caption)
        if len(ids) > self.length:
            log.warning(
                "caption %r has %d tokens; %s reads the first %d, the rest does not train",
                f"{caption[:60]}…",
                len(ids),
                self.title,
                self.length,
            )
            ids = [*ids[: self.length - 1], END]
        rest = self.length - len(ids)
        return ids + [PAD] * rest, [1] * len(ids) + [0] * rest

    @torch.no_grad()
    def states(self, caption: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The last states, float32 [length, width], and the mask of words, int64 [length]; on the CPU."""
        ids, words = (torch.tensor([row]) for row in self.tokens(caption))
        place = self.model.device
        mask = words.to(place) if self.masked else None
        states = self.model(input_ids=ids.to(place), attention_mask=mask).last_hidden_state
        return states[0].float().cpu(), words[0]

    @property
    def settings(self) -> tuple:
        """What changes states without changing a weight's shape."""
        config = self.model.config
        names = ("num_heads", "relative_attention_max_distance", "layer_norm_epsilon", "feed_forward_proj")
        return ([getattr(config, name) for name in names], self.length, self.masked, self.words.identity)


def t5_text(
    state: State, config: dict, words: Words, length: int, title: str, label: str, masked: bool = False
) -> T5Text:
    """The encoder over its weights, in the precision that they are stored in, frozen.

    Args:
        state: in transformers' names; a decoder's weights beside the encoder's are left aside.
        label: what to call the weights in messages: the part and where it came from.

    Raises:
        BadInput: weights, configuration and tokenizer do not belong together.
    """
    if "scaled_fp8" in state or any(key.endswith((".scale_weight", ".weight_scale")) for key in state):
        raise BadInput(
            f"base: {label} is stored as eight-bit numbers with scales, which is read by no library here; choose a "
            "file with t5xxl in fp16 (run.text_encoder_precision=int8 keeps it small in memory)"
        )
    read = T5Config.from_dict(config)
    if read.vocab_size < words.size:
        raise BadInput(
            f"base: the tokenizer for {label} has {words.size} tokens and its table {read.vocab_size} rows; "
            "they do not belong together"
        )
    state = {key: value for key, value in state.items() if not key.startswith(("decoder.", "lm_head."))}
    table = state.get(SHARED, state.get(EMBEDDED))
    if table is not None:
        state[SHARED] = state[EMBEDDED] = table
    model = assemble(T5EncoderModel, read, state, None, label)
    model.set_input_embeddings(model.shared)  # one table again, so that it is moved and held once
    make_computable(model)
    return T5Text(model, words, length, title, masked)


def config_of(state: State) -> dict:
    """A T5 1.1 encoder's configuration, read off its shapes; the distances of its attention are T5's own.

    Raises:
        KeyError: a weight that tells a size is missing.
    """
    rows, width = state[SHARED if SHARED in state else EMBEDDED].shape
    heads = state["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"].shape[1]
    layers = sum(key.endswith(".layer.0.SelfAttention.q.weight") for key in state)
    return {
        "vocab_size": rows,
        "d_model": width,
        "d_ff": state["encoder.block.0.layer.1.DenseReluDense.wo.weight"].shape[1],
        "d_kv": state["encoder.block.0.layer.0.SelfAttention.q.weight"].shape[0] // heads,
        "num_heads": heads,
        "num_layers": layers,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }


def read_words(folder: Path) -> Words:
    """A tokenizer's folder.

    Raises:
        BadInput: its files cannot be read, or what reads them is not installed.
    """
    try:
        if (folder / "tokenizer.json").is_file():
            return words_of(T5TokenizerFast.from_pretrained(folder, local_files_only=True))
        return words_of_pieces((folder / "spiece.model").read_bytes())
    except ImportError as error:
        raise BadInput(
            f"base: {folder} is read with sentencepiece, which is not installed; install it: pip install sentencepiece"
        ) from error
    except Exception as error:  # the libraries raise nothing more exact
        raise BadInput(
            f"base: {folder} cannot be read as T5's tokenizer ({error}); is the download complete?"
        ) from None


def words_of(tokenizer) -> Words:
    """
    Args:
        tokenizer: of transformers; it ends captions itself.
    """
    pieces = tokenizer.get_vocab()
    return Words(lambda caption: tokenizer(caption, verbose=False).input_ids, len(tokenizer), _hash_of(pieces))


def words_of_pieces(file: bytes) -> Words:
    """
    Args:
        file: what a spiece.model holds.

    Raises:
        ImportError: sentencepiece is not installed.
        RuntimeError: it is no such file.
    """
    # transformers would convert the file first, which takes two libraries more.
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_proto=file)
    pieces = {model.id_to_piece(number): number for number in range(model.get_piece_size())}
    return Words(lambda caption: [*model.encode(caption), END], len(pieces), _hash_of(pieces))


def _hash_of(pieces: dict[str, int]) -> str:
    """Of the pieces that texts are made of; a tokenizer's spare ones do not count, which some files list."""
    own = sorted((number, piece) for piece, number in pieces.items() if not piece.startswith("<extra_id_"))
    return hashlib.sha256(repr(own).encode()).hexdigest()
