"""Random Stable Diffusion 3 models that load in moments: as a diffusers folder, and the transformer by its shape."""

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5TokenizerFast

from trainer_core.lora_file.fused import stacked
from trainer_core.lora_file.sd3_names import original_names, stacks

TEXT = 112
"""Width of a text state: more than both CLIPs' together, so that some of it is zeros."""
POOLED = (32, 48)
MEDIUM_35 = {"qk_norm": "rms_norm", "dual_attention_layers": (0,)}
"""What makes a transformer one of 3.5 medium."""


def drawn(module, seed):
    """The module with random numbers that make every part of it show."""
    torch.manual_seed(seed)
    for name, parameter in module.named_parameters():
        if "norm" in name and parameter.ndim == 1 and "linear" not in name:
            torch.nn.init.normal_(parameter, mean=0.7, std=0.2)
        elif "embed_tokens" in name or "token_embedding" in name or "shared" in name:
            torch.nn.init.normal_(parameter, std=1.0)
        elif parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.7 / parameter[0].numel() ** 0.5)
        else:
            torch.nn.init.normal_(parameter, std=0.1)
    return module


def transformer(**changes):
    """Two blocks of two heads: the host wants as many heads as blocks, 64 wide."""
    settings = {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 16,
        "num_layers": 2,
        "attention_head_dim": 64,
        "num_attention_heads": 2,
        "joint_attention_dim": TEXT,
        "caption_projection_dim": 128,
        "pooled_projection_dim": sum(POOLED),
        "out_channels": 16,
        "pos_embed_max_size": 12,
    }
    return drawn(SD3Transformer2DModel(**settings | changes), 30)


def original(module):
    """A transformer's weights in the names of the released files."""
    state, stacked_here = module.state_dict(), stacks(module.config)
    found = {"pos_embed": state.pop("pos_embed.pos_embed")}
    for path, stack in stacked_here.items():
        for kind in ("weight", "bias"):
            found[f"{path}.{kind}"] = stacked(
                stack, {rows.path: state.pop(f"{rows.path}.{kind}") for rows in set_of(stack)}
            )
    for key, tensor in state.items():
        path, _, kind = key.rpartition(".")
        found[f"{original_names(module.config)[path]}.{kind}"] = tensor
    return found


def set_of(stack):
    return {rows.path: rows for rows in stack}.values()


def vae():
    return drawn(
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(32,) * 4,
            layers_per_block=1,
            latent_channels=16,
            sample_size=64,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        31,
    )


def clip(words, width, projection, activation):
    """As many layers as a checkpoint shows; its heads are 64 wide."""
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=1,
        hidden_act=activation,
        projection_dim=projection,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return drawn(CLIPTextModelWithProjection(config), 32 + width)


def t5(words):
    sizes = {"d_model": TEXT, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 2}
    kind = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    return drawn(T5EncoderModel(T5Config(vocab_size=len(words), **kind, **sizes)), 33)


def few_words():
    """A T5 tokenizer of letters and a few words."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz,.", "▁a", "▁ring", "▁red", "▁small", "▁cross"]
    return T5TokenizerFast(vocab=[(piece, -float(len(piece) == 1)) for piece in pieces], extra_ids=0)


def save(folder, clip_words, t5_words=None, projection=POOLED[1], **changes):
    """A diffusers folder; CLIP-L's projection is by one, as single files have none.

    Args:
        clip_words: the tokenizers of both CLIPs.
        t5_words: T5's tokenizer; None = no T5.
        projection: the width of CLIP-G's pooled state.
        changes: of the transformer's configuration.
    """
    first, second = clip_words
    clip_l = clip(first, 32, POOLED[0], "quick_gelu")
    torch.nn.init.eye_(clip_l.text_projection.weight)
    StableDiffusion3Pipeline(
        transformer=transformer(pooled_projection_dim=POOLED[0] + projection, **changes),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(),
        text_encoder=clip_l,
        text_encoder_2=clip(second, 64, projection, "gelu"),
        text_encoder_3=t5(t5_words) if t5_words else None,
        tokenizer=first,
        tokenizer_2=second,
        tokenizer_3=t5_words,
    ).save_pretrained(folder)
    return folder
