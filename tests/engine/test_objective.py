"""The loss is diffusers' own: same draws, same numbers, same gradients; and timesteps fall as the papers say."""

import math

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3, compute_snr
from peft import LoraConfig
from torch.nn import functional as F

from trainer_core.adapters import lora
from trainer_core.adapters.lora_config import LoRAConfig
from trainer_core.engine import objective
from trainer_core.engine.objective_config import ObjectiveConfig
from trainer_core.families import registry

SCHEDULES = {
    "epsilon": {},
    "v_prediction": {"prediction_type": "v_prediction"},
    "zero terminal SNR": {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
}


@pytest.fixture(params=SCHEDULES)
def scheduled_base(request, changed_base):
    return changed_base(**SCHEDULES[request.param])


def batch(model, timesteps):
    numbers = torch.Generator().manual_seed(4)
    latents = torch.randn(len(timesteps), 4, 8, 8, generator=numbers)
    noise = torch.randn(latents.shape, generator=numbers)
    words = model.encoder.stack(model.encoder.encode_captions(["a red ring", "a blue square", "cross"]))
    return latents, words, objective.Draw(noise, torch.tensor(timesteps))


def diffusers_unet(base, like):
    """diffusers' UNet with peft's LoRA in it, put there by diffusers, its tensors those of our denoiser."""
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    ours = lora.parameters(like)
    theirs = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    assert theirs.keys() == ours.keys()
    with torch.no_grad():
        for name, parameter in theirs.items():
            parameter.copy_(ours[name])
    return unet, theirs


def fill_up(denoiser):
    """B begins at zero, where the gradient of A vanishes; numbers in it make both halves count."""
    numbers = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for name, parameter in lora.parameters(denoiser).items():
            if ".lora_B." in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=numbers))


def injected(base, **settings):
    model = registry.load(str(base))
    config = LoRAConfig(rank=4, alpha=8.0, **settings)
    lora.inject(model.denoiser, config, lora.targeted_modules(model.denoiser, config, model.family.targets), seed=3)
    fill_up(model.denoiser)
    return model


def test_the_plain_loss_and_its_gradients_equal_those_of_diffusers_training_script(scheduled_base):
    model = injected(scheduled_base)
    latents, words, drawn = batch(model, [3, 480, 999])
    loss = objective.losses(ObjectiveConfig(), model, model.denoiser, latents, words, drawn).mean()
    loss.backward()

    # As in examples/text_to_image/train_text_to_image_lora.py.
    scheduler = DDPMScheduler.from_pretrained(scheduled_base / "scheduler")
    unet, theirs = diffusers_unet(scheduled_base, model.denoiser)
    noisy = scheduler.add_noise(latents, drawn.noise, drawn.timesteps)
    target = (
        drawn.noise
        if scheduler.config.prediction_type == "epsilon"
        else scheduler.get_velocity(latents, drawn.noise, drawn.timesteps)
    )
    predicted = unet(noisy, drawn.timesteps, words["text"], return_dict=False)[0]
    expected = F.mse_loss(predicted.float(), target.float(), reduction="mean")
    expected.backward()

    assert abs(loss.item() - expected.item()) < 1e-6
    ours = lora.parameters(model.denoiser)
    assert max(p.grad.abs().max() for p in ours.values()) > 1e-3
    for name, parameter in theirs.items():
        torch.testing.assert_close(ours[name].grad, parameter.grad, rtol=1e-5, atol=1e-6)


def test_a_zero_terminal_snr_schedule_ends_in_noise_alone(changed_base):
    model = registry.load(str(changed_base(**SCHEDULES["zero terminal SNR"])))
    latents, _, drawn = batch(model, [999] * 3)
    torch.testing.assert_close(model.process.add_noise(latents, drawn.noise, drawn.timesteps), drawn.noise)
    assert model.process.snr(torch.tensor([999])).item() == 0


def test_min_snr_weights_equal_diffusers_formula(scheduled_base):
    model = registry.load(str(scheduled_base))
    timesteps = torch.arange(0, 999, 9)
    scheduler = DDPMScheduler.from_pretrained(scheduled_base / "scheduler")
    snr = compute_snr(scheduler, timesteps)
    # As in train_text_to_image_lora.py with --snr_gamma=5.
    expected = torch.stack([snr, 5 * torch.ones_like(snr)], dim=1).min(dim=1)[0]
    expected = expected / (snr if scheduler.config.prediction_type == "epsilon" else snr + 1)
    found = objective.weights(ObjectiveConfig(min_snr_gamma=5), model, timesteps)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    assert found.max() / found.min() > 10


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_finite_where_no_signal_is_left(changed_base, prediction):
    base = changed_base(prediction_type=prediction, rescale_betas_zero_snr=True)
    weights = objective.weights(ObjectiveConfig(min_snr_gamma=5), registry.load(str(base)), torch.arange(1000))
    assert torch.isfinite(weights).all()
    assert weights[-1] == (1 if prediction == "epsilon" else 0)


def test_without_min_snr_every_timestep_weighs_one(model):
    assert objective.weights(ObjectiveConfig(), model, torch.arange(1000)) == 1


def test_huber_and_smooth_l1_are_squared_near_zero_and_linear_far_away():
    target = torch.zeros(2, 1, 2, 2)
    predicted = torch.tensor([0.05, 3.0])[:, None, None, None].expand(2, 1, 2, 2)
    huber = objective.errors(ObjectiveConfig(loss="huber", huber_delta=0.1), predicted, target)
    smooth = objective.errors(ObjectiveConfig(loss="smooth_l1", huber_delta=0.1), predicted, target)
    torch.testing.assert_close(huber, torch.tensor([0.05**2 / 2, 0.1 * (3 - 0.05)]))
    torch.testing.assert_close(smooth, huber / 0.1)
    squared = objective.errors(ObjectiveConfig(), predicted, target)
    torch.testing.assert_close(squared, torch.tensor([0.05**2, 9.0]))


# ---- what is drawn


def drawn(steps=1000, count=4000, channels=(1, 1, 1), seed=5, **settings):
    latents = torch.zeros(1, *channels).expand(count, *channels)
    names = [(0, "item", number) for number in range(count)]
    return objective.draw(ObjectiveConfig(**settings), latents, steps, seed, "training", names)


def distance(sample, distribution):
    """Kolmogorov-Smirnov: the largest gap between two distribution functions."""
    grid = torch.linspace(0, 1, 2001)
    both = [torch.searchsorted(x.sort().values, grid, right=True) / len(x) for x in (sample, distribution)]
    return (both[0] - both[1]).abs().max().item()


LIMIT = 1.63 * math.sqrt(1 / 4000 + 1 / 200_000)
"""Samples of one distribution are farther apart once in a hundred; these are seeded, so it is pass or fail."""


@pytest.mark.parametrize(
    "settings",
    [
        {"timesteps": "uniform"},
        {"timesteps": "logit_normal"},
        {"timesteps": "logit_normal", "logit_mean": 0.8, "logit_std": 0.5},
        {"timesteps": "mode"},
        {"timesteps": "mode", "mode_scale": -0.5},
    ],
    ids=str,
)
def test_timesteps_are_distributed_as_diffusers_draws_them(settings):
    config = ObjectiveConfig(**settings)
    reference = compute_density_for_timestep_sampling(
        config.timesteps,
        200_000,
        config.logit_mean,
        config.logit_std,
        config.mode_scale,
        generator=torch.Generator().manual_seed(1),
    )
    sample = (drawn(**settings).timesteps + 0.5) / 1000
    assert distance(sample, reference) < LIMIT
    others = {"logit_normal": torch.rand(200_000), "mode": torch.rand(200_000), "uniform": torch.rand(200_000) ** 1.2}
    assert distance(sample, others[config.timesteps]) > 2 * LIMIT


def test_cosmap_timesteps_have_the_density_that_diffusers_weights_losses_by():
    """diffusers draws uniformly and weights by 2 / (pi (1 - 2t + 2t²)); drawing by that density has the same mean."""
    grid = (torch.arange(200_000) + 0.5) / 200_000
    density = compute_loss_weighting_for_sd3("cosmap", grid)
    assert abs(density.mean() - 1) < 1e-4
    cumulative = density.cumsum(0) / density.sum()
    reference = grid[torch.searchsorted(cumulative, grid).clamp(max=len(grid) - 1)]
    sample = (drawn(timesteps="cosmap").timesteps + 0.5) / 1000
    assert distance(sample, reference) < LIMIT
    assert distance(sample, grid) > 2 * LIMIT


def test_a_higher_logit_mean_favours_noisy_timesteps():
    assert drawn(timesteps="logit_normal", logit_mean=1.0).timesteps.float().mean() > 650
    assert drawn(timesteps="logit_normal", logit_mean=-1.0).timesteps.float().mean() < 350


@pytest.mark.parametrize("sampling", ["uniform", "logit_normal", "mode", "cosmap"])
def test_timesteps_stay_within_their_bounds_and_reach_both(sampling):
    found = drawn(timesteps=sampling, timestep_min=990, timestep_max=993).timesteps
    assert set(found.tolist()) == {990, 991, 992, 993}
    short = drawn(steps=4, timesteps=sampling).timesteps
    assert set(short.tolist()) == {0, 1, 2, 3}


def test_a_draw_depends_on_its_name_alone():
    latents, config = torch.zeros(3, 4, 8, 8), ObjectiveConfig(noise_offset=0.1, timesteps="mode")
    whole = objective.draw(config, latents, 1000, 5, "training", [(0, "a", 0), (0, "b", 1), (1, "a", 0)])
    alone = objective.draw(config, latents[:1], 1000, 5, "training", [(0, "b", 1)])
    assert torch.equal(whole.noise[1], alone.noise[0])
    assert whole.timesteps[1] == alone.timesteps[0]
    assert not torch.equal(whole.noise[0], whole.noise[2])
    other = objective.draw(config, latents[:1], 1000, 6, "training", [(0, "b", 1)])
    assert not torch.equal(alone.noise, other.noise)


def test_noise_has_unit_variance_and_the_offset_adds_its_square_to_the_mean_of_a_channel():
    plain = drawn(channels=(4, 8, 8), count=500).noise
    offset = drawn(channels=(4, 8, 8), count=500, noise_offset=0.5).noise
    assert abs(plain.var() - 1) < 0.01
    assert abs(plain.mean((2, 3)).var() - 1 / 64) < 0.002
    assert abs(offset.mean((2, 3)).var() - (1 / 64 + 0.25)) < 0.02
    channels = offset.mean((2, 3))
    assert abs((channels[:, 0] * channels[:, 1]).mean()) < 0.05  # each channel has an offset of its own
    # Only the mean of a channel differs, and the rest of the noise is the same draw.
    assert (offset - plain).std((2, 3)).max() < 1e-6
