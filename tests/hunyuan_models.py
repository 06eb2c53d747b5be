"""Tiny random HunyuanDiTs as diffusers folders, and their transformers' weights in the original names."""

import shutil

import pytest
import torch
from diffusers import DDPMScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline
from transformers import BertConfig, BertModel, BertTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from trainer_core.families.hunyuan_dit import OLDER, SCHEDULE
from trainer_core.lora_file.fused import stacked
from trainer_core.lora_file.hunyuan_names import original_names, stacks

CHINESE = "一只红色的猫在蓝色的背景上"


def words(folder, vocabulary=None):
    """A BERT tokenizer of the letters and some Chinese characters (or of a file), and an mT5 tokenizer that has learnt
    from a line or two, as its own file has it and as transformers does."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="mT5's tokenizer is read with sentencepiece")
    letters = [chr(ord("a") + number) for number in range(26)]
    characters = list(dict.fromkeys(CHINESE))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    own = "\n".join([*special, *letters, *(f"##{letter}" for letter in letters), *characters, "0", "1", ","])
    text = vocabulary.read_text(encoding="utf-8") if vocabulary else own
    (folder / "vocab.txt").write_text(text, encoding="utf-8")
    text = folder / "text.txt"
    text.write_text(f"a small red ring on a blue background, thing 1\n{CHINESE}\n" * 20, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "spiece"), vocab_size=64, hard_vocab_limit=False, minloglevel=2,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=1.0,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    pieces = [(model.id_to_piece(number), model.get_score(number)) for number in range(model.get_piece_size())]
    return BertTokenizer(str(folder / "vocab.txt")), T5Tokenizer(pieces, extra_ids=0)


def drawn(module, seed, std=0.2):
    """Random weights of which none is left at one or zero, where a missing one would not show."""
    torch.manual_seed(seed)
    tables = {id(part.weight) for part in module.modules() if isinstance(part, torch.nn.Embedding)}
    for name, parameter in module.named_parameters():
        mean = 0.8 if "norm" in name.lower() and name.endswith("weight") else 0.0
        torch.nn.init.normal_(parameter, mean=mean, std=1.0 if id(parameter) in tables else std)
    return module.eval()


def transformer(style, **changed):
    settings = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "patch_size": 2,
        "sample_size": 8,
        "hidden_size": 32,
        "num_layers": 4,
        "mlp_ratio": 2.0,
        "cross_attention_dim": 24,
        "cross_attention_dim_t5": 16,
        "use_style_cond_and_image_meta_size": style,
    }
    return drawn(HunyuanDiT2DModel(**settings | changed), 21, std=0.1)


def save(folder, vae, style, vocabulary=None):
    """A diffusers folder of random parts, shaped as version 1.1 (with `style`) or 1.2; 64 pixels."""
    folder.mkdir(parents=True)
    bert, pieces = words(folder, vocabulary)
    sizes = {"num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 48}
    first = BertModel(BertConfig(vocab_size=len(bert), **sizes, max_position_embeddings=128))
    sizes = {"num_layers": 2, "d_model": 16, "d_ff": 24, "d_kv": 8, "num_heads": 2, "vocab_size": len(pieces) + 4}
    second = T5EncoderModel(T5Config(**sizes, feed_forward_proj="gated-gelu", tie_word_embeddings=False))
    vae.register_to_config(scaling_factor=0.13025)
    HunyuanDiTPipeline(
        vae=vae,
        text_encoder=drawn(first, 22),
        tokenizer=bert,
        text_encoder_2=drawn(second, 23),
        tokenizer_2=pieces,
        transformer=transformer(style),
        scheduler=DDPMScheduler.from_config(OLDER if style else SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "base")
    for name in ("vocab.txt", "spiece.model"):
        shutil.move(folder / name, folder / "base" / name)
    return folder / "base"


def in_original_names(state, config):
    """A transformer's weights as the original has them."""
    names = original_names(config) | {"time_extra_emb.pooler.positional_embedding": "pooler.positional_embedding"}
    fused = stacks(config)
    inside = {rows.path for stack in fused.values() for rows in stack}
    found = {}
    for key, tensor in state.items():
        path, _, kind = key.rpartition(".")
        if path not in inside:
            found[names.get(key) or (f"{names[path]}.{kind}" if path in names else key)] = tensor
    for theirs, stack in fused.items():
        for kind in ("weight", "bias"):
            parts = {rows.path: state[f"{rows.path}.{kind}"] for rows in stack}
            found[f"{theirs}.{kind}"] = stacked(stack, parts)
    return found
