"""What is asked of a run while it trains: a checkpoint, a preview, or its end, after which it can go on."""

import json
import threading

import pytest

from trainer_core.engine import charts, metrics
from trainer_core.engine.events import Busy, Checkpointed, Finished, Previewed, Scanned, Started, Steps, Working
from trainer_core.engine.requests import CHECKPOINT, FINISH, SAMPLE, Requests
from trainer_core.engine.run_folder import RunFolder
from trainer_core.families import registry

SMALL = {"adapter.targets": ["re:mid_block.*to_[qk]"], "run.steps": 6, "adapter.dropout": 0.1}


@pytest.fixture(scope="module")
def loaded(base):
    """The base once for all runs, which leave it as it was."""
    return registry.load(str(base))


class Asking:
    """An observer because of which another thread asks for things."""

    def __init__(self, **after):
        self.after, self.requests = after, Requests()

    def on(self, event):
        for kind, when in self.after.items():
            if event.last in when if isinstance(event, Steps) else type(event) in when:
                one = threading.Thread(target=self.requests.ask, args=(kind,))
                one.start()
                one.join()


@pytest.fixture
def go(train, loaded):
    """Trains; keywords say after which steps, or at which events, what is asked for."""

    def run(changes=(), folder="run", **after):
        asking = Asking(**after)
        given = {"model": loaded, "observers": [asking], "requests": asking.requests}
        return train({**SMALL, **dict(changes)}, folder, **given)

    return run


def steps(heard, kind):
    return [event.step for event in heard.of(kind)]


def state_of(result):
    return json.loads((result.folder / "run.json").read_text())


def test_a_checkpoint_and_a_preview_that_are_asked_for_are_made_there_and_change_no_bit(go, same):
    result, heard = go(folder="asked", checkpoint=[2, 4], sample=[3, 4])
    assert (steps(heard, Checkpointed), steps(heard, Previewed)) == ([2, 4, 6], [3, 4, 6])
    quiet, heard = go(folder="quiet")
    assert (steps(heard, Checkpointed), steps(heard, Previewed)) == ([6], [6])
    assert same(result, quiet)
    line = next(line for line in metrics.read(result.folder / "metrics.jsonl") if line.get("preview"))
    assert (line["step"], line["prompts"], line["count"], line["width"], line["height"]) == (
        3,
        ["thing 0, red, big, old"],
        1,
        64,
        64,
    )


def test_what_is_there_already_is_not_made_again(go):
    _, heard = go({"run.preview_every": 2, "run.checkpoint_every": 2}, checkpoint=[2, 6], sample=[2, 6])
    assert (steps(heard, Checkpointed), steps(heard, Previewed)) == ([2, 4, 6], [2, 4, 6])


def test_a_run_that_is_asked_to_finish_has_its_file_and_is_returned_when_asked_for_again(go):
    result, heard = go(finish=[3])
    assert (result.status, result.step, result.total, result.lora.is_file()) == ("finished", 3, 6, True)
    [end] = heard.of(Finished)
    assert end.early == "as it was asked to" and steps(heard, Previewed) == [3]
    assert "To train on all the same, ask for more steps, or set existing to continue." in end.lines
    kept = state_of(result)
    assert (kept["status"], kept["early_end"], kept["ended_by_hand"]) == ("finished", 6, True)

    again, heard = go()
    assert (again, heard.of(Started), heard.of(Finished)[0].early) == (result, [], end.early)
    # Written otherwise it is still the run that was ended there.
    again, heard = go({"output.dtype": "fp16"})
    assert (again.step, heard.of(Steps), state_of(again)["ended_by_hand"]) == (3, [], True)
    more, heard = go({"run.steps": 7})
    assert (steps(heard, Started), more.step, state_of(more)["early_end"]) == ([3], 7, 0)


def test_it_goes_on_to_the_same_bits_where_continue_is_asked(go, same):
    assert go(folder="ended", finish=[2])[0].step == 2
    result, heard = go({"run.existing": "continue"}, "ended", finish=[4])
    assert (steps(heard, Started), result.step) == ([2], 4)
    result, heard = go({"run.existing": "continue"}, "ended")
    assert (steps(heard, Started), result.step, result.total) == ([4], 6, 6)
    assert same(result, go(folder="straight")[0])
    assert go({"run.existing": "continue"}, "ended")[1].of(Started) == []


def test_it_goes_on_where_its_mark_was_taken_away(go):
    result, _ = go(finish=[2])
    folder = RunFolder(result.folder)
    state = folder.state()
    assert state.is_early
    state.reopen()
    folder.save_state(state)
    assert (state.is_early, state.patient_until) == (False, 0)
    again, heard = go()
    assert (steps(heard, Started), again.step) == ([2], 6)


def test_a_run_that_ended_for_its_validation_goes_on_with_continue_and_counts_anew(go, monkeypatch):
    losses = iter([0.3, 0.4, 0.5, 0.5, 0.5])
    monkeypatch.setattr("trainer_core.engine.trainer.Trainer.validate", lambda *_: next(losses))
    patient = {"run.early_stop": 2, "run.validate_every": 1, "dataset.holdout": 1}
    assert go(patient)[0].step == 3
    result, heard = go({**patient, "run.existing": "continue"})
    assert (steps(heard, Started), result.step) == ([3], 5)


def test_a_run_killed_in_its_last_look_ends_where_it_was_asked_to(go, monkeypatch):
    class Kill(BaseException):
        pass

    def killed(*_):
        raise Kill

    with monkeypatch.context() as killing:
        killing.setattr(charts, "save_strip", killed)
        with pytest.raises(Kill):
            go(finish=[2])
    result, heard = go()
    assert (result.status, result.step, heard.of(Steps)) == ("finished", 2, [])


@pytest.mark.parametrize("moment", [Working, Scanned, Started])
def test_finishing_what_has_not_begun_is_stopping(go, moment):
    result, heard = go(finish=[moment])
    assert (result.status, result.step, result.lora, heard.of(Steps)) == ("stopped", 0, None, [])


def test_what_the_steps_wait_for_is_told(go):
    _, heard = go({"run.validate_every": 3, "dataset.holdout": 1}, checkpoint=[1])
    told = [event.what for event in heard.of(Busy)]
    assert told == ["saving", "validating", "validating", "saving", "previewing", "previewing", "previewing", "saving"]
    assert [(event.done, event.total) for event in heard.of(Busy)][4:7] == [(0, 0), (1, 2), (2, 2)]


def test_only_what_a_run_can_do_is_asked_and_counts_once():
    requests = Requests()
    with pytest.raises(ValueError, match="'delete' cannot be asked of a run; it is one of finish, checkpoint, sample"):
        requests.ask("delete")
    requests.ask(SAMPLE)
    requests.ask(SAMPLE)
    assert [requests.take(SAMPLE), requests.take(SAMPLE), requests.take(CHECKPOINT)] == [True, False, False]
    requests.ask(FINISH)
    assert requests.finishing and requests.finishing
