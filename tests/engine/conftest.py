"""What the engine's tests read from a run: the tensors of its file, and the steps in its metrics."""

import pytest
import torch
from safetensors.torch import load_file

from trainer_core.engine import metrics


def tensors_of(result):
    return load_file(result.lora)


def same_tensors(a, b):
    a, b = tensors_of(a), tensors_of(b)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="session")
def tensors():
    """The tensors of a result's LoRA file, by name."""
    return tensors_of


@pytest.fixture(scope="session")
def same():
    """Whether the LoRA files of two results hold the same bits."""
    return same_tensors


@pytest.fixture(scope="session")
def steps_in():
    """The numbers of the steps that a run's folder tells the loss of."""

    def read(folder):
        return [line["step"] for line in metrics.read(folder / "metrics.jsonl") if "loss" in line]

    return read
