"""Weights that stop being finite: a run ends at the step before, and no file has such a number."""

import pytest
import torch
from safetensors.torch import load_file

from trainer_core.engine import checkpoints
from trainer_core.errors import ScionError

INFINITE = float("inf")
SHORT = {"run.batch_size": 1, "run.checkpoint_every": 3}


@pytest.fixture
def overflowing(monkeypatch):
    """Makes AdamW's nth step of a run write infinity into a weight, once."""

    def arrange(at):
        usual, steps = torch.optim.AdamW.step, []

        def step(optimizer, *given):
            answer = usual(optimizer, *given)
            weight = optimizer.param_groups[0]["params"][0]
            steps.extend([1] if weight.numel() > 32 else [])  # not of the one that is tried before the run
            if weight.numel() > 32 and len(steps) == at:
                weight.data[0, 0] = INFINITE
            return answer

        monkeypatch.setattr(torch.optim.AdamW, "step", step)

    return arrange


def everything_finite(folder):
    """Whether no safetensors file and no JSON in the run's folder holds a number that is not."""
    files = list(folder.rglob("*.safetensors"))
    text = [*folder.rglob("*.json"), *folder.rglob("*.jsonl")]
    for line in (line for path in text for line in path.read_text().splitlines()):
        assert "NaN" not in line and "Infinity" not in line, line
    return all(bool(torch.isfinite(tensor).all()) for path in files for tensor in load_file(path).values())


@pytest.mark.parametrize(("steps", "at"), [(9, 5), (5, 5), (9, 4)], ids=["midst", "last step", "after a checkpoint"])
def test_weights_that_stop_being_finite_end_the_run_at_the_step_before(train, tmp_path, overflowing, steps, at):
    never, _ = train({**SHORT, "run.steps": at - 1}, "never")
    overflowing(at)
    with pytest.raises(
        ScionError, match=f"^step {at}: the optimiser made weights that are not finite.*0.001"
    ) as caught:
        train({**SHORT, "run.steps": steps})
    (note,) = caught.value.__notes__
    assert note.startswith(f"Kept: step {at - 1}. Begin another run from there with a lower learning rate")
    kept = checkpoints.latest(tmp_path / "run" / "checkpoints", pytest.fail)
    whole = checkpoints.latest(tmp_path / "never" / "checkpoints", pytest.fail)
    assert kept.step == whole.step == at - 1
    assert all(torch.equal(kept.parameters[name], tensor) for name, tensor in whole.parameters.items())
    assert all(torch.equal(kept.optimizer_tensors[name], t) for name, t in whole.optimizer_tensors.items())
    assert everything_finite(tmp_path / "run")


def test_without_a_checkpoint_before_it_nothing_is_kept_and_the_advice_is_to_begin_anew(train, tmp_path, overflowing):
    overflowing(2)
    with pytest.raises(ScionError, match="^step 2: the optimiser made weights") as caught:
        train({**SHORT, "run.steps": 9})
    (note,) = caught.value.__notes__
    assert note.startswith("Begin anew with a lower learning rate") and not list(tmp_path.rglob("*.safetensors"))


def test_an_optimisers_state_that_is_not_finite_is_never_saved(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.train(lambda steps: None, lambda: trainer.step >= 1)
    state = next(iter(trainer.optimizer.optimizer.state.values()))
    state["exp_avg_sq"][0, 0] = INFINITE
    with pytest.raises(
        ScionError, match=r"step 1: 1 of the optimiser's tensors are not finite \(exp_avg_sq|.*not saved"
    ):
        checkpoints.save(tmp_path, trainer.checkpoint(), 3)
    assert not list(tmp_path.iterdir())
