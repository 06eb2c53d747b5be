"""Pictures from noise: diffusers' samplers around a family's predict(), with the guidance that the base knows."""

import itertools
from collections.abc import Callable

import torch

from ..data.views import time_ids
from ..errors import BadInput
from ..families.base import BY_TWO_ANSWERS, Conditioning, Encoder, Model
from .preview_config import PreviewConfig

ANCESTRAL = ("euler_ancestral", "ddpm")
"""Samplers that add noise on the way; as in diffusers' pipelines it comes from the generator of the first noise."""


def start_noise(generator: torch.Generator, width: int, height: int, encoder: Encoder, channels: int) -> torch.Tensor:
    """Noise [1, C, height / step, width / step], as diffusers' pipelines draw it from a CPU generator."""
    shape = (1, channels, height // encoder.pixel_step, width // encoder.pixel_step)
    return torch.randn(shape, generator=generator)


@torch.no_grad()
def sample(
    model: Model,
    conditioning: Conditioning,
    unconditional: Conditioning,
    noise: torch.Tensor,
    config: PreviewConfig,
    generators: list[torch.Generator],
    should_stop: Callable[[], bool] | None = None,
    stepped: Callable[[], None] | None = None,
) -> torch.Tensor | None:
    """Denoises a batch.

    Args:
        conditioning, unconditional: batched alike, on any device.
        noise: standard normal, [N, C, h, w].
        generators: one a picture, on the CPU: of the noise that ancestral samplers add.
        stepped: called after each step.

    Returns:
        Latents [N, C, h, w] on the CPU; None if `should_stop` said so between two steps.
    """
    device = next(model.denoiser.parameters()).device
    dtype = next(model.denoiser.parameters()).dtype
    guided = config.guidance != 1.0 and model.guided_by == BY_TWO_ANSWERS
    told = {key: torch.cat([unconditional[key], value]) if guided else value for key, value in conditioning.items()}
    told = {
        key: value.to(device, dtype) if value.is_floating_point() else value.to(device) for key, value in told.items()
    }
    told = model.told_guidance(told, config.guidance)
    latents = noise.to(device)
    sampler = model.process.begun(config.sampler, config.steps, latents)
    # diffusers' sampler of flows neither has these, nor would they do anything.
    latents = latents * getattr(sampler, "init_noise_sigma", 1.0)
    scale = getattr(sampler, "scale_model_input", lambda given, timestep: given)
    extra = {"generator": generators} if config.sampler in ANCESTRAL else {}
    for timestep in sampler.timesteps:
        if should_stop and should_stop():
            return None
        doubled = torch.cat([latents] * 2) if guided else latents
        scaled = scale(doubled, timestep).to(dtype)
        predicted = model.family.predict(model.denoiser, scaled, timestep.expand(len(scaled)), told).float()
        if guided:
            without, with_caption = predicted.chunk(2)
            predicted = without + config.guidance * (with_caption - without)
        latents = sampler.step(predicted, timestep, latents, **extra, return_dict=False)[0]
        if stepped:
            stepped()
    return latents.cpu()


def check_sampler(name: str, model: Model) -> None:
    """
    Raises:
        BadInput: the base's process has no such sampler.
    """
    if name not in model.process.samplers:
        raise BadInput(
            f"preview.sampler: {name} is for denoising diffusion, and {model.family.title} is a flow; choose one of "
            f"{', '.join(model.process.samplers)}"
        )


def check_size(width: int, height: int, step: int) -> None:
    """
    Raises:
        BadInput: a side, in pixels, is no multiple of `step`.
    """
    for side, name in ((width, "width"), (height, "height")):
        if side % step:
            raise BadInput(
                f"preview.{name}: {side} is no multiple of {step}; {side // step * step} is the nearest below"
            )


def draw(
    model: Model,
    prompts: list[str],
    config: PreviewConfig,
    width: int,
    height: int,
    seeds: list[int] | None = None,
    entries: tuple[list[Conditioning], Conditioning] | None = None,
    batch: int = 8,
    should_stop: Callable[[], bool] | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> torch.Tensor | None:
    """Pictures for prompts: float32 [N, H, W, 3] in 0..1.

    Args:
        seeds: one a prompt; `config.seed` and the following ones if not given.
        entries: the encoded prompts and the encoded negative one, where they were encoded before.
        batch: pictures denoised together.
        watch: told (done, total) denoising steps of all batches.

    Raises:
        BadInput: a size that the base cannot draw, or a sampler that is not for it.
    """
    check_size(width, height, model.side_step)
    check_sampler(config.sampler, model)

    def stepped() -> None:
        if watch:
            watch(next(done), total)

    seeds = seeds or [config.seed + i for i in range(len(prompts))]
    told, negative = entries or (
        model.encoder.encode_captions(prompts),
        model.encoder.encode_captions([config.negative])[0],
    )
    channels = model.family.latent_channels
    pictures, done, total = [], itertools.count(1), -(-len(prompts) // batch) * config.steps
    for start in range(0, len(prompts), batch):
        part = told[start : start + batch]
        both = model.encoder.stack([*part, *[negative] * len(part)])
        if model.family.sized:
            both["time_ids"] = time_ids((height, width), (0, 0), (height, width)).expand(2 * len(part), 6)
        conditioning = model.decorated({key: value[: len(part)] for key, value in both.items()}, on=True)
        unconditional = model.decorated({key: value[len(part) :] for key, value in both.items()}, on=False)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + batch]]
        noise = torch.cat([start_noise(g, width, height, model.encoder, channels) for g in generators])
        latents = sample(model, conditioning, unconditional, noise, config, generators, should_stop, stepped)
        if latents is None:
            return None
        pictures += [model.encoder.decode(one[None]) for one in latents]
    return torch.cat(pictures)
