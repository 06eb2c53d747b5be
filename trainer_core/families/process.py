"""How a base was taught to make pictures of noise: what latents become, what is learned, which samplers undo it."""

from typing import Protocol

import torch


class Process(Protocol):
    """`Diffusion` (DDPM) and `Flow` (rectified flow) stand behind these calls.

    Training timesteps are whole numbers in 0..steps - 1 that ascend with the noise, int64 [N]; latents and noise are
    [N, C, h, w].
    """

    prediction_type: str
    """What the denoiser answers: "epsilon", "v_prediction" or "flow"."""
    usual_timesteps: str
    """How `objective.timesteps` is drawn where it is left to the base."""
    samplers: tuple[str, ...]
    """The names of those that can undo it."""

    @property
    def steps(self) -> int:
        """Number of training timesteps."""

    @property
    def identity(self) -> dict:
        """What decides noising and target."""

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The latents as the denoiser is shown them."""

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What it should answer, shaped as the latents."""

    def told(self, latents: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What it is told of the time, [N]."""

    def begun(self, name: str, steps: int, latents: torch.Tensor):
        """A diffusers scheduler in front of its first step.

        Args:
            name: one of `samplers`.
            latents: what it will denoise, [N, C, h, w]; their size may decide its noise levels.
        """
