"""Written files, loaded by the real diffusers pipeline, change the UNet by exactly W + alpha / rank * B·A."""

import copy

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline

from trainer_core.lora_file.dialects import lora_to_tensors
from trainer_core.lora_file.lora import Target
from trainer_core.lora_file.safe_io import write_tensors

LINEAR = lambda component, path: component == "unet" and path.endswith((".to_q", ".to_out.0", "ff.net.0.proj"))  # noqa: E731
CONVOLUTION = lambda component, path: component == "unet" and "conv" in path  # noqa: E731
UNET = lambda component, path: component == "unet"  # noqa: E731


@pytest.fixture
def pipeline(make_unet, make_text_encoder):
    return StableDiffusionPipeline(
        vae=AutoencoderKL(block_out_channels=(32,)),
        text_encoder=make_text_encoder(),
        tokenizer=None,
        unet=make_unet(),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@torch.no_grad()
def output(unet):
    numbers = torch.Generator().manual_seed(3)
    latents, text = torch.randn(1, 4, 8, 8, generator=numbers), torch.randn(1, 5, 24, generator=numbers)
    return unet(latents, torch.tensor([500]), text).sample


@torch.no_grad()
def merged(model, pairs):
    model = copy.deepcopy(model)
    for path, pair in pairs.items():
        weight = model.get_submodule(path).weight
        product = torch.einsum("or,r...->o...", pair.up.flatten(1), pair.down)
        weight += pair.alpha / pair.rank * product
    return model


@pytest.mark.parametrize("wanted", [LINEAR, CONVOLUTION, UNET], ids=["linear", "convolution", "all"])
@pytest.mark.parametrize("dialect", ["kohya", "diffusers"])
def test_the_pipeline_computes_what_the_pairs_say(pipeline, random_lora, tmp_path, dialect, wanted):
    target = Target.of(unet=pipeline.unet)
    lora = random_lora(target, wanted)
    before, expected = output(pipeline.unet), output(merged(pipeline.unet, lora["unet"]))
    assert (before - expected).abs().max() > 1e-3
    write_tensors(tmp_path / "lora.safetensors", lora_to_tensors(lora, dialect, target), {"ss_network_dim": "2"})
    pipeline.load_lora_weights(str(tmp_path), weight_name="lora.safetensors", local_files_only=True)
    torch.testing.assert_close(output(pipeline.unet), expected, rtol=1e-5, atol=1e-5)


def test_text_encoder_pairs_load_too(pipeline, random_lora, tmp_path):
    target = Target.of(unet=pipeline.unet, text_encoder=pipeline.text_encoder)
    lora = random_lora(target, lambda component, path: component == "text_encoder" or LINEAR(component, path))
    tokens = torch.tensor([[48, 3, 7, 49]])
    with torch.no_grad():
        expected = merged(pipeline.text_encoder, lora["text_encoder"])(tokens).last_hidden_state
        write_tensors(tmp_path / "lora.safetensors", lora_to_tensors(lora, "kohya", target))
        pipeline.load_lora_weights(str(tmp_path), weight_name="lora.safetensors", local_files_only=True)
        torch.testing.assert_close(pipeline.text_encoder(tokens).last_hidden_state, expected, rtol=1e-5, atol=1e-5)


def test_exchanged_square_halves_give_another_picture(pipeline, random_lora, tmp_path):
    target = Target.of(unet=pipeline.unet)
    lora = random_lora(target, lambda _, path: path.endswith("attn1.to_q"))
    expected = output(merged(pipeline.unet, lora["unet"]))
    wrong = {path: type(p)(p.up.t().contiguous(), p.down.t().contiguous(), p.alpha) for path, p in lora["unet"].items()}
    write_tensors(tmp_path / "lora.safetensors", lora_to_tensors({"unet": wrong}, "kohya", target))
    pipeline.load_lora_weights(str(tmp_path), weight_name="lora.safetensors", local_files_only=True)
    assert (output(pipeline.unet) - expected).abs().max() > 1e-4
