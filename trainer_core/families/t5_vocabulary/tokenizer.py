"""T5's own tokenizer for checkpoints that are a single file and bring none."""

import lzma
from array import array
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SPARE = [f"<extra_id_{number}>" for number in reversed(range(100))]
"""What T5 was trained to fill gaps with (Raffel et al. 2020, section 3.1.4); they stand behind the pieces."""


def t5_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of T5 1.1: 32,100 ids, no beginning token, `</s>` at the end.

    A unigram model (Kudo 2018) over characters that are normalised by the vocabulary's own table.
    """
    pieces = _read("pieces.txt.xz").decode("utf-8").split("\n")
    scores = array("f", _read("scores.f32.xz"))
    known = [(PAD, 0.0), (END, 0.0), (UNKNOWN, 0.0), *zip(pieces, scores, strict=True), *((s, 0.0) for s in SPARE)]
    words = Tokenizer(models.Unigram(known, unk_id=2))
    words.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(_read("characters.bin.xz")),
            normalizers.Strip(left=False, right=True),
            normalizers.Replace(Regex(" {2,}"), "▁"),
        ]
    )
    words.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    words.post_processor = processors.TemplateProcessing(single=["$A", END], special_tokens=[(END, 1)])
    words.add_special_tokens([AddedToken(token, normalized=False) for token in (PAD, END, UNKNOWN)])
    words.add_special_tokens([AddedToken(token, lstrip=True, rstrip=True, normalized=False) for token in SPARE])
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token=PAD, eos_token=END, unk_token=UNKNOWN)


def _read(name: str) -> bytes:
    return lzma.decompress((Path(__file__).parent / name).read_bytes())
