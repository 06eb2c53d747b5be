"""CLIP's own tokenizer for checkpoints that are a single file and bring none."""

import gzip
from pathlib import Path

from transformers import CLIPTokenizer

BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(pad: str | None = None) -> CLIPTokenizer:
    """The tokenizer of CLIP ViT-L/14: 49,408 ids, 77 positions.

    The vocabulary follows from the merges: 256 bytes (those that print first, then the rest by value), the same ending
    a word, the merges in their order, the two special tokens (Radford et al. 2021, the released byte-pair encoder).

    Args:
        pad: the token that continues a short caption; None = the end token.
    """
    text = gzip.decompress((Path(__file__).parent / "merges.txt.gz").read_bytes()).decode("utf-8")
    merges = [tuple(line.split()) for line in text.splitlines()]
    printing = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(value) for value in printing] + [chr(256 + i) for i in range(256 - len(printing))]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), BOS, EOS]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad or EOS, model_max_length=77)
