"""Random Fluxes that load in moments: as a diffusers folder, and as one file in the original names."""

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from trainer_core.lora_file import flux_names
from trainer_core.lora_file.fused import stacked

TEXT, POOLED = 48, 64
"""Widths of T5's and CLIP's states."""
DYNAMIC = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}
LEVELS = {True: {"shift": 3.0, "use_dynamic_shifting": True, **DYNAMIC}, False: {"shift": 1.0}}
"""The noise levels of the released folders, by whether it is dev."""


def drawn(module, seed):
    """The module with random numbers that make every part of it show."""
    torch.manual_seed(seed)
    for name, parameter in module.named_parameters():
        if "norm" in name and parameter.ndim == 1 and "linear" not in name:
            torch.nn.init.normal_(parameter, mean=0.7, std=0.2)
        elif "embed_tokens" in name or "embedding" in name or "shared" in name:
            torch.nn.init.normal_(parameter, std=1.0)
        elif parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.7 / parameter[0].numel() ** 0.5)
        else:
            torch.nn.init.normal_(parameter, std=0.1)
    return module


def transformer(guided=True, **changes):
    """A block or two of each kind, of one head: heads are 128 wide in every Flux."""
    settings = {
        "num_layers": 2,
        "num_single_layers": 1,
        "num_attention_heads": 1,
        "joint_attention_dim": TEXT,
        "pooled_projection_dim": POOLED,
        "guidance_embeds": guided,
    }
    return drawn(FluxTransformer2DModel(**settings | changes), 30)


def vae():
    module = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32,) * 4,
        layers_per_block=1,
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return drawn(module, 31)


def clip(words):
    """Its heads are 64 wide, as a checkpoint's are taken to be."""
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=POOLED,
        intermediate_size=2 * POOLED,
        num_hidden_layers=2,
        num_attention_heads=1,
        projection_dim=POOLED,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return drawn(CLIPTextModel(config), 32)


def t5(words):
    sizes = {"d_model": TEXT, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    config = T5Config(vocab_size=len(words), feed_forward_proj="gated-gelu", tie_word_embeddings=False, **sizes)
    return drawn(T5EncoderModel(config), 33)


def save(folder, clip_words, t5_words, guided=True, **changes):
    """A diffusers folder of dev or (not guided) schnell.

    Args:
        clip_words, t5_words: the tokenizers.
        changes: of the transformer's configuration.
    """
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_config(LEVELS[guided]),
        vae=vae(),
        text_encoder=clip(clip_words),
        tokenizer=clip_words,
        text_encoder_2=t5(t5_words),
        tokenizer_2=t5_words,
        transformer=transformer(guided, **changes),
    ).save_pretrained(folder)
    return folder


def original(state, config, norm="scale"):
    """A transformer's weights as the original names and stacks them.

    Args:
        norm: how the norms of queries and keys end: in "scale" in files, in "weight" in ComfyUI.
    """
    names, found = flux_names.original_names(config), {}
    for key, tensor in state.items():
        path, _, kind = key.rpartition(".")
        if path in names:
            found[f"{names[path]}.{norm if names[path].endswith('_norm') else kind}"] = tensor
    for path, stack in flux_names.stacks(config).items():
        for kind in ("weight", "bias"):
            found[f"{path}.{kind}"] = stacked(stack, {rows.path: state[f"{rows.path}.{kind}"] for rows in stack})
    return found


def one_file(folder, vae_name):
    """The tensors of a folder as ComfyUI's checkpoints of Flux have them.

    Args:
        vae_name: path -> the original name of a VAE's module.
    """
    module = FluxTransformer2DModel.from_pretrained(folder / "transformer")
    state = {f"model.diffusion_model.{k}": v for k, v in original(module.state_dict(), module.config).items()}
    for key, tensor in load_file(folder / "vae" / "diffusion_pytorch_model.safetensors").items():
        path, _, kind = key.rpartition(".")
        name = vae_name(path, 4)
        if ".attn_1." in name and kind == "weight" and not name.endswith("norm"):
            tensor = tensor[:, :, None, None].contiguous()  # the original's attention is made of 1×1 convolutions
        state[f"vae.{name}.{kind}"] = tensor
    for key, tensor in load_file(folder / "text_encoder" / "model.safetensors").items():
        state[f"text_encoders.clip_l.transformer.text_model.{key.removeprefix('text_model.')}"] = tensor
    for key, tensor in load_file(folder / "text_encoder_2" / "model.safetensors").items():
        state[f"text_encoders.t5xxl.transformer.{key}"] = tensor
    return state
