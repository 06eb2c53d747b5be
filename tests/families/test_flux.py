"""FLUX.1 dev and schnell from a folder: the same models as diffusers' own pipeline makes of them."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from trainer_core.engine import objective, sampling
from trainer_core.engine.objective_config import ObjectiveConfig
from trainer_core.engine.preview_config import PreviewConfig
from trainer_core.errors import BadInput
from trainer_core.families import registry
from trainer_core.families.flux import packed, unpacked

LONG = " ".join(["ring"] * 600)
TOKENS = {"flux_base": 512, "schnell_base": 256}


@pytest.fixture(scope="module", params=TOKENS)
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def dev(flux, pipe):
    return pipe.transformer.config.guidance_embeds


@pytest.fixture(scope="module")
def pipe(folder):
    pipe = FluxPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def flux(folder):
    """Loaded once: nothing here changes it."""
    return registry.load(str(folder))


@torch.no_grad()
def asked(pipe, noisy, sigmas, captions, guidance):
    """What the pipeline's transformer answers, called as the pipeline calls it."""
    length = 512 if pipe.transformer.config.guidance_embeds else 256
    words, pooled, text_ids = pipe.encode_prompt(captions, None, max_sequence_length=length)
    count, channels, height, width = noisy.shape
    answer = pipe.transformer(
        hidden_states=pipe._pack_latents(noisy, count, channels, height, width),
        timestep=sigmas,
        guidance=torch.full([count], guidance) if pipe.transformer.config.guidance_embeds else None,
        pooled_projections=pooled,
        encoder_hidden_states=words,
        txt_ids=text_ids,
        img_ids=pipe._prepare_latent_image_ids(count, height // 2, width // 2, noisy.device, noisy.dtype),
        return_dict=False,
    )[0]
    return pipe._unpack_latents(answer, height * 8, width * 8, 8)


def test_it_predicts_what_the_pipelines_transformer_predicts(flux, pipe, prompt):
    noisy = torch.randn(2, 16, 8, 12, generator=torch.Generator().manual_seed(3))
    sigmas = torch.tensor([0.01, 0.9])
    told = flux.encoder.stack(flux.encoder.encode_captions([prompt, "cross"]))
    with torch.no_grad():
        ours = flux.family.predict(flux.denoiser, noisy, 1000 * sigmas, flux.told_guidance(told, 3.5))
    torch.testing.assert_close(ours, asked(pipe, noisy, sigmas, [prompt, "cross"], 3.5), rtol=0, atol=1e-5)
    assert flux.family.name == "flux" and flux.resolution == 1024 and flux.side_step == 16


def test_the_guidance_that_dev_is_told_counts_and_schnell_is_told_none(flux, dev, prompt):
    noisy = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(3))
    told = flux.encoder.stack(flux.encoder.encode_captions([prompt]))
    with torch.no_grad():
        low, high = (
            flux.family.predict(flux.denoiser, noisy, torch.tensor([500.0]), flux.told_guidance(told, scale))
            for scale in (1.0, 5.0)
        )
    assert ((low - high).abs().max() > 1e-3) == dev
    assert ("guidance" in flux.told_guidance(told, 1.0)) == dev


def test_captions_are_encoded_as_the_pipeline_encodes_them(flux, pipe, folder, dev):
    length = 512 if dev else 256
    captions = ["", "a small red ring", LONG]
    for caption, entry in zip(captions, flux.encoder.encode_captions(captions), strict=True):
        words, pooled, _ = pipe.encode_prompt([caption], None, max_sequence_length=length)
        assert entry["text"].shape == (length, 48) and entry["pooled"].shape == (64,)
        torch.testing.assert_close(entry["text"], words[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(entry["pooled"], pooled[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (64, 48)])
def test_noise_target_and_loss_are_those_of_diffusers(flux, pipe, prompt, dev, size):
    """train_dreambooth_lora_flux.py, at the noise levels that the pipeline samples this size at."""
    latents = torch.randn(3, 16, *size, generator=torch.Generator().manual_seed(1))
    drawn = objective.draw(ObjectiveConfig(), latents, 1000, 0, "training", [(n,) for n in range(3)], "logit_normal")
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)
    even = [1 - number / 1000 for number in range(1000)]
    tokens = size[0] * size[1] // 4
    scheduler.set_timesteps(sigmas=even, mu=calculate_shift(tokens, 256, 4096, 0.5, 1.15) if dev else None)
    sigmas = scheduler.sigmas[[999 - int(step) for step in drawn.timesteps]]
    broad = sigmas.reshape(-1, 1, 1, 1)
    noisy = (1.0 - broad) * latents + broad * drawn.noise
    ours = flux.process.add_noise(latents, drawn.noise, drawn.timesteps)
    torch.testing.assert_close(ours, noisy, rtol=0, atol=1e-6)
    if size == (8, 8):
        captions = [prompt, "cross", ""]
        told = flux.encoder.stack(flux.encoder.encode_captions(captions))
        expected = (asked(pipe, noisy, sigmas, captions, 1.0) - (drawn.noise - latents)).square().mean((1, 2, 3))
        with torch.no_grad():
            found = objective.losses(ObjectiveConfig(), flux, flux.denoiser, latents, told, drawn)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_pictures_are_drawn_as_the_pipeline_draws_them(flux, pipe, prompt, dev):
    """The guidance is what dev is told, and what schnell is drawn with whatever is asked."""
    config = PreviewConfig(steps=3, guidance=3.5, sampler="euler", seed=5)
    ours = sampling.draw(flux, [prompt], config, 64, 96)
    noise = torch.randn(1, 16, 12, 8, generator=torch.Generator().manual_seed(5))
    theirs = pipe(
        prompt,
        num_inference_steps=3,
        guidance_scale=3.5,
        latents=packed(noise),
        width=64,
        height=96,
        output_type="pt",
        max_sequence_length=512 if dev else 256,
    ).images
    torch.testing.assert_close(ours, theirs.permute(0, 2, 3, 1), rtol=0, atol=1e-4)
    other = sampling.draw(flux, [prompt], PreviewConfig(steps=3, guidance=1.0, sampler="euler", seed=5), 64, 96)
    assert torch.equal(ours, other) != dev


def test_tokens_come_apart_as_they_were_put_together():
    latents = torch.randn(2, 16, 6, 4)
    assert torch.equal(unpacked(packed(latents), 6, 4), latents)


def test_captions_of_different_length_stand_in_a_batch(flux):
    """The host's are as long as their words want."""
    empty = {"text": torch.arange(3.0).reshape(3, 1), "pooled": torch.zeros(1)}
    entries = [{"text": torch.full((length, 1), 7.0), "pooled": torch.ones(1)} for length in (2, 4)]
    text = flux.family.stack(entries, empty)["text"]
    assert text[..., 0].tolist() == [[7, 7, 2, 2], [7, 7, 7, 7]]


def test_a_transformer_for_inpainting_is_refused(save_random_flux, pipe):
    folder = save_random_flux(pipe.tokenizer, pipe.tokenizer_2, in_channels=384, num_layers=1)
    with pytest.raises(BadInput, match=r"takes 384 channels a token instead of 64: it is made for inpainting"):
        registry.load(str(folder))


def test_a_guidance_that_nobody_is_told_is_refused(flux, dev, model):
    objective.check(ObjectiveConfig(), flux)
    for one in [model] if dev else [model, flux]:
        with pytest.raises(BadInput, match="objective.guidance: 3.5, but .* is told of no guidance while it trains"):
            objective.check(ObjectiveConfig(guidance=3.5), one)
    if dev:
        objective.check(ObjectiveConfig(guidance=3.5), flux)
