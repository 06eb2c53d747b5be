"""A HunyuanDiT in one file, as ComfyUI has it: its parts in diffusers' names, configurations read off the shapes."""

from pathlib import Path

from transformers import BertTokenizer

from ..errors import BadInput
from . import bert_text, t5_text
from .folder import Parts
from .hunyuan_checkpoint import transformer_of
from .original import parts_of, readable
from .original_vae import vae_of
from .weights import read_weights

PIECES = "text_encoders.mt5xl.spiece_model"
"""The bytes of mT5's tokenizer."""
PREFIXES = {
    "transformer": ("the transformer", "model."),
    "text_encoder": ("BERT", "text_encoders.hydit_clip.transformer.bert."),
    "text_encoder_2": ("mT5", "text_encoders.mt5xl.transformer."),
    "vae": ("the VAE", "vae."),
    "tokenizer_2": ("mT5's tokenizer", PIECES),
}
"""By part: what it is, and how its keys begin."""
REMEDY = "; a full HunyuanDiT checkpoint has them all. Choose such a file, or the diffusers folder"
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
    own = parts_of(state, PREFIXES, path, REMEDY)
    configs = {"scheduler": newer}
    configs["transformer"], own["transformer"] = transformer_of(own["transformer"], f"the transformer of {path}")
    if configs["transformer"]["use_style_cond_and_image_meta_size"]:
        configs["scheduler"] = older
    with readable(f"{path}"):
        configs["text_encoder"] = bert_text.config_of(own["text_encoder"], HEAD)
        configs["text_encoder_2"] = t5_text.config_of(own["text_encoder_2"])
        configs["vae"], own["vae"] = vae_of(own["vae"], SCALING)
    words = own.pop("tokenizer_2")[""]
    return Parts(own | {"tokenizer_2": {PIECES: words}}, configs, path)


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
