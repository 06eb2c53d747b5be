"""T5 as a text encoder: its words, its states, and the precision that it computes in."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import T5Config, T5EncoderModel, T5TokenizerFast

from trainer_core.errors import BadInput
from trainer_core.families import t5_text
from trainer_core.families.t5_vocabulary.tokenizer import t5_tokenizer
from trainer_core.families.text_precision import set_precision

TEXTS = (
    "",
    "a  red   cat, sitting.  ",
    "it's “quoted” — ½ dash… 50% $3.99 #tag",
    "Ünïcode ﬁne １２ Москва 一只猫\n new\tline 😀",
)
CAPTION = "a small red ring on a blue background"


@pytest.fixture(scope="module")
def words():
    return t5_text.words_of(t5_tokenizer())


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(20)
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu"}
    module = T5EncoderModel(T5Config(vocab_size=32128, tie_word_embeddings=False, **sizes))
    # A file holds the table of the words once.
    return {key: tensor for key, tensor in module.state_dict().items() if key != t5_text.EMBEDDED}


@pytest.fixture
def make(weights, words):
    def make_text(length=24, dtype=torch.float32, masked=False, **changes):
        state = {key: tensor.to(dtype, copy=True) for key, tensor in weights.items()} | changes
        return t5_text.t5_text(state, t5_text.config_of(state), words, length, "Somebody", "the t5xxl of x", masked)

    return make_text


@pytest.fixture(scope="module")
def released():
    folder = Path(os.environ.get("SCION_TOKENIZERS", "")) / "stable_diffusion_3" / "tokenizer_3"
    if not (folder / "spiece.model").is_file():
        pytest.skip("SCION_TOKENIZERS names no folder of released tokenizers (see .ci/run)")
    return folder


def test_the_vocabulary_is_that_of_the_released_tokenizer(words, released):
    theirs = T5TokenizerFast.from_pretrained(released)
    assert words.size == len(theirs) == 32100
    for text in (*TEXTS, "a </s> b <extra_id_3> c"):
        assert words.ids(text) == theirs(text).input_ids, text
    assert words.identity == t5_text.read_words(released).identity


def test_a_folder_with_sentencepieces_file_alone_has_the_same_words(words, released, tmp_path):
    shutil.copyfile(released / "spiece.model", tmp_path / "spiece.model")
    read = t5_text.read_words(tmp_path)
    assert [read.ids(text) for text in TEXTS] == [words.ids(text) for text in TEXTS]
    assert read.identity == words.identity


def test_states_are_those_of_transformers(make):
    text = make()
    ids, mask = text.tokens(CAPTION)
    assert len(ids) == len(mask) == 24 and ids[sum(mask) - 1] == t5_text.END and set(ids[sum(mask) :]) == {0}
    with torch.no_grad():
        expected = text.model(torch.tensor([ids])).last_hidden_state[0]
    states, told = text.states(CAPTION)
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-6)
    assert told.tolist() == mask
    table = text.model.shared.weight
    assert text.model.encoder.embed_tokens.weight is table, "the table is held twice"


def test_padding_says_nothing_to_words_where_it_is_masked(make):
    count = sum(make().tokens(CAPTION)[1])
    for masked, alike in ((True, True), (False, False)):
        short, long = (make(length, masked=masked).states(CAPTION)[0][:count] for length in (count, 40))
        assert torch.allclose(short, long, atol=1e-5) == alike


def test_a_caption_that_is_cut_ends_as_every_caption_and_is_said(make, caplog):
    text = make(length=6)
    text.tokens("a ring")
    assert not caplog.records
    ids, _ = text.tokens(CAPTION)
    assert len(ids) == 6 and ids[-1] == t5_text.END
    assert "Somebody reads the first 6, the rest does not train" in caplog.text


@pytest.mark.parametrize("precision, near", [("fp32", 1e-6), ("bf16", 0.02), ("fp16", 0.003), ("int8", 0.03)])
def test_each_precision_is_near_full_precision(make, precision, near):
    text = make()
    expected, _ = text.states(CAPTION)
    before = text.model.encoder.block[0].layer[0].SelfAttention.q.weight.untyped_storage().nbytes()
    set_precision(text.model, precision)
    states, _ = text.states(CAPTION)
    assert (states - expected).abs().max() < near * expected.abs().max()
    if precision == "int8":
        held = text.model.encoder.block[0].layer[0].SelfAttention.q.weight
        assert held.qdata.dtype == torch.int8 and held.qdata.untyped_storage().nbytes() * 4 == before


def test_half_precision_keeps_wide_what_overflows(make):
    asked, exact = make(), make()
    set_precision(asked.model, "fp16")
    wide = "encoder.block.0.layer.1.DenseReluDense.wo.weight"
    assert torch.equal(asked.model.state_dict()[wide], exact.model.state_dict()[wide])
    for text in (make(dtype=torch.float16), asked):
        layer = text.model.encoder.block[0].layer[1].DenseReluDense
        assert layer.wo.weight.dtype == torch.float32 and layer.wi_0.weight.dtype == torch.float16


def test_eight_bit_floats_compute_in_bf16(make):
    text = make(dtype=torch.float8_e4m3fn)
    assert {tensor.dtype for tensor in text.model.parameters()} == {torch.bfloat16}
    assert text.states(CAPTION)[0].isfinite().all()


def test_int8_without_torchao_names_its_pip_line(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(BadInput, match="int8 is made by torchao, which is not installed.*pip install torchao"):
        set_precision(make().model, "int8")


def test_eight_bit_weights_with_scales_are_refused_with_the_way_out(make):
    with pytest.raises(BadInput, match="the t5xxl of x is stored as eight-bit numbers with scales.*t5xxl in fp16"):
        make(scaled_fp8=torch.zeros(2))


def test_words_of_another_model_are_refused(weights, words):
    config = t5_text.config_of(weights) | {"vocab_size": 100}
    with pytest.raises(BadInput, match="has 32100 tokens and its table 100 rows"):
        t5_text.t5_text(dict(weights), config, words, 8, "Somebody", "the t5xxl of x")
