"""A checkpoint of the Stable Diffusion 1 family with random weights, in the names that such files have."""

import re
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."

BLOCK_PARTS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_PLACES = {
    "conv_in": "input_blocks.0.0",
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.attentions.0": "input_blocks.1.1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0",
    "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.upsamplers.0": "output_blocks.1.1",
    "up_blocks.1.resnets.0": "output_blocks.2.0",
    "up_blocks.1.attentions.0": "output_blocks.2.1",
    "up_blocks.1.resnets.1": "output_blocks.3.0",
    "up_blocks.1.attentions.1": "output_blocks.3.1",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
}
VAE_NAMES = (
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    # The original counts the decoder's levels by resolution, from the finest.
    (r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample"),
)


def write(
    path: Path, seed: int = 0, dtype: torch.dtype = torch.float16, v_pred: bool = False, ztsnr: bool = False
) -> Path:
    """Writes the checkpoint and returns its path.

    CLIP and VAE have Stable Diffusion 1's full shape, which the host takes for granted; the UNet has its widths and
    few blocks. `v_pred` and `ztsnr` add the empty tensors that v-prediction checkpoints are marked with.
    """
    numbers = torch.Generator().manual_seed(seed)
    state = {}
    with torch.device("meta"):
        parts = ((unet_name, unet()), (vae_name, vae()), (text_name, text_encoder()))
    for name_of, module in parts:
        for key, parameter in module.named_parameters():
            name, tensor = name_of(key), draw(key, parameter.shape, numbers)
            # The original VAE's attention is made of 1×1 convolutions.
            attention = name.startswith(VAE) and ".attn_1." in name and tensor.ndim == 2
            state[name] = (tensor[:, :, None, None] if attention else tensor).to(dtype)
    marks = {"v_pred": v_pred, "ztsnr": ztsnr}
    state |= {mark: torch.empty(0) for mark, wanted in marks.items() if wanted}
    save_file(state, path, metadata={"format": "pt"})
    return path


def draw(key: str, shape: torch.Size, numbers: torch.Generator) -> torch.Tensor:
    """As torch draws linear layers and convolutions, biases at zero; norms do nothing yet.

    Embeddings are drawn wide: in transformers' own width every caption would mean the same.
    """
    if len(shape) == 1:
        return torch.zeros(shape) if key.endswith("bias") else torch.ones(shape)
    if "embedding." in key and "time_embedding" not in key:
        return torch.randn(shape, generator=numbers)
    bound = shape[1:].numel() ** -0.5
    if key == "quant_conv.weight":
        # Without this, all pictures would have nearly the same latents.
        bound *= 8
    return torch.empty(shape).uniform_(-bound, bound, generator=numbers)


def unet() -> UNet2DConditionModel:
    """Two levels of one residual block; attention in the first only, as Stable Diffusion 1 has none in its last."""
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 320),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=768,
        attention_head_dim=8,
    )


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
    )


def text_encoder() -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
    )
    return CLIPTextModel(config)


def unet_name(key: str) -> str:
    """diffusers' name of a UNet's weight, in the original's."""
    place = next(place for place in UNET_PLACES if key.startswith(f"{place}."))
    inner = key[len(place) + 1 :]
    if ".resnets." in place:
        part, _, kind = inner.rpartition(".")
        inner = f"{BLOCK_PARTS[part]}.{kind}"
    return f"{UNET}{UNET_PLACES[place]}.{inner}"


def vae_name(key: str) -> str:
    for pattern, replacement in VAE_NAMES:
        key = re.sub(pattern, replacement, key)
    return VAE + key


def text_name(key: str) -> str:
    """transformers has and had a level `text_model` in these names."""
    return TEXT + key.removeprefix("text_model.")
