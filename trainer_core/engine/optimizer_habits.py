"""What a training loop must know of an optimiser: who skips a bad step, who averages, who draws and who compiles."""

import contextlib
import importlib
import importlib.util
import random
from collections.abc import Iterator

import numpy as np
import torch

from .. import randomness
from .optimizer_kinds import Kind


def marks_non_finite(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimiser skips its step on the device where `found_inf` is 1: torch's fused ones do."""
    return getattr(optimizer, "_step_supports_amp_scaling", False)


def averages(optimizer: torch.optim.Optimizer | type[torch.optim.Optimizer]) -> bool:
    """Whether the weights that train are others than those to use: schedule-free optimisers have both."""
    return callable(getattr(optimizer, "eval", None)) and callable(getattr(optimizer, "train", None))


@contextlib.contextmanager
def stepping(kind: Kind, device: torch.device, *key: object) -> Iterator[None]:
    """For what an optimiser does that may draw random numbers: they are keyed, and so the same after a resume."""
    with (
        randomness.reseeded(device, "optimizer", *key),
        _reseeded_elsewhere(*key),
        _eager_where_it_must_be(kind, device),
    ):
        if kind.module == "adv_optm":  # which draws from generators of its own
            importlib.import_module("adv_optm.util.param_update").get_generator(device).manual_seed(
                randomness.key("optimizer", *key)
            )
        yield


@contextlib.contextmanager
def _reseeded_elsewhere(*key: object) -> Iterator[None]:
    """The same for numpy's and Python's global generators: pytorch_optimizer's Kron throws its dice with numpy."""
    before, plain = np.random.get_state(), random.getstate()
    seed = randomness.key("optimizer", *key)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
        random.setstate(plain)


@contextlib.contextmanager
def _eager_where_it_must_be(kind: Kind, device: torch.device) -> Iterator[None]:
    # torchao asks torch.compile for one program for each shape. On a CPU that takes a compiler of C++, and longer than
    # all the steps of a short run; on a GPU it takes Triton.
    if kind.compiled and (device.type != "cuda" or importlib.util.find_spec("triton") is None):
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield
