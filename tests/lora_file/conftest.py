"""Tiny random models and LoRAs for the tests of LoRA files."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from trainer_core.lora_file.lora import LoraPair, Target

torch.set_num_threads(1)

CROSS = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D")
ONE_LEVEL = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")


@pytest.fixture(scope="session")
def make_unet():
    """Builds a UNet with random weights; each call with the same settings gives the same ones."""

    def make(blocks=CROSS, **changed):
        torch.manual_seed(0)
        settings = {
            "sample_size": 8,
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "cross_attention_dim": 24,
            "attention_head_dim": 4,
        }
        down, up = blocks
        return UNet2DConditionModel(**{**settings, "down_block_types": down, "up_block_types": up, **changed}).eval()

    return make


@pytest.fixture(scope="session")
def make_text_encoder():
    def make():
        torch.manual_seed(1)
        sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        return CLIPTextModel(CLIPTextConfig(vocab_size=50, bos_token_id=48, eos_token_id=49, **sizes)).eval()

    return make


@pytest.fixture(scope="session")
def target(make_unet, make_text_encoder):
    return Target.of(unet=make_unet(), text_encoder=make_text_encoder())


@pytest.fixture(scope="session")
def one_level_target(make_unet):
    """A UNet with attention in one level: 83 linear and convolution modules, 48 of them in its transformers."""
    return Target.of(unet=make_unet(ONE_LEVEL))


@pytest.fixture(scope="session")
def random_lora():
    """Builds a LoRA on the modules that `wanted(component, path)` picks: ranks 2 and 3, alphas unlike them."""

    def build(target, wanted=lambda component, path: True):
        chosen = [(c, p, s) for c, shapes in target.modules.items() for p, s in shapes.items() if wanted(c, p)]
        lora, numbers = {}, torch.Generator().manual_seed(5)
        for place, (component, path, shape) in enumerate(chosen):
            rank, alpha = (2, 1.0) if place % 3 else (3, 4.5)
            down = torch.randn(rank, *shape[1:], generator=numbers) * 0.1
            up = torch.randn(shape[0], rank, *[1] * (len(shape) - 2), generator=numbers) * 0.1
            lora.setdefault(component, {})[path] = LoraPair(down, up, alpha)
        return lora

    return build
