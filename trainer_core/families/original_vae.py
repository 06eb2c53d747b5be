"""An AutoencoderKL under its original names, as single files have it, in diffusers' names."""

from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

from .weights import State

PREFIX = "first_stage_model."
"""How diffusers' converter wants keys to begin."""


def vae_of(state: State, scaling_factor: float, shift_factor: float | None = None) -> tuple[dict, State]:
    """Its configuration, read off the shapes, and its weights.

    Args:
        state: in the original names, such as "encoder.conv_in.weight".
        scaling_factor: of the latents.
        shift_factor: what is taken from latents before they are scaled; None where the family does not move them.

    Raises:
        KeyError: a key is not there that tells something.
    """
    config = _config(state, scaling_factor)
    if shift_factor is not None:
        # Where latents are moved the convolutions on either side of them are left out, too.
        around = {f"use_{name}": f"{name}.weight" in state for name in ("quant_conv", "post_quant_conv")}
        config |= {"shift_factor": shift_factor, **around}
    return config, convert_ldm_vae_checkpoint({PREFIX + key: tensor for key, tensor in state.items()}, config)


def _config(keys: State, scaling_factor: float) -> dict:
    """
    Raises:
        KeyError: a key is not there that tells something.
    """
    channels = []
    while f"encoder.down.{len(channels)}.block.0.conv2.weight" in keys:
        channels.append(keys[f"encoder.down.{len(channels)}.block.0.conv2.weight"].shape[0])
    blocks = sum(f"encoder.down.0.block.{i}.conv2.weight" in keys for i in range(8))
    return {
        "in_channels": keys["encoder.conv_in.weight"].shape[1],
        "out_channels": keys["decoder.conv_out.weight"].shape[0],
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "block_out_channels": channels,
        "layers_per_block": blocks,
        "latent_channels": keys["decoder.conv_in.weight"].shape[1],
        "norm_num_groups": 32,
        "scaling_factor": scaling_factor,
    }
