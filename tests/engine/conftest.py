"""What the engine's tests read from a run (the tensors of its file, the steps in its metrics), and trainers alone."""

from contextlib import ExitStack

import pytest
import torch
from safetensors.torch import load_file

from trainer_core.data.dataset import Dataset
from trainer_core.data.scan import scan_folder
from trainer_core.engine import learning_decorator, learning_parts, learning_words, metrics
from trainer_core.engine.device import PRECISIONS
from trainer_core.engine.isolation import isolated
from trainer_core.engine.trainer import Trainer
from trainer_core.families import registry


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


class Watched(Trainer):
    """Keeps the gradients of each step as they are before clipping."""

    def __init__(self, *given):
        super().__init__(*given)
        self.gradients, self.losses = [], []

    def _update(self):
        self.gradients.append({name: p.grad.clone() for name, p in self.parameters.items()})
        super()._update()

    def go(self, between=lambda: False):
        self.train(lambda steps: self.losses.extend(steps.losses), between)
        self.release()
        return self


@pytest.fixture
def make_trainer(make_recipe):
    """A trainer over an encoded dataset, its LoRA's B filled so that both halves have gradients."""

    def make(changes=(), precision="fp32", fill=0.05):
        stack.enter_context(isolated())
        recipe = make_recipe(changes)
        model = registry.load(recipe.base, torch.bfloat16 if precision == "bf16" else torch.float32)
        scan = scan_folder(recipe.dataset)
        asked = recipe.adapter
        dataset = Dataset(
            scan.items,
            recipe.dataset,
            recipe.run.seed,
            model.encoder.pixel_step,
            model.resolution,
            recipe.encodes_live,
            model.family.sized,
        )
        assert dataset.encode(model.encoder)
        learners = learning_parts.planned(model, asked) if recipe.has_lora else []
        learning_parts.put(learners, recipe.run.seed, {})
        learning_words.put(model, recipe.words, recipe.run.seed)
        learning_decorator.put(model, recipe.decorator, recipe.run.seed)
        numbers = torch.Generator().manual_seed(9)
        with torch.no_grad():
            for name, parameter in learning_parts.parameters(model).items():
                if ".lora_B." in name:
                    parameter.copy_(fill * torch.randn(parameter.shape, generator=numbers))
        for module in learning_parts.of_a_step(model):
            learning_parts.place(module, torch.device("cpu"), PRECISIONS[precision])
            if recipe.run.gradient_checkpointing:
                learning_parts.recomputing(module, on=True)
        return Watched(recipe, model, dataset, torch.device("cpu"), precision)

    with ExitStack() as stack:
        yield make
