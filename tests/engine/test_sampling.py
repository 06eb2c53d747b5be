"""Pictures from a base are those of diffusers' StableDiffusionPipeline, sampler by sampler."""

import diffusers
import pytest
import torch

from trainer_core.engine import sampling
from trainer_core.engine.preview_config import PreviewConfig
from trainer_core.errors import BadInput
from trainer_core.families import registry

CLASSES = {
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_ancestral": "EulerAncestralDiscreteScheduler",
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "unipc": "UniPCMultistepScheduler",
}
PROMPT = "a small red ring on a blue background"


def theirs(pipe, sampler, seed=3, **said):
    """As a user of diffusers swaps the scheduler and draws."""
    pipe.scheduler = getattr(diffusers, CLASSES[sampler]).from_config(pipe.scheduler.config)
    settings = {"num_inference_steps": 6, "guidance_scale": 5.0, "width": 64, "height": 64, **said}
    return pipe(PROMPT, generator=torch.Generator().manual_seed(seed), output_type="pt", **settings).images.permute(
        0, 2, 3, 1
    )


@pytest.mark.parametrize("sampler", CLASSES)
def test_a_sampler_draws_what_diffusers_draws(model, pipeline, sampler):
    config = PreviewConfig(sampler=sampler, steps=6, negative="green", seed=3)
    ours = sampling.draw(model, [PROMPT], config, 64, 64)
    expected = theirs(pipeline(), sampler, negative_prompt="green")
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)
    assert (ours - theirs(pipeline(), sampler, seed=4, negative_prompt="green")).abs().max() > 0.05


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m"])
def test_a_zero_terminal_snr_base_is_sampled_from_its_last_timestep(changed_base, pipeline, sampler):
    base = changed_base(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False
    )
    model = registry.load(str(base))
    config = PreviewConfig(sampler=sampler, steps=6, seed=3)
    ours = sampling.draw(model, [PROMPT], config, 64, 64)
    torch.testing.assert_close(ours, theirs(pipeline(base), sampler), rtol=0, atol=1e-4)


@pytest.mark.parametrize("sampler", CLASSES)
def test_zero_terminal_snr_begins_at_the_last_timestep_whatever_spacing_the_base_names(changed_base, sampler):
    base = changed_base(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="leading")
    schedule = registry.load(str(base)).process.sampler(sampler)
    schedule.set_timesteps(6)
    assert int(schedule.timesteps[0]) == 999


@pytest.mark.parametrize("sampler", ["euler_ancestral", "ddpm"])
def test_samplers_that_add_noise_repeat_themselves_with_the_seed(model, sampler):
    config = PreviewConfig(sampler=sampler, steps=4)
    draws = [sampling.draw(model, [PROMPT], config, 64, 64, [seed]) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert (draws[0] - draws[2]).abs().max() > 0.05


def test_a_picture_does_not_depend_on_the_batch_that_it_was_drawn_in(model):
    prompts, config = [PROMPT, "cross", "a blue heart", "thing"], PreviewConfig(steps=3, seed=20)
    together = sampling.draw(model, prompts, config, 64, 64)
    parted = sampling.draw(model, prompts, config, 64, 64, batch=3)
    alone = sampling.draw(model, ["a blue heart"], config, 64, 64, [22])
    torch.testing.assert_close(parted, together, rtol=0, atol=1e-5)
    torch.testing.assert_close(alone, together[2:3], rtol=0, atol=1e-5)


def test_guidance_of_one_is_the_caption_alone_and_more_leads_away_from_the_negative(model, pipeline):
    plain = sampling.draw(model, [PROMPT], PreviewConfig(sampler="ddim", steps=4, guidance=1.0), 64, 64, [3])
    expected = theirs(pipeline(), "ddim", num_inference_steps=4, guidance_scale=1.0)
    torch.testing.assert_close(plain, expected, rtol=0, atol=1e-4)
    negatives = [
        sampling.draw(model, [PROMPT], PreviewConfig(sampler="ddim", steps=4, negative=text), 64, 64, [3])
        for text in ("", "green triangle")
    ]
    assert (negatives[0] - negatives[1]).abs().max() > 1e-3


def test_sizes_may_differ_from_the_training_size_but_must_be_whole_steps(model):
    assert sampling.draw(model, [PROMPT], PreviewConfig(steps=2), 96, 40).shape == (1, 40, 96, 3)
    with pytest.raises(BadInput, match=r"width: 100 is no multiple of 8; 96 is the nearest below"):
        sampling.draw(model, [PROMPT], PreviewConfig(steps=2), 100, 64)


def test_drawing_can_be_stopped_between_two_steps(model):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 2

    assert sampling.draw(model, [PROMPT], PreviewConfig(steps=50), 64, 64, should_stop=stop) is None
    assert len(asked) == 3


def test_long_and_short_captions_are_drawn_together(model):
    long = ", ".join(["a red ring on a blue background"] * 20)
    pictures = sampling.draw(model, [long, "cross"], PreviewConfig(steps=2), 64, 64)
    assert pictures.shape == (2, 64, 64, 3) and torch.isfinite(pictures).all()


@pytest.mark.parametrize("sampler", ["euler_ancestral", "ddpm", "euler"])
def test_a_seed_repeats_its_picture_whatever_is_drawn_beside_it(model, sampler):
    config = PreviewConfig(sampler=sampler, steps=4)
    both = sampling.draw(model, [PROMPT, PROMPT], config, 64, 64, [0, 1])
    alone = sampling.draw(model, [PROMPT], config, 64, 64, [1])
    assert (both[1] - alone[0]).abs().max() < 1e-4
