"""What the user asks of the pictures that a run draws; obeyed by sampling.py."""

from dataclasses import dataclass

from ..options import option
from .run_config import WEIGHTS


@dataclass(kw_only=True)
class PreviewConfig:
    """Settings of the pictures that are drawn while a run trains."""

    prompts: list[str] = option(
        factory=list,
        help="What to draw; empty = the captions of the first pictures of the dataset",
        separated=False,
        decides=False,
    )
    negative: str = option("", help="What not to draw", decides=False)
    seed: int = option(
        0, help="Seed of the first picture; the next have the next seeds", low=0, high=2**53 - 1, decides=False
    )
    steps: int = option(20, help="Denoising steps", unit="steps", low=1, high=1000, decides=False)
    guidance: float = option(
        5.0,
        help="Guidance scale (Ho & Salimans 2022), or what FLUX.1 dev is told of it; 1 = the caption alone",
        low=0,
        high=100,
        decides=False,
    )
    sampler: str = option(
        "dpmpp_2m",
        help="The sampler",
        # The names in families.diffusion.SAMPLERS, whose classes are too heavy to import here.
        choices=("dpmpp_2m", "euler", "euler_ancestral", "ddim", "ddpm", "unipc"),
        decides=False,
    )
    width: int = option(0, help="0 = as in training", unit="pixels", low=0, high=8192, decides=False, advanced=True)
    height: int = option(0, help="0 = as in training", unit="pixels", low=0, high=8192, decides=False, advanced=True)
    count: int = option(
        4, help="With empty prompts: how many captions", unit="pictures", low=1, high=64, decides=False, advanced=True
    )
    weights: str = option(
        "auto",
        help="What they are drawn with: the trained weights or their moving average (ema); auto = the average, if "
        "run.ema_decay makes one",
        choices=WEIGHTS,
        decides=False,
        advanced=True,
    )
