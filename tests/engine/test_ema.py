"""The moving average of what trains: its numbers, what may not enter it, and who uses it."""

import pytest
import torch
from diffusers.training_utils import EMAModel

from trainer_core.engine import checkpoints
from trainer_core.engine.ema import Ema
from trainer_core.engine.events import Started, Steps
from trainer_core.engine.trainer import Trainer
from trainer_core.errors import BadInput
from trainer_core.lora_file.safe_io import read_header

GOOD, SKIPPED = torch.zeros(()), torch.ones(())
NAME = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.default.weight"
IN_FILE = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight"


@pytest.fixture
def parameters():
    numbers = torch.Generator().manual_seed(3)
    shapes = {"A": (4, 8), "B": (8, 4), "scalar": ()}
    return {name: torch.nn.Parameter(torch.randn(shape, generator=numbers)) for name, shape in shapes.items()}


def wander(parameters, step):
    """What a step might make of parameters."""
    numbers = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=numbers))


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_it_is_diffusers_average_through_warm_up_and_after(parameters, decay):
    ours, theirs = Ema(parameters, decay), EMAModel(parameters.values(), decay=decay)
    for step in range(60):
        wander(parameters, step)
        ours.update(GOOD)
        theirs.step(parameters.values())
    averages, updates = ours.state()
    assert updates == theirs.optimization_step == 60
    for average, expected in zip(averages.values(), theirs.shadow_params, strict=True):
        torch.testing.assert_close(average, expected, rtol=0, atol=1e-7)
    assert (averages["A"] - parameters["A"]).abs().max() > 0.01


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_neither_a_skipped_step_nor_what_is_not_finite_enters(parameters, bad):
    ema = Ema(parameters, 0.9)
    wander(parameters, 1)
    ema.update(GOOD)
    before = {name: average.clone() for name, average in ema.state()[0].items()}
    wander(parameters, 2)
    ema.update(SKIPPED)
    with torch.no_grad():
        parameters["B"][3, 2] = bad
    ema.update(GOOD)
    averages, updates = ema.state()
    assert updates == 1
    assert all(torch.equal(averages[name], before[name]) for name in before)


def test_after_use_the_parameters_are_the_same_bits(parameters):
    ema = Ema(parameters, 0.9)
    wander(parameters, 1)
    ema.update(GOOD)
    wander(parameters, 2)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    with ema.in_use():
        assert all(torch.equal(parameters[name], average) for name, average in ema.state()[0].items())
        assert not torch.equal(parameters["A"], before["A"])
    assert all(torch.equal(parameters[name], before[name]) for name in before)


def test_a_runs_file_has_the_average_of_its_checkpoint_and_says_so(train, tensors, monkeypatch):
    asked = {"run.steps": 3, "run.ema_decay": 0.9, "dataset.holdout": 1, "preview.weights": "trained"}
    looks, at_rest = [], Trainer.at_rest
    monkeypatch.setattr(Trainer, "at_rest", lambda self, weights: looks.append(weights) or at_rest(self, weights))
    result, _ = train(asked)
    assert looks == ["ema", "trained"]  # validation, preview
    kept = checkpoints.read(checkpoints.path_of(result.folder / "checkpoints", 3))
    assert torch.equal(tensors(result)[IN_FILE], kept.averages[NAME])
    assert not torch.equal(tensors(result)[IN_FILE], kept.parameters[NAME])
    assert read_header(result.lora).metadata["scion.ema_decay"] == "0.9"

    # The trained weights are in the checkpoint, too: nothing is trained for them.
    trained, heard = train({**asked, "output.weights": "trained"})
    assert (trained.status, heard.of(Steps)) == ("finished", [])
    assert torch.equal(tensors(trained)[IN_FILE], kept.parameters[NAME])
    assert "scion.ema_decay" not in read_header(trained.lora).metadata
    assert train({**asked, "output.weights": "trained"})[1].of(Started) == []


def test_a_run_with_an_average_that_stopped_ends_in_the_same_bits_and_trains_as_without(train, same):
    asked = {"run.steps": 4, "run.ema_decay": 0.9, "adapter.dropout": 0.1, "dataset.holdout": 1}
    busy = {**asked, "run.validate_every": 1, "run.preview_every": 1}
    straight, _ = train(asked, "straight")
    train(busy, "stopped", stop_after=2)
    resumed, _ = train(busy, "stopped")
    assert same(straight, resumed)
    trained, _ = train({**asked, "output.weights": "trained"}, "straight")
    without, _ = train({**asked, "run.ema_decay": 0.0}, "without")
    assert same(trained, without) and not same(resumed, without)


def test_steps_that_are_skipped_in_a_run_do_not_enter(make_trainer, monkeypatch):
    trainer = make_trainer({"run.ema_decay": 0.9, "run.steps": 4})
    losses = trainer._losses
    monkeypatch.setattr(trainer, "_losses", lambda micro: losses(micro) * (float("nan") if trainer.step == 1 else 1))
    trainer.go()
    assert trainer.skipped == 1
    kept = trainer.checkpoint()
    assert kept.extras["ema_updates"] == 3
    assert all(torch.isfinite(average).all() for average in kept.averages.values())


def test_previews_and_validation_use_the_weights_that_are_asked_for(make_trainer):
    trainer = make_trainer({"run.ema_decay": 0.9, "run.steps": 4, "dataset.holdout": 1}).go()
    kept = trainer.checkpoint()
    losses = {weights: trainer.validate(weights) for weights in ("trained", "ema")}
    with torch.no_grad():
        for name, parameter in trainer.parameters.items():
            parameter.copy_(kept.averages[name])
    assert trainer.validate("trained") == losses["ema"] != losses["trained"]
    with trainer.at_rest("ema"):
        assert all(torch.equal(parameter, kept.averages[name]) for name, parameter in trainer.parameters.items())


def test_an_average_of_averages_is_refused(train):
    with pytest.raises(BadInput, match=r"run.ema_decay: 0.9, but schedulefree_adamw itself averages the weights"):
        train({"run.ema_decay": 0.9, "optimizer.name": "schedulefree_adamw"})
