"""The forward process of denoising diffusion (DDPM) as a checkpoint's scheduler configuration describes it."""

import itertools

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

SAMPLERS = {
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_ancestral": EulerAncestralDiscreteScheduler,
    "ddim": DDIMScheduler,
    "ddpm": DDPMScheduler,
    "unipc": UniPCMultistepScheduler,
}


TERMINAL = 1000.0
"""A noise level above this stands for the end of a zero-terminal-SNR schedule; Stable Diffusion's own ends at 14.6."""


class Diffusion:
    """Noising, the target that the denoiser learns, and the samplers that undo it; implements
    `families.process.Process`.

    Args:
        config: a diffusers scheduler configuration; prediction_type and rescale_betas_zero_snr are obeyed.
    """

    usual_timesteps = "uniform"
    samplers = tuple(SAMPLERS)

    def __init__(self, config: dict):
        self.scheduler = DDPMScheduler.from_config(config)
        self.prediction_type: str = self.scheduler.config.prediction_type
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(f"prediction_type {self.prediction_type!r} is not one that trains: epsilon, v_prediction")

    @classmethod
    def from_sigmas(cls, sigmas: torch.Tensor, prediction_type: str, *usual: dict) -> "Diffusion":
        """The process whose noise levels somebody else's sampler tells.

        Args:
            sigmas: float32 [T], ascending, sqrt((1 - a_t) / a_t) of each timestep; what is huge at the end stands for
                the infinite one of a zero-terminal-SNR schedule, which samplers cannot hold.
            prediction_type: "epsilon" or "v_prediction".
            usual: the family's own configurations, of which the one that fits is taken (and so named alike everywhere).
        """
        alphas = 1 / (1 + sigmas.double() ** 2)
        zero = bool(sigmas[-1] > TERMINAL)
        for own, rescaled in itertools.product(usual, dict.fromkeys((zero, False))):
            known = cls(own | {"prediction_type": prediction_type, "rescale_betas_zero_snr": rescaled})
            reference = known.scheduler.alphas_cumprod.double()
            if reference.shape == alphas.shape and torch.allclose(alphas, reference, rtol=1e-3, atol=1e-6):
                return known
        betas = 1 - alphas / torch.cat([torch.ones(1, dtype=torch.float64), alphas[:-1]])
        return cls(
            usual[0]
            | {
                "prediction_type": prediction_type,
                "trained_betas": betas.tolist(),
                "num_train_timesteps": len(betas),
                "rescale_betas_zero_snr": False,
            }
        )

    @property
    def identity(self) -> dict:
        """What decides noising and target: the schedule of the betas, and what is predicted."""
        names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
        return {key: self.scheduler.config[key] for key in (*names, "rescale_betas_zero_snr", "prediction_type")}

    @property
    def steps(self) -> int:
        """Number of training timesteps (1,000 for Stable Diffusion)."""
        return self.scheduler.config.num_train_timesteps

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e (Ho et al. 2020, eq. 4); all [N, C, h, w], timesteps int64 [N]."""
        return self.scheduler.add_noise(latents, noise, timesteps)

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The noise, or v = sqrt(a_t) e - sqrt(1 - a_t) x_0 (Salimans & Ho 2022, appendix D), shaped as the latents."""
        if self.prediction_type == "v_prediction":
            return self.scheduler.get_velocity(latents, noise, timesteps)
        return noise

    def told(self, latents: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The timesteps themselves."""
        return timesteps

    def snr(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Signal-to-noise ratio a_t / (1 - a_t), float32 [N]; 0 at the end of a zero-terminal-SNR schedule."""
        alphas = self.scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
        return alphas / (1 - alphas)

    def begun(self, name: str, steps: int, latents: torch.Tensor):
        sampler = self.sampler(name)
        sampler.set_timesteps(steps, device=latents.device)
        return sampler

    def sampler(self, name: str):
        """A diffusers scheduler over the same process, by a name in `SAMPLERS`."""
        config = dict(self.scheduler.config)
        # These belong to the class a configuration was written for; a sampler of another class has its own defaults.
        for private in ("_class_name", "_diffusers_version", "variance_type", "clip_sample"):
            config.pop(private, None)
        extra = {"clip_sample": False} if name in ("ddim", "ddpm") else {}
        if self.scheduler.alphas_cumprod[-1] < 1 / TERMINAL**2 and "timestep_spacing" in config:
            # Lin et al. 2024: with zero terminal SNR sampling must begin at the last timestep.
            config["timestep_spacing"] = "trailing"
        return SAMPLERS[name].from_config(config, **extra)
