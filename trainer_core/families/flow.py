"""Rectified flow (Liu et al. 2022; Esser et al. 2024, section 3) as a base's scheduler configuration describes it."""

import math

import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

MULTISTEP = {"dpmpp_2m": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}


class Flow:
    """Straight lines from pictures to noise; implements `families.process.Process`.

    Args:
        config: of a FlowMatchEulerDiscreteScheduler; obeyed are num_train_timesteps, shift, and with
            use_dynamic_shifting base_shift, max_shift, base_image_seq_len, max_image_seq_len and time_shift_type.
        patch: the denoiser sees so many latents a side as one token; the number of tokens decides a dynamic shift.
        even: whether euler goes down from 1 to 1 / steps, as with a dynamic shift, instead of from the schedule's first
            level to its last.
    """

    prediction_type = "flow"
    usual_timesteps = "logit_normal"
    samplers = ("dpmpp_2m", "euler", "unipc")

    def __init__(self, config: dict, patch: int = 2, even: bool = False):
        self.scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
        self.patch, self.even = patch, even or self.scheduler.config.use_dynamic_shifting

    @property
    def steps(self) -> int:
        return self.scheduler.config.num_train_timesteps

    @property
    def identity(self) -> dict:
        told = self.scheduler.config
        names = ["num_train_timesteps", "use_dynamic_shifting"]
        if told.use_dynamic_shifting:
            names += ["base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type"]
        else:
            names.append("shift")
        return {"prediction_type": self.prediction_type} | {name: told[name] for name in names}

    def shift(self, latents: torch.Tensor) -> float:
        """How far noise levels are moved towards noise: s -> shift·s / (1 + (shift - 1)·s) (Esser et al. 2024, eq. 23).

        A dynamic one grows with the number of tokens, as in diffusers' `calculate_shift`: it is e^m, m on the line
        through (base_image_seq_len, base_shift) and (max_image_seq_len, max_shift); m itself where time_shift_type is
        "linear".
        """
        told = self.scheduler.config
        if not told.use_dynamic_shifting:
            return float(told.shift)
        tokens = (latents.shape[-2] // self.patch) * (latents.shape[-1] // self.patch)
        slope = (told.max_shift - told.base_shift) / (told.max_image_seq_len - told.base_image_seq_len)
        moved = told.base_shift + slope * (tokens - told.base_image_seq_len)
        return math.exp(moved) if told.time_shift_type == "exponential" else moved

    def sigmas(self, latents: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The share of noise at each timestep, float32 [N] in 0..1; 1 at the last."""
        even, shift = (timesteps.float() + 1) / self.steps, self.shift(latents)
        return shift * even / (1 + (shift - 1) * even)

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x_s = (1 - s) x_0 + s e."""
        sigmas = self._broad(latents, timesteps)
        return (1 - sigmas) * latents + sigmas * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The direction of the line, e - x_0."""
        return noise - latents

    def told(self, latents: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The share of noise, counted to the number of training timesteps: float32 in 0..1000."""
        return self.sigmas(latents, timesteps) * self.steps

    def begun(self, name: str, steps: int, latents: torch.Tensor):
        device, told = latents.device, self.scheduler.config
        if name in MULTISTEP:
            sampler = MULTISTEP[name](
                num_train_timesteps=self.steps,
                prediction_type="flow_prediction",
                use_flow_sigmas=True,
                flow_shift=self.shift(latents),
            )
            sampler.set_timesteps(steps, device=device)
            return sampler
        if not self.even:
            sampler = FlowMatchEulerDiscreteScheduler.from_config(told)
            sampler.set_timesteps(steps, device=device)
            return sampler
        # As the pipelines of such bases do: even levels, which end at 1 / steps, and then the shift.
        sampler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=self.steps, shift=self.shift(latents))
        even = [1 - i / steps for i in range(steps)]
        sampler.set_timesteps(sigmas=even, device=device)
        return sampler

    def _broad(self, latents: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return self.sigmas(latents, timesteps).reshape(-1, *[1] * (latents.ndim - 1))
