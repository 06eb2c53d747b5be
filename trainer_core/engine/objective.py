"""What is minimised: which timesteps are drawn, what is added, how errors are measured and weighted."""

from dataclasses import dataclass

import torch
from diffusers.training_utils import compute_density_for_timestep_sampling
from torch import nn
from torch.nn import functional as F

from .. import randomness
from ..errors import BadInput
from ..families.base import TOLD, Conditioning, Model
from .objective_config import ObjectiveConfig

FLOW = "flow"
"""What the denoiser of a flow predicts, see `families.process`."""


@dataclass
class Draw:
    """What chance decides for a batch: noise [N, C, h, w] and timesteps int64 [N]."""

    noise: torch.Tensor
    timesteps: torch.Tensor

    def to(self, device: torch.device) -> "Draw":
        return Draw(self.noise.to(device, non_blocking=True), self.timesteps.to(device, non_blocking=True))


def check(config: ObjectiveConfig, model: Model) -> list[str]:
    """What a person should know of settings that the base passes over, a sentence each.

    Min-SNR is one, and not refused: every preset has it, whatever the base.

    Raises:
        BadInput: settings that say nothing of the base's process.
    """
    if config.guidance != 1 and model.guided_by != TOLD:
        raise BadInput(
            f"objective.guidance: {config.guidance:g}, but {model.name} is told of no guidance while it trains; set it "
            "to 1"
        )
    if config.min_snr_gamma and model.process.prediction_type == FLOW:
        return [
            f"objective.min_snr_gamma: {config.min_snr_gamma:g} does nothing here: {model.family.title} is a flow, "
            "whose losses Min-SNR does not weigh"
        ]
    return []


def draw(
    config: ObjectiveConfig,
    latents: torch.Tensor,
    steps: int,
    seed: int,
    purpose: str,
    names: list,
    usual: str = "uniform",
) -> Draw:
    """Noise and a timestep for each item, each keyed by (seed, purpose, name): on the CPU, whatever trains where.

    Args:
        steps: number of the process's timesteps.
        names: what identifies each item's draw, such as (micro-step, item key, position); as many as latents.
        usual: the base's own way to draw timesteps, for "auto".
    """
    noises, timesteps, way = [], [], usual if config.timesteps == "auto" else config.timesteps
    for name in names:
        generator = randomness.generator(seed, purpose, *name)
        timesteps.append(_timestep(config, way, steps, generator))
        noise = torch.randn(latents.shape[1:], generator=generator)
        if config.noise_offset:
            noise += config.noise_offset * torch.randn(latents.shape[1], 1, 1, generator=generator)
        noises.append(noise)
    return Draw(torch.stack(noises), torch.tensor(timesteps))


def _timestep(config: ObjectiveConfig, way: str, steps: int, generator: torch.Generator) -> int:
    # The settings count in thousandths of the schedule: Kolors' has 1,100 timesteps.
    low = config.timestep_min * steps // 1000
    high = max(low, (config.timestep_max + 1) * steps // 1000 - 1)
    if way == "uniform":
        return int(torch.randint(low, high + 1, (1,), generator=generator))
    if way == "cosmap":
        # pi * density = 2 / (1 - 2u + 2u²) has this inverse distribution function (Esser et al. 2024, section 3.1).
        u = 1 - 1 / (torch.tan(torch.pi / 2 * torch.rand(1, generator=generator)) + 1)
    else:
        u = compute_density_for_timestep_sampling(
            way, 1, config.logit_mean, config.logit_std, config.mode_scale, generator=generator
        )
    return low + min(int(float(u) * (high - low + 1)), high - low)


def losses(
    config: ObjectiveConfig,
    model: Model,
    denoiser: nn.Module,
    latents: torch.Tensor,
    conditioning: Conditioning,
    drawn: Draw,
    masks: torch.Tensor | None = None,
) -> torch.Tensor:
    """The weighted loss of each item: float32 [N].

    Args:
        denoiser: the model's own, or what accelerate wrapped around it.
        latents: clean, [N, C, h, w], on the denoiser's device.
        masks: how much each place counts, [N, 1, h, w] in 0..1; None where all count alike.
    """
    process = model.process
    noisy = process.add_noise(latents, drawn.noise, drawn.timesteps)
    times = process.told(latents, drawn.timesteps)
    told = model.told_guidance(conditioning, config.guidance)
    predicted = model.family.predict(denoiser, noisy, times, told).float()
    target = process.target(latents, drawn.noise, drawn.timesteps).float()
    return errors(config, predicted, target, masks) * weights(config, model, drawn.timesteps)


def errors(
    config: ObjectiveConfig, predicted: torch.Tensor, target: torch.Tensor, masks: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean error of each item, [N]; with masks w the weighted mean sum(w·e) / sum(w), so that a small mask counts as
    much as a large one, and 0 where nothing of an item counts."""
    if config.loss == "mse":
        each = F.mse_loss(predicted, target, reduction="none")
    elif config.loss == "huber":
        each = F.huber_loss(predicted, target, reduction="none", delta=config.huber_delta)
    else:
        each = F.smooth_l1_loss(predicted, target, reduction="none", beta=config.huber_delta)
    inner = tuple(range(1, each.ndim))
    if masks is None:
        return each.mean(dim=inner)
    # As a quotient of means: a mask of ones gives the bits of no mask.
    share = masks.mean(dim=inner).clamp(min=torch.finfo(torch.float32).tiny)
    return (each * masks).mean(dim=inner) / share


def weights(config: ObjectiveConfig, model: Model, timesteps: torch.Tensor) -> torch.Tensor | float:
    """Min-SNR-γ: min(snr, γ) / snr for epsilon, min(snr, γ) / (snr + 1) for v (Hang et al. 2023, eq. 7 and 3.4).

    1 for flows, which have no such weights.
    """
    if not config.min_snr_gamma or model.process.prediction_type == FLOW:
        return 1.0
    snr, gamma = model.process.snr(timesteps), config.min_snr_gamma
    if model.process.prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    # Written so that it is 1, not 0 / 0, where a zero-terminal-SNR schedule leaves no signal.
    return (gamma / snr).clamp(max=1)
