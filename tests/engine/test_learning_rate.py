"""The learning rate of a step: each schedule by its formula, alone and in groups that learn at rates of their own."""

import math

import pytest
import torch
from diffusers.optimization import get_scheduler
from transformers.optimization import get_cosine_with_min_lr_schedule_with_warmup, get_wsd_schedule

from trainer_core.engine.learning_rate import LearningRate
from trainer_core.engine.optimizer_config import OptimizerConfig
from trainer_core.engine.optimizers import build_optimizer
from trainer_core.errors import BadInput


def weight():
    return torch.nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "constant"}, [1, 1, 1, 1, 1]),
        ({"schedule": "constant_with_warmup", "warmup_steps": 2}, [0, 0.5, 1, 1, 1]),
        ({"schedule": "linear"}, [1, 0.8, 0.6, 0.4, 0.2]),
        ({"schedule": "cosine"}, [0.5 * (1 + math.cos(math.pi * step / 5)) for step in range(5)]),
        ({"schedule": "cosine_with_restarts", "cycles": 5}, [1, 1, 1, 1, 1]),
        ({"schedule": "polynomial", "power": 2.0}, [(1 - step / 5) ** 2 for step in range(5)]),
        (
            {"schedule": "cosine_with_min", "min_ratio": 0.2},
            [0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * step / 5)) for step in range(5)],
        ),
        (
            {"schedule": "cosine_with_min", "min_ratio": 0.5, "warmup_steps": 2},
            [0, 0.5, *(0.5 + 0.25 * (1 + math.cos(math.pi * step / 3)) for step in range(3))],
        ),
        ({"schedule": "warmup_stable_decay", "decay_shape": "linear", "min_ratio": 0.0}, [1, 1, 1, 1, 1]),
        (
            {"schedule": "warmup_stable_decay", "decay_shape": "linear", "decay_steps": 4, "min_ratio": 0.2},
            [1, 1, 0.8, 0.6, 0.4],
        ),
        (
            {"schedule": "warmup_stable_decay", "warmup_steps": 2, "decay_steps": 2, "min_ratio": 0.0},
            [0, 0.5, 1, 1, 1 - math.sqrt(0.5)],
        ),
        (
            {"schedule": "warmup_stable_decay", "decay_shape": "cosine", "decay_steps": 5, "min_ratio": 0.1},
            [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 5)) for step in range(5)],
        ),
    ],
    ids=lambda value: str(value.get("schedule")) if isinstance(value, dict) else "",
)
def test_the_learning_rate_of_a_step_depends_on_the_step_alone(settings, expected):
    config = OptimizerConfig(learning_rate=1e-2, **settings)
    optimizer = build_optimizer(config, [torch.nn.Parameter(torch.zeros(1))])
    rate = LearningRate(config, optimizer, total=5)
    for step in (3, 0, 4, 1, 2):
        assert rate.set(step) / 1e-2 == pytest.approx(expected[step], abs=1e-4)
        assert optimizer.param_groups[0]["lr"] == rate.set(step)


def test_a_polynomial_schedule_refuses_rates_below_the_one_that_it_ends_at():
    config = OptimizerConfig(schedule="polynomial", learning_rate=1e-8)
    (problem,) = config.problems("optimizer")
    assert problem.startswith("optimizer.learning_rate: 1e-08") and "1e-07" in problem
    assert not OptimizerConfig(schedule="polynomial", learning_rate=1e-6).problems("optimizer")


def from_the_library(name, total):
    """The rates that the library's own scheduler walks through."""
    optimizer = torch.optim.SGD([weight()], lr=0.01)
    given = {"num_warmup_steps": 3, "num_training_steps": total}
    if name == "cosine_with_min":
        schedule = get_cosine_with_min_lr_schedule_with_warmup(optimizer, **given, min_lr_rate=0.1)
    elif name == "warmup_stable_decay":
        schedule = get_wsd_schedule(optimizer, **given, num_decay_steps=2, decay_type="1-sqrt", min_lr_ratio=0.1)
    else:
        schedule = get_scheduler(name, optimizer, **given)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("name", ["linear", "cosine", "polynomial", "cosine_with_min", "warmup_stable_decay"])
def test_after_the_warm_up_the_rates_are_the_librarys(name):
    config = OptimizerConfig(learning_rate=0.01, schedule=name, warmup_steps=3)
    rate = LearningRate(config, build_optimizer(config, [weight()]), total=20)
    found, expected = [rate.set(step) for step in range(20)], from_the_library(name, 20)
    assert found[:3] == pytest.approx([0, 0.01 / 3, 0.02 / 3])
    assert found[3:] == pytest.approx(expected[3:])


def test_the_decay_is_the_last_tenth_of_the_run_where_nothing_else_is_said():
    config = OptimizerConfig(schedule="warmup_stable_decay", min_ratio=0.0)
    rate = LearningRate(config, build_optimizer(config, [weight()]), total=100)
    assert [step for step in range(100) if rate.set(step) < 1e-4] == list(range(91, 100))


def test_a_warm_up_and_a_decay_that_are_longer_than_the_run_are_refused():
    config = OptimizerConfig(schedule="warmup_stable_decay", warmup_steps=6, decay_steps=5)
    with pytest.raises(BadInput, match="optimizer.decay_steps: 5 after 6 steps of warm-up are more than the run's 10"):
        config.decay_of(10)
    assert config.decay_of(11) == 5


def test_that_refusal_comes_before_pictures_are_encoded(train, tmp_path):
    with pytest.raises(BadInput, match="optimizer.decay_steps"):
        train({"optimizer.schedule": "warmup_stable_decay", "optimizer.decay_steps": 4})
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("schedule", ["cosine_with_min", "warmup_stable_decay"])
def test_a_run_whose_schedule_ends_with_it_cannot_be_made_longer(schedule):
    assert OptimizerConfig(schedule=schedule).needs_total
    assert not OptimizerConfig(schedule="constant_with_warmup").needs_total


def test_groups_keep_their_ratios_over_the_schedule_and_the_base_rate_is_told():
    config = OptimizerConfig(learning_rate=0.01, schedule="linear")
    groups = [{"params": [weight()], "lr": 0.16}, {"params": [weight()], "lr": 0.002}]
    optimizer = build_optimizer(config, groups)
    rate = LearningRate(config, optimizer, total=4)
    assert rate.set(2) == pytest.approx(0.005)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.08, 0.001])


def test_a_rate_that_an_optimiser_keeps_as_a_tensor_is_written_into_it():
    pytest.importorskip("torchao")
    config = OptimizerConfig(name="adamw_8bit_ao", learning_rate=0.01, schedule="linear")
    optimizer = build_optimizer(config, [weight()])
    kept = optimizer.param_groups[0]["lr"]
    LearningRate(config, optimizer, total=4).set(3)
    assert optimizer.param_groups[0]["lr"] is kept and float(kept) == pytest.approx(0.0025)
