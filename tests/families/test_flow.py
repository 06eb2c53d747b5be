"""Rectified flow is diffusers': noise levels, shifts, noising, and what its samplers make of the line."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from trainer_core.families.flow import MULTISTEP, Flow

DYNAMIC = {
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}
EVERY = torch.arange(1000)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_noise_levels_ascend_and_are_those_of_diffusers(shift):
    flow, reference = Flow({"shift": shift}), FlowMatchEulerDiscreteScheduler(shift=shift)
    some = torch.zeros(1, 4, 8, 8)
    torch.testing.assert_close(flow.sigmas(some, EVERY), reference.sigmas.flip(0), rtol=0, atol=1e-6)
    torch.testing.assert_close(flow.told(some, EVERY), reference.timesteps.flip(0), rtol=0, atol=1e-3)
    assert flow.sigmas(some, torch.tensor([999])).item() == 1


@pytest.mark.parametrize("side", [(32, 32), (128, 128), (64, 192)])
def test_a_dynamic_shift_is_the_pipeline_s_for_the_picture_s_size(side):
    flow, some = Flow(DYNAMIC), torch.zeros(1, 16, *side)
    mu = calculate_shift(side[0] // 2 * (side[1] // 2), 256, 4096, 0.5, 1.15)
    reference = FlowMatchEulerDiscreteScheduler(**DYNAMIC)
    expected = reference.time_shift(mu, 1.0, (EVERY.float() + 1) / 1000)
    torch.testing.assert_close(flow.sigmas(some, EVERY), expected, rtol=0, atol=1e-6)
    linear = Flow(DYNAMIC | {"time_shift_type": "linear"})
    reference = FlowMatchEulerDiscreteScheduler(**DYNAMIC, time_shift_type="linear")
    expected = reference.time_shift(mu, 1.0, (EVERY.float() + 1) / 1000)
    torch.testing.assert_close(linear.sigmas(some, EVERY), expected, rtol=0, atol=1e-6)


def test_noising_and_target_are_the_line_between_picture_and_noise():
    flow, reference = Flow({"shift": 3.0}), FlowMatchEulerDiscreteScheduler(shift=3.0)
    clean, noise = torch.randn(2, 3, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    at = torch.tensor([0, 400, 999])
    noisy = flow.add_noise(clean, noise, at)
    expected = reference.scale_noise(clean, reference.timesteps.flip(0)[at], noise)
    torch.testing.assert_close(noisy, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(noisy[2], noise[2])
    sigmas = flow.sigmas(clean, at).view(3, 1, 1, 1)
    torch.testing.assert_close(noisy - sigmas * flow.target(clean, noise, at), clean, rtol=0, atol=1e-5)


def walked(sampler, clean, start):
    """What a perfect denoiser's answers lead to: the line's direction, wherever it is asked."""
    here = start
    for timestep in sampler.timesteps:
        here = sampler.step(start - clean, timestep, here, return_dict=False)[0]
    return here


@pytest.mark.parametrize("config", [{"shift": 3.0}, DYNAMIC], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", Flow.samplers)
def test_every_sampler_walks_the_whole_line(name, config):
    clean, noise = torch.randn(2, 1, 16, 32, 32, generator=torch.Generator().manual_seed(0))
    sampler = Flow(config).begun(name, 8, noise)
    assert len(sampler.timesteps) == 8 and float(sampler.timesteps[0]) >= 998
    atol = 0.02 if name in MULTISTEP else 1e-5  # the multistep ones never begin in noise alone
    torch.testing.assert_close(walked(sampler, clean, noise), clean, rtol=0, atol=atol)


def test_euler_steps_as_diffusers_pipelines_do():
    noise = torch.zeros(1, 16, 32, 32)
    static = FlowMatchEulerDiscreteScheduler(shift=3.0)
    static.set_timesteps(6)
    torch.testing.assert_close(Flow({"shift": 3.0}).begun("euler", 6, noise).sigmas, static.sigmas)
    dynamic = FlowMatchEulerDiscreteScheduler(**DYNAMIC)
    dynamic.set_timesteps(sigmas=[1 - i / 6 for i in range(6)], mu=calculate_shift(256, 256, 4096, 0.5, 1.15))
    torch.testing.assert_close(Flow(DYNAMIC).begun("euler", 6, noise).sigmas, dynamic.sigmas, rtol=0, atol=1e-6)


def test_what_decides_noise_levels_is_in_the_identity_and_nothing_else():
    assert Flow({"shift": 3.0}).identity != Flow({"shift": 1.0}).identity != Flow(DYNAMIC).identity
    assert Flow(DYNAMIC).identity == Flow(DYNAMIC | {"shift": 3.0}).identity
    assert Flow(DYNAMIC).identity != Flow(DYNAMIC | {"max_shift": 1.0}).identity
