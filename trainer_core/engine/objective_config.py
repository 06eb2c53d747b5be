"""What the user asks of the loss; obeyed by objective.py."""

from dataclasses import dataclass

from ..options import option


@dataclass(kw_only=True)
class ObjectiveConfig:
    """Settings of the loss. As they stand: the mean squared error at timesteps as the base was taught."""

    timesteps: str = option(
        "auto",
        help="How timesteps are drawn; logit_normal favours the middle, mode and cosmap are those of Esser et al. "
        "2024; auto = logit_normal for flows (SD3, Flux), else uniform",
        choices=("auto", "uniform", "logit_normal", "mode", "cosmap"),
    )
    logit_mean: float = option(
        0.0, help="With logit_normal: above 0 favours noisy timesteps", low=-10, high=10, advanced=True
    )
    logit_std: float = option(1.0, help="With logit_normal: its spread", above=0, high=10, advanced=True)
    mode_scale: float = option(
        1.29, help="With mode: how much the middle is favoured", low=-1, high=1.75, advanced=True
    )
    timestep_min: int = option(0, help="Earliest timestep drawn (0 = no noise)", low=0, high=999, advanced=True)
    timestep_max: int = option(999, help="Latest timestep drawn (999 = noise alone)", low=0, high=999, advanced=True)
    min_snr_gamma: float = option(
        0.0, help="Min-SNR weighting (Hang et al. 2023); 5 is usual, 0 = off", low=0, high=1000
    )
    noise_offset: float = option(
        0.0,
        help="Noise that is constant over a picture, for darker darks; 0.05 to 0.1 is usual, 0 = off",
        low=0,
        high=1,
    )
    loss: str = option(
        "mse", help="Squared error, or an error that grows linearly for outliers", choices=("mse", "huber", "smooth_l1")
    )
    huber_delta: float = option(
        0.1, help="With huber and smooth_l1: where squared turns to linear", above=0, high=100, advanced=True
    )

    guidance: float = option(
        1.0,
        help="The guidance scale that the base is told while it trains, if it is told one (FLUX.1 dev); 1 teaches what "
        "pictures are without any",
        low=0,
        high=100,
        advanced=True,
    )

    def problems(self, where: str = "") -> list[str]:
        if self.timestep_min > self.timestep_max:
            return [f"{where}.timestep_min: {self.timestep_min} is above timestep_max ({self.timestep_max})"]
        return []
