"""A run that is killed at any moment goes on at its last checkpoint, and its folder ends as if it had never died."""

import collections
import importlib.util

import pytest

from trainer_core.engine.optimizer_config import OptimizerConfig
from trainer_core.engine.optimizer_kinds import KINDS

HALF = 100
"""Of the two hundred trials: so many die at any time, so many at named moments of writing."""


def told(outcomes):
    return "\n".join(f"{one['run']}, {one['death']}: {problem}" for one in outcomes for problem in one["problems"])


def test_four_deaths_leave_no_trace_in_the_run_that_goes_on(trials):
    kinds = ["just named: checkpoint", "written, not named: checkpoint", "half written: encoded item"]
    outcomes = trials([{"run": "short", "named": 3, "kinds": kinds, "random": 1}])
    assert [one["death"] for one in outcomes[:3]] == kinds and len(outcomes) == 4
    assert not told(outcomes), told(outcomes)


@pytest.mark.trials
def test_two_hundred_deaths_leave_no_trace_in_the_run_that_goes_on(trials, capsys):
    outcomes = trials([{"run": "many", "named": HALF, "random": HALF}])
    with capsys.disabled():
        passed = collections.Counter(one["death"] for one in outcomes if not one["problems"])
        print(f"\n{passed.total()} of {len(outcomes)} trials passed")
        for death, count in sorted(passed.items()):
            print(f"{count:4} {death}")
    assert len(outcomes) == 2 * HALF
    assert not told(outcomes), told(outcomes)


@pytest.mark.trials
def test_deaths_change_neither_where_a_run_ends_early_nor_the_file_of_its_best_step(trials):
    good = {
        "run.early_stop": 2,
        "run.keep_best": True,
        "run.keep_checkpoints": 1,
        "run.validate_every": 1,
        "run.ema_decay": 0.5,
        "output.checkpoint": "best",
        "optimizer.learning_rate": 0.25,  # so high that the third step is the best, and the fifth the last
    }
    outcomes = trials([{"run": "early", "settings": good, "named": 10, "random": 10}])
    assert len(outcomes) == 20
    assert not told(outcomes), told(outcomes)


# ---- each optimiser


def cannot_run(name):
    """Why not here; empty if it can."""
    kind = KINDS[name]
    if kind.device:
        return f"works only on {kind.device}"
    library = kind.module.partition(".")[0]
    return "" if importlib.util.find_spec(library) else f"the library {library} is not installed"


@pytest.fixture(scope="module")
def deaths_by_optimizer(trials):
    def asked(name):
        rate = 1.0 if OptimizerConfig(name=name).kind.finds_rate else 1e-3
        changes = {"optimizer.name": name, "optimizer.learning_rate": rate, "optimizer.schedule": "constant"}
        # The second of two checkpoints is torn: three steps and three again.
        return {
            "run": name,
            "settings": {**changes, "run.steps": 6, "run.checkpoint_every": 3},
            "named": 1,
            "kinds": ["written, not named: checkpoint"],
            "random": 1,
        }

    outcomes = trials([asked(name) for name in KINDS if not cannot_run(name)])
    return {name: [one for one in outcomes if one["run"] == name] for name in KINDS}


@pytest.mark.trials
@pytest.mark.parametrize("name", KINDS)
def test_a_run_with_each_optimiser_is_killed_and_goes_on_in_the_same_bits(request, name):
    if cannot_run(name):
        pytest.skip(cannot_run(name))
    outcomes = request.getfixturevalue("deaths_by_optimizer")[name]
    assert len(outcomes) == 2
    assert not told(outcomes), told(outcomes)
