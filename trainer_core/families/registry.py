"""The registry of model families: which one a base is of, by what its files say, and loading it."""

import json

import torch

from ..errors import BadInput
from .base import Family, Model
from .detection import family_of_file
from .flux import Flux
from .hunyuan_dit import HunyuanDiT
from .kolors import Kolors
from .sd3 import StableDiffusion3
from .sd15 import StableDiffusion1
from .sdxl import StableDiffusionXL
from .sources import Source, resolve
from .weights import read_shapes

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        StableDiffusion1(),
        StableDiffusionXL(),
        Kolors(),
        StableDiffusion3(),
        HunyuanDiT(),
        Flux(),
    )
}

PIPELINES = {family.pipeline: name for name, family in FAMILIES.items()}
"""diffusers' pipelines, by which folders say what they are."""


def detect(source: Source) -> Family:
    """The family of a base: of a folder by its pipeline's class, of a single file by its keys and shapes.

    Raises:
        BadInput: it is of a family that this version does not train.
    """
    if source.is_file:
        return FAMILIES[family_of_file(read_shapes(source.path), source.path)]
    index = source.path / "model_index.json"
    try:
        pipeline = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise BadInput(f"base: {index} is not readable ({error})") from None
    if pipeline not in PIPELINES:
        known = ", ".join(PIPELINES)
        raise BadInput(f"base: {source.path} is a {pipeline}; this version trains {known}")
    return FAMILIES[PIPELINES[pipeline]]


def load(base: str, dtype: torch.dtype = torch.float32) -> Model:
    """A base model by name, path or cached hub id, on the CPU.

    Raises:
        BadInput: it is not there, not of a known family, or not whole.
    """
    source = resolve(base)
    return detect(source).load(source, dtype)
