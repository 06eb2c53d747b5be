"""scion-tiny's CLIPTokenizer: CLIP's byte-level alphabet, and a whole token for each word of the little world."""

import json
from collections import Counter
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from ..scenes import COLOURS, RADIUS, SHAPES

END = "</w>"
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
WORDS = [*SHAPES, *COLOURS, *RADIUS, *"a the one on in front of background picture drawing photo and with".split()]


def byte_pair_merges(words: list[str]) -> list[tuple[str, str]]:
    """Merges the commonest neighbours until each word is one token (Sennrich et al. 2016, algorithm 1)."""
    spelled = [[*word[:-1], word[-1] + END] for word in words]
    merges = []
    while any(len(pieces) > 1 for pieces in spelled):
        pairs = Counter(pair for pieces in spelled for pair in zip(pieces, pieces[1:], strict=False))
        best = max(sorted(pairs), key=pairs.get)
        merges.append(best)
        spelled = [_merged(pieces, best) for pieces in spelled]
    return merges


def _merged(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    result = []
    for piece in pieces:
        if result and (result[-1], piece) == pair:
            result[-1] += piece
        else:
            result.append(piece)
    return result


def build(folder: Path) -> CLIPTokenizer:
    """Writes vocab.json, merges.txt and the configuration into `folder`.

    Text that is not of this world falls back to single bytes, so any caption has tokens.
    """
    alphabet = sorted(ByteLevel.alphabet())
    merges = byte_pair_merges(WORDS)
    tokens = [*alphabet, *(letter + END for letter in alphabet), *("".join(pair) for pair in merges), BOS, EOS]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": EOS,
        "unk_token": EOS,
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    special = {key: config[key] for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2), encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder)
