"""A HunyuanDiT in one file, as ComfyUI has it: its parts in diffusers' names, configurations read off the shapes."""

from pathlib import Path

from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from transformers import BertTokenizer

from ..errors import BadInput
from . import bert_text, sd_checkpoint, t5_text
from .folder import Parts
from .hunyuan_checkpoint import transformer_of
from .weights import State, read_weights

PREFIXES = {
    "transformer": ("the transformer", "model."),
    "text_encoder": ("BERT", "text_encoders.hydit_clip.transformer.bert."),
    "text_encoder_2": ("mT5", "text_encoders.mt5xl.transformer."),
    "vae": ("the VAE", "vae."),
}
"""By part: what it is, and how its keys begin."""
PIECES = "text_encoders.mt5xl.spiece_model"
"""The bytes of mT5's tokenizer."""
VOCABULARY = "vocab.txt"
"""BERT's, a file of its own: the checkpoint has none, and programs that read it bring theirs."""
HEAD = 64
"""Channels of an attention head of BERT, which its shapes do not tell."""
SCALING = 0.13025
"""Of Stable Diffusion XL's VAE, whose latents these are."""


def read(path: Path, newer: dict, older: dict) -> Parts:
    """
    Args:
        newer, older: the noise schedules of version 1.2, and of those before it, which are told a style.

    Raises:
        BadInput: it lacks a part, or its shape cannot be read.
    """
    state = read_weights(path)
    own = {part: _under(state, prefix) for part, (_, prefix) in PREFIXES.items()}
    missing = [f"{called} ({prefix}…)" for part, (called, prefix) in PREFIXES.items() if not own[part]]
    missing += [] if PIECES in state else [f"mT5's tokenizer ({PIECES})"]
    if missing:
        raise BadInput(
            f"base: {path} lacks {', '.join(missing)}; a full HunyuanDiT checkpoint has them all. Choose such a file, "
            "or the diffusers folder"
        )
    transformer, states = transformer_of(own["transformer"], f"the transformer of {path}")
    try:
        configs = {
            "transformer": transformer,
            "text_encoder": bert_text.config_of(own["text_encoder"], HEAD),
            "text_encoder_2": t5_text.config_of(own["text_encoder_2"]),
            "vae": sd_checkpoint.vae_config(own["vae"], SCALING),
            "scheduler": older if transformer["use_style_cond_and_image_meta_size"] else newer,
        }
        named = {sd_checkpoint.VAE + key: tensor for key, tensor in own["vae"].items()}
        own |= {"transformer": states, "vae": convert_ldm_vae_checkpoint(named, configs["vae"])}
    except KeyError as error:
        raise BadInput(f"base: {path} lacks {error}, so its shape cannot be read; is the file whole?") from None
    return Parts(own | {"tokenizer_2": {PIECES: state[PIECES]}}, configs, path)


def tokenizers(parts: Parts, path: Path) -> tuple[BertTokenizer, t5_text.Words]:
    """Those of BERT, from the vocabulary beside the file, and of mT5.

    Raises:
        BadInput: there is no such vocabulary, or one of the two cannot be read.
    """
    vocabulary = path.with_name(VOCABULARY)
    if not vocabulary.is_file():
        raise BadInput(
            f"base: {path} brings no vocabulary for BERT, its Chinese text encoder, and there is no {vocabulary}; put "
            f"HunyuanDiT's tokenizer/{VOCABULARY} there, choose the diffusers folder, or train the MODEL in ComfyUI"
        )
    bert = BertTokenizer(str(vocabulary))
    try:
        return bert, t5_text.words_of_pieces(parts.states["tokenizer_2"][PIECES].numpy().tobytes())
    except ImportError as error:
        raise BadInput(
            f"base: {path} is read with sentencepiece, which is not installed; install it: pip install sentencepiece"
        ) from error
    except RuntimeError as error:
        raise BadInput(f"base: mT5's tokenizer in {path} cannot be read ({error}); is the file whole?") from None


def _under(state: State, prefix: str) -> State:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
