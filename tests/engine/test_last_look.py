"""The last look: validation and previews after the last step, and what happens to them when somebody stops."""

import logging

import pytest

from trainer_core.engine.events import Checkpointed, Finished, Previewed, Started
from trainer_core.lora_file.safe_io import read_tensors


class StopsInThePreview:
    """Asks for a stop once all steps are done and saved: while the last preview is drawn."""

    def __init__(self, total):
        self.total, self.saved = total, False

    def on(self, event):
        self.saved |= isinstance(event, Checkpointed) and event.step == self.total

    def should_stop(self):
        return self.saved


@pytest.fixture
def stopped(tmp_path, make_recipe):
    """A run of three steps that was stopped in its last preview."""
    from trainer_core.engine import run

    watcher = StopsInThePreview(3)
    asked = make_recipe({"dataset.holdout": 1})
    return run.train(asked, tmp_path / "run", [watcher], watcher.should_stop)


def test_a_run_stopped_in_its_last_preview_has_its_lora_and_is_not_finished(stopped):
    assert (stopped.status, stopped.step, stopped.total) == ("stopped", 3, 3)
    assert stopped.lora.is_file()
    assert not (stopped.folder / "samples").exists()


def test_going_on_makes_up_for_the_last_look_and_trains_nothing(stopped, train):
    before = read_tensors(stopped.lora)[0]
    result, heard = train({"dataset.holdout": 1})
    assert (result.status, heard.of(Started)[0].step) == ("finished", 3)
    assert [event.step for event in heard.of(Previewed)] == [3]
    after = read_tensors(result.lora)[0]
    assert before.keys() == after.keys() and all(before[key].equal(after[key]) for key in before)


def test_a_run_stopped_right_after_its_last_step_looks_when_it_goes_on(train):
    assert train(stop_after=3)[0].status == "stopped"
    result, heard = train()
    assert result.status == "finished"
    assert len(heard.of(Previewed)) == 1
    assert heard.of(Finished)[0].status == "finished"


def test_each_picture_of_the_last_preview_lies_by_itself(train):
    result, _ = train({"preview.prompts": ["a red ring", "a blue cross"]})
    assert sorted(path.name for path in (result.folder / "samples").iterdir()) == ["1.png", "2.png"]


def test_fewer_pictures_leave_none_of_the_earlier_ones(train):
    train({"preview.prompts": ["a red ring", "a blue cross"], "run.steps": 2})
    result, _ = train({"preview.prompts": ["a red ring"], "run.steps": 3})
    assert [path.name for path in (result.folder / "samples").iterdir()] == ["1.png"]


def test_an_observer_that_fails_is_in_the_log_with_its_traceback(tmp_path, make_recipe, caplog):
    from trainer_core.engine import run

    class Deaf:
        def on(self, event):
            raise OSError("the pipe is closed")

    with caplog.at_level(logging.WARNING):
        run.train(make_recipe(), tmp_path / "run", [Deaf()])
    assert "Deaf failed" in caplog.text and "the pipe is closed" in caplog.text
