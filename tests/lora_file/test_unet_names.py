"""Names of UNet modules agree with diffusers' converter, tensor by tensor."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

from trainer_core.lora_file.lora import module_shapes
from trainer_core.lora_file.unet_names import ldm_names

UNETS = {
    "two levels": {
        "block_out_channels": (64, 128),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 64,
    },
    "SD1.5": {"cross_attention_dim": 768},
    "SDXL": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}


@pytest.mark.parametrize("kind", UNETS)
def test_every_module_gets_the_name_that_diffusers_converter_reads(kind):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNETS[kind])
    state = unet.state_dict()
    names = ldm_names(unet.config, dict.fromkeys(name.rsplit(".", 1)[0] for name in state))
    original = {
        f"model.diffusion_model.{names[path]}.{kind}": tensor
        for path, kind, tensor in ((*name.rsplit(".", 1), tensor) for name, tensor in state.items())
    }
    assert len(original) == len(state)
    back = convert_ldm_unet_checkpoint(dict(original), config=dict(unet.config))
    assert back.keys() == state.keys()
    assert all(back[name] is state[name] for name in state)


def test_the_names_are_those_in_the_original_sd15_checkpoint():
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNETS["SD1.5"])
    known = {
        "conv_in": "input_blocks.0.0",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
        "down_blocks.3.resnets.1.conv2": "input_blocks.11.0.out_layers.3",
        "mid_block.attentions.0.proj_in": "middle_block.1.proj_in",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv",
        "up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",
        "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.2": "output_blocks.11.1.transformer_blocks.0.ff.net.2",
        "up_blocks.3.resnets.2.conv_shortcut": "output_blocks.11.0.skip_connection",
    }
    assert ldm_names(unet.config, known) == known


def test_a_path_without_a_counterpart_is_left_out():
    config = UNETS["two levels"]
    paths = ["down_blocks.1.downsamplers.0.conv", "down_blocks.0.resnets.1.conv1", "mid_block.nothing", "joint.0"]
    assert ldm_names(config, [*paths, "conv_in"]) == {"conv_in": "input_blocks.0.0"}


def test_the_modules_of_a_model_are_seen_through_pefts_layers():
    from peft import LoraConfig, inject_adapter_in_model

    unet = UNet2DConditionModel(**{**UNETS["two levels"], "block_out_channels": (32, 64), "cross_attention_dim": 8})
    before = module_shapes(unet)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["to_q", "conv1"]), unet)
    assert module_shapes(unet) == before
