"""Both text encoders of Stable Diffusion XL learn, go on exactly, and diffusers computes with their file what we do."""

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file

from trainer_core.adapters import lora
from trainer_core.families import registry
from trainer_core.sampler import load_for_sampling

LONG = " ".join(["ring"] * 160)


@pytest.fixture
def settings(sdxl_base):
    size = {"preview.width": 64, "preview.height": 64, "preview.steps": 1}
    learning = {"adapter.text_encoder": "on", "adapter.text_encoder_rank": 2, "optimizer.learning_rate": 2e-2}
    return {"base": str(sdxl_base), "dataset.resolution": 64, "run.steps": 4, **size, **learning}


@torch.no_grad()
def test_tokens_encoded_as_a_batch_are_what_captions_are_encoded_to_one_by_one(sdxl_base):
    encoder = registry.load(str(sdxl_base)).encoder
    captions = ["a red ring", LONG, ""]
    told = encoder.encode_tokens(encoder.stack_tokens(encoder.tokens(captions)))
    expected = encoder.stack(encoder.encode_captions(captions))
    assert told.keys() == expected.keys() == {"text", "pooled"}
    for name, state in told.items():
        torch.testing.assert_close(state, expected[name], rtol=0, atol=1e-5)


def test_a_stopped_run_ends_in_the_bits_of_one_that_was_not(train, settings):
    asked = {**settings, "adapter.dropout": 0.2, "dataset.shuffle_tags": True, "run.gradient_checkpointing": True}
    whole, _ = train(asked, "whole")
    train(asked, "resumed", stop_after=2)
    resumed, _ = train(asked, "resumed")
    first, second = load_file(whole.lora), load_file(resumed.lora)
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    names = load_file(resumed.folder / "checkpoints" / "step-00000004" / "adapter.safetensors")
    assert {name.split(".")[0] for name in names} >= {"te1", "te2", "down_blocks"}


@torch.no_grad()
def encoded(pipe, prompt):
    text, _, pooled, _ = pipe.encode_prompt(
        prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=0
    )
    return {"text": text[0], "pooled": pooled[0]}


@pytest.mark.parametrize("dialect", ["auto", "kohya", "diffusers"])
def test_the_file_gives_diffusers_pipeline_the_embeddings_that_were_trained(train, sdxl_base, settings, dialect):
    result, _ = train({**settings, "output.dialect": dialect})
    begins = {"auto": ("lora_te1_", "lora_te2_"), "diffusers": ("text_encoder.", "text_encoder_2.")}
    for begin in begins.get(dialect, begins["auto"]):
        assert sum(key.startswith(begin) and "A" in key.replace("down", "A") for key in load_file(result.lora)) == 18
    ours = load_for_sampling(str(sdxl_base), str(result.lora)).encoder.encode_captions(["a red ring"])[0]
    pipe = StableDiffusionXLPipeline.from_pretrained(sdxl_base, local_files_only=True, add_watermarker=False)
    before = encoded(pipe, "a red ring")
    pipe.load_lora_weights(str(result.lora.parent), weight_name=result.lora.name)
    assert [len(lora.layers(encoder)) for encoder in (pipe.text_encoder, pipe.text_encoder_2)] == [18, 18]
    for name, state in encoded(pipe, "a red ring").items():
        torch.testing.assert_close(state, ours[name], rtol=0, atol=1e-4)
        assert (state - before[name]).abs().max() > 1e-2
