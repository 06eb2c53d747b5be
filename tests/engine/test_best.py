"""The lowest validation loss: it is told, its checkpoint is kept, and a run that sees none lower may end."""

import dataclasses
import shutil

import pytest

from trainer_core.engine import checkpoints, metrics, run, sampling
from trainer_core.engine.events import Checkpointed, Finished, Previewed, Started, Steps, Validated, Warned
from trainer_core.engine.run_folder import Made
from trainer_core.engine.trainer import Trainer
from trainer_core.engine.validation import Record
from trainer_core.families import registry
from trainer_core.lora_file.safe_io import read_header

LOSSES = {1: 0.5, 2: 0.3, 3: 0.4, 4: 0.35, 5: 0.6, 6: 0.7, 7: 0.7, 8: 0.7, 9: 0.1}
"""Scripted, by step."""
SMALL = {"adapter.targets": ["re:mid_block.*to_[qk]"], "run.validate_every": 1, "dataset.holdout": 1}
PATIENT = {**SMALL, "run.steps": 8, "run.early_stop": 2}
KEEPING = {**SMALL, "run.steps": 5, "run.keep_best": True, "run.keep_checkpoints": 1, "run.checkpoint_every": 3}
BEST = {**KEEPING, "output.checkpoint": "best"}


@pytest.fixture(scope="module")
def loaded(base):
    """The base once for all runs, which leave it as it was."""
    return registry.load(str(base))


@pytest.fixture
def go(train, loaded, monkeypatch):
    """Trains, while validations give the scripted losses."""
    monkeypatch.setattr(Trainer, "validate", lambda self, weights="trained": LOSSES[self.step])
    return lambda *asked, **more: train(*asked, model=loaded, **more)


def validated(heard):
    return [event.step for event in heard.of(Validated)]


def kept(result):
    return sorted(int(path.name.partition("-")[2]) for path in (result.folder / "checkpoints").iterdir())


@pytest.fixture
def is_of(tensors):
    """is_of(result, step): whether the run's file has the bits of the file in a step's checkpoint."""

    def compare(result, step):
        file = checkpoints.path_of(result.folder / "checkpoints", step) / result.lora.name
        ours, theirs = tensors(result), tensors(dataclasses.replace(result, made=Made(file)))
        return ours.keys() == theirs.keys() and all(ours[key].equal(theirs[key]) for key in ours)

    return compare


# ---- early stop


def test_a_run_ends_when_the_loss_was_not_lower_for_so_many_validations(go):
    result, heard = go(PATIENT)
    assert (result.status, result.step, result.total) == ("finished", 4, 8)
    told = [(event.step, event.best_step, event.best_loss) for event in heard.of(Validated)]
    assert told == [(1, 1, 0.5), (2, 2, 0.3), (3, 2, 0.3), (4, 2, 0.3)]
    [end] = heard.of(Finished)
    assert end.early == "the validation loss has not improved since step 2"
    assert [event.step for event in heard.of(Previewed)] == [4] and end.made.lora.is_file()

    # It is returned at once; less patience, or fewer steps, would have ended it no later.
    again, heard = go(PATIENT)
    assert (again.status, again.step, heard.of(Started)) == ("finished", 4, [])
    assert heard.of(Finished)[0].early == end.early
    assert go({**PATIENT, "run.early_stop": 1, "run.steps": 6})[1].of(Started) == []

    shutil.rmtree(result.folder / "checkpoints")
    again, heard = go({**PATIENT, "output.dtype": "fp16"}, warnings=True)
    assert (again.status, again.step) == ("finished", 4) and "has no checkpoint left" in heard.of(Warned)[0].message


def test_a_run_that_ended_early_goes_on_when_more_is_asked(go):
    assert go(PATIENT)[0].step == 4
    result, heard = go({**PATIENT, "run.early_stop": 3})
    assert (heard.of(Started)[0].step, result.step) == (4, 5)
    # Where more steps are asked for, patience counts anew: from there, and not from each stop.
    more = {**PATIENT, "run.early_stop": 3, "run.steps": 12}
    assert go(more, stop_after=6)[0].status == "stopped"
    result, heard = go(more)
    assert (heard.of(Started)[0].step, result.step, heard.of(Finished)[0].early[-6:]) == (6, 8, "step 2")
    result, heard = go({**PATIENT, "run.early_stop": 0, "run.steps": 9})
    assert (heard.of(Started)[0].step, result.step, result.total) == (8, 9, 9)


def test_a_resumed_run_ends_early_at_the_same_step_with_the_same_bits(go, same):
    for stop in (1, 2, 3):
        assert go(PATIENT, "stopped", stop_after=stop)[0].status == "stopped"
    resumed, straight = go(PATIENT, "stopped")[0], go(PATIENT, "straight")[0]
    assert resumed.step == straight.step == 4 and same(resumed, straight)
    told = [
        [line for line in metrics.read(result.folder / "metrics.jsonl") if "validation" in line]
        for result in (resumed, straight)
    ]
    assert told[0] == told[1] and len(told[0]) == 4


def test_a_step_whose_validation_was_interrupted_is_validated_when_the_run_goes_on(go, make_recipe, tmp_path):
    class Interruption(BaseException):
        pass

    class Impatient:
        def on(self, event):
            if isinstance(event, Steps) and event.last == 3:
                raise Interruption

    with pytest.raises(Interruption):
        run.train(make_recipe(PATIENT), tmp_path / "run", [Impatient()])
    result, heard = go(PATIENT)
    assert heard.of(Started)[0].step == 3
    assert (result.step, validated(heard)) == (4, [3, 4])


def test_a_run_killed_in_its_last_look_ends_where_it_was(go, monkeypatch):
    class Kill(BaseException):
        pass

    def killed(*_, **__):
        raise Kill

    with monkeypatch.context() as killing:
        killing.setattr(sampling, "draw", killed)
        with pytest.raises(Kill):
            go(PATIENT)
    result, heard = go(PATIENT)
    assert (result.status, result.step, heard.of(Steps)) == ("finished", 4, [])
    assert "since step 2" in heard.of(Finished)[0].early


def test_a_loss_that_is_not_finite_is_never_the_best_and_tries_the_patience():
    record = Record()
    for step, loss in ((1, float("nan")), (2, 0.5), (3, float("inf")), (4, 0.5)):
        record.add(step, loss)
    assert (record.best, record.loss, record.since) == (2, 0.5, 2)
    assert record.is_exhausted(2) and not record.is_exhausted(3) and not record.is_exhausted(0)


# ---- the best checkpoint


def test_the_best_checkpoint_outlives_the_last_ones_and_is_never_where_a_run_goes_on(go):
    result, heard = go(KEEPING)
    # Each new best, every third step, and the last step.
    assert [event.step for event in heard.of(Checkpointed)] == [1, 2, 3, 5]
    assert kept(result) == [2, 5]
    told = [line for line in metrics.read(result.folder / "metrics.jsonl") if "validation" in line]
    assert told[1:3] == [
        {"step": 2, "validation": 0.3, "best_step": 2},
        {"step": 3, "validation": 0.4, "best_step": 2},
    ]
    more, heard = go({**KEEPING, "run.steps": 9})
    assert heard.of(Started)[0].step == 5
    assert kept(more) == [9]


def test_the_file_has_the_weights_of_the_best_checkpoint(go, is_of, tensors):
    asked = {**BEST, "run.ema_decay": 0.9}
    result, heard = go(asked)
    assert result.step == 5 and is_of(result, 2)
    assert read_header(result.lora).metadata["ss_steps"] == "2"
    assert "The file has step 2, where the validation loss was lowest: 0.3000." in heard.of(Finished)[0].lines
    assert [event.step for event in heard.of(Previewed)] == [2]

    # All else that may be asked of the file is made from the checkpoints.
    trained, heard = go({**asked, "output.weights": "trained"})
    best = checkpoints.read(checkpoints.path_of(result.folder / "checkpoints", 2))
    assert heard.of(Steps) == [] and values(tensors(trained)) == values(best.parameters) != values(best.averages)
    last, heard = go({**asked, "output.checkpoint": "last"})
    assert (heard.of(Steps), [event.step for event in heard.of(Previewed)]) == ([], [5])
    assert is_of(last, 5) and not is_of(last, 2)


def values(tensors):
    """The numbers of a LoRA's matrices, whatever their names."""
    return sorted(tensor.sum().item() for name, tensor in tensors.items() if "alpha" not in name)


@pytest.mark.parametrize("more", [{"run.ema_decay": 0.9}, {"optimizer.name": "schedulefree_adamw"}], ids=str)
def test_a_resumed_run_has_the_same_best_file(go, same, is_of, more):
    straight, _ = go({**BEST, **more}, "straight")
    go({**BEST, **more}, "stopped", stop_after=4)
    resumed, _ = go({**BEST, **more}, "stopped")
    assert same(straight, resumed) and is_of(resumed, 2) and kept(resumed) == [2, 5]


def test_other_weights_are_compared_among_themselves(go):
    settings = {**KEEPING, "run.ema_decay": 0.9}
    go(settings, stop_after=3)
    result, heard = go({**settings, "output.weights": "trained"}, warnings=True)
    assert [(event.step, event.best_step) for event in heard.of(Validated)] == [(4, 4), (5, 4)]
    assert "step 4: output.weights has changed" in heard.of(Warned)[0].message
    assert kept(result) == [4, 5]


def test_a_best_checkpoint_that_was_not_kept_is_sought_anew_and_said(go):
    go({**KEEPING, "run.keep_best": False}, stop_after=3)
    result, heard = go(BEST, warnings=True)
    assert "step 2 has had the lowest validation loss, but its checkpoint was not kept" in heard.of(Warned)[0].message
    assert kept(result) == [4, 5] and "step 4" in " ".join(heard.of(Finished)[0].lines)


def test_a_best_checkpoint_that_is_torn_leaves_the_last_step_and_says_so(go, is_of):
    result, _ = go(KEEPING)
    (result.folder / "checkpoints" / "step-00000002" / "adapter.safetensors").write_bytes(b"torn")
    result, heard = go(BEST, warnings=True)
    assert "the file has the last step" in heard.of(Warned)[0].message
    assert is_of(result, 5)


def test_without_any_validation_the_file_has_the_last_step_and_says_so(go, monkeypatch):
    def fails(*_):
        raise RuntimeError("no such picture")

    monkeypatch.setattr(Trainer, "validate", fails)
    _, heard = go({**BEST, "run.steps": 1}, warnings=True)
    assert "No step was validated, so the file has the last one." in heard.of(Finished)[0].lines
    assert "validation failed (no such picture)" in heard.of(Warned)[0].message
