"""What a MODEL of the host was taught: read off the sampling object by which the host itself samples."""

import math

import comfy.model_sampling

from ...trainer_core.errors import BadInput
from ...trainer_core.families.base import Family
from ...trainer_core.families.diffusion import Diffusion
from ...trainer_core.families.flow import Flow
from ...trainer_core.families.process import Process

SAMPLING = "model_sampling"
"""The object patch that nodes such as ModelSamplingDiscrete and ModelSamplingSD3 set."""
PREDICTIONS = {"V_PREDICTION": "v_prediction", "EPS": "epsilon"}
"""The host's classes, and diffusers' words for what they say."""


def process_of(patcher, family: Family) -> Process:
    """The process that the MODEL samples by, patches on it included.

    Raises:
        BadInput: it samples in a way that is not trained.
    """
    sampling = patcher.get_model_object(SAMPLING)
    parents = type(sampling).__bases__
    known = comfy.model_sampling
    if known.ModelSamplingDiscrete in parents:
        for name, prediction in PREDICTIONS.items():
            if getattr(known, name) in parents:
                usual = family.schedules or (family.schedule,)
                return Diffusion.from_sigmas(sampling.sigmas.detach().cpu(), prediction, *usual)
    if known.CONST in parents and getattr(sampling, "noise_scale", 1.0) == 1.0:
        if known.ModelSamplingDiscreteFlow in parents:
            return Flow({"shift": float(sampling.shift)}, family.patch, family.even_levels)
        if known.ModelSamplingFlux in parents:
            # The host samples by one shift at every size unless a node sets another; the base was taught by the size.
            told = {"shift": math.exp(sampling.shift)} if SAMPLING in patcher.object_patches else family.schedule
            return Flow(told, family.patch, family.even_levels)
    raise BadInput(
        f"model: samples by {' and '.join(parent.__name__ for parent in parents)}, for which there is no training. "
        "Wire the MODEL from before the ModelSampling node that set it"
    )
