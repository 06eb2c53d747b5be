"""Stable Diffusion 3 from a folder: the same model as diffusers' own pipeline makes of it."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

from trainer_core.engine import objective, sampling
from trainer_core.engine.objective_config import ObjectiveConfig
from trainer_core.engine.preview_config import PreviewConfig
from trainer_core.errors import BadInput
from trainer_core.families import registry

LONG = " ".join(["ring"] * 300)


@pytest.fixture(scope="module", params=["sd3_base", "sd35_base"])
def folder(request):
    """With T5 and as 3 medium is, and without T5 and as 3.5 medium is."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def pipe(folder):
    # diffusers wants to be told that they are left out.
    none = {} if (folder / "text_encoder_3").is_dir() else {"text_encoder_3": None, "tokenizer_3": None}
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, local_files_only=True, **none)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def sd3(folder):
    """Loaded once: nothing here changes it."""
    return registry.load(str(folder))


def told_by(pipe, *captions):
    with torch.no_grad():
        pairs = [pipe.encode_prompt(text, None, None, do_classifier_free_guidance=False) for text in captions]
    return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[2] for pair in pairs])


def test_a_folder_predicts_what_diffusers_predicts_from_it(sd3, pipe, predict, prompt):
    words, pooled = told_by(pipe, prompt, "cross")
    noisy = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = pipe.transformer(noisy, words, pooled, torch.tensor([10, 900])).sample
    assert sd3.family.name == "sd3" and sd3.resolution == 64 and sd3.side_step == 16
    torch.testing.assert_close(predict(sd3, prompt), expected, rtol=0, atol=1e-5)


def test_captions_are_encoded_as_diffusers_pipeline_encodes_them(sd3, pipe):
    captions = ["", "a small red ring", LONG]
    for caption, entry in zip(captions, sd3.encoder.encode_captions(captions), strict=True):
        words, pooled = told_by(pipe, caption)
        assert entry["text"].shape == (77 + 256, 112) and entry["pooled"].shape == (80,)
        torch.testing.assert_close(entry["text"], words[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(entry["pooled"], pooled[0], rtol=0, atol=1e-5)


def test_noise_target_and_loss_are_those_of_diffusers_training_script(sd3, pipe, prompt):
    """train_dreambooth_lora_sd3.py: sigmas of the scheduler, x_t = (1 - s) x + s e, target e - x, squared error."""
    latents = torch.randn(3, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    conditioning = sd3.encoder.stack(sd3.encoder.encode_captions([prompt, "cross", ""]))
    drawn = objective.draw(ObjectiveConfig(), latents, 1000, 0, "training", [(n,) for n in range(3)], "logit_normal")
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)
    # Its tables descend.
    places = [999 - int(step) for step in drawn.timesteps]
    sigmas, times = scheduler.sigmas[places].reshape(-1, 1, 1, 1), scheduler.timesteps[places]
    noisy = (1.0 - sigmas) * latents + sigmas * drawn.noise
    torch.testing.assert_close(sd3.process.add_noise(latents, drawn.noise, drawn.timesteps), noisy, rtol=0, atol=1e-6)
    with torch.no_grad():
        predicted = pipe.transformer(noisy, conditioning["text"], conditioning["pooled"], times).sample
        expected = ((predicted - (drawn.noise - latents)) ** 2).mean((1, 2, 3))
        found = objective.losses(ObjectiveConfig(), sd3, sd3.denoiser, latents, conditioning, drawn)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_pictures_are_drawn_as_diffusers_pipeline_draws_them(sd3, pipe, prompt):
    config = PreviewConfig(steps=3, guidance=4.0, sampler="euler", negative="blue", seed=5)
    ours = sampling.draw(sd3, [prompt], config, 64, 96)
    noise = torch.randn(1, 16, 12, 8, generator=torch.Generator().manual_seed(5))
    given = {"num_inference_steps": 3, "guidance_scale": 4.0, "latents": noise, "width": 64, "height": 96}
    theirs = pipe(prompt, negative_prompt="blue", output_type="pt", **given).images
    torch.testing.assert_close(ours, theirs.permute(0, 2, 3, 1), rtol=0, atol=1e-4)


def test_a_base_without_t5_says_what_that_means(sd35_base, caplog):
    registry.load(str(sd35_base))
    assert "brings no T5 (text_encoder_3)" in caplog.text and "zeros stand for what T5 would say" in caplog.text


def test_a_t5_that_should_be_there_is_missed(sd3_base, tmp_path):
    for path in sd3_base.iterdir():
        if path.name != "text_encoder_3":
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(BadInput, match="lacks text_encoder_3/config.json; a Stable Diffusion 3 folder has them all"):
        registry.load(str(tmp_path))


def test_captions_of_different_length_stand_in_a_batch(sd3):
    """The host's are as long as their words want."""
    empty = {"text": torch.arange(3.0).reshape(3, 1), "pooled": torch.zeros(1)}
    entries = [{"text": torch.full((length, 1), 7.0), "pooled": torch.ones(1)} for length in (2, 4)]
    text = sd3.family.stack(entries, empty)["text"]
    assert text[..., 0].tolist() == [[7, 7, 2, 2], [7, 7, 7, 7]]


def test_a_transformer_with_other_channels_is_refused(sd3):
    config = dict(sd3.denoiser.config) | {"in_channels": 33}
    with pytest.raises(BadInput, match="transformer of x takes 33 channels instead of 16"):
        sd3.family._check(SD3Transformer2DModel.from_config(config), "x")
