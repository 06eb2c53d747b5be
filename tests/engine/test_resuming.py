"""A run that stops and goes on: no bit is changed by stops, previews or torn checkpoints."""

import pytest

from trainer_core.engine import checkpoints, metrics, run
from trainer_core.engine.events import Checkpointed, Finished, Previewed, Started, Steps, Validated, Warned
from trainer_core.lora_file.safe_io import read_header

TORTURE = {
    "run.steps": 12,
    "run.accumulation": 3,
    "adapter.dropout": 0.1,
    "dataset.caption_dropout": 0.3,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_steps": 2,
    "objective.min_snr_gamma": 5.0,
    "objective.noise_offset": 0.05,
}
LIVE = {"dataset.shuffle_tags": True, "dataset.keep_tags": 1, "dataset.crop": "random", "dataset.variants": 0}


@pytest.mark.parametrize("live", [{}, LIVE], ids=["cached", "live"])
def test_a_run_that_stopped_ends_in_the_same_bits_as_one_that_did_not(train, live, same, steps_in):
    straight, _ = train({**TORTURE, **live, "dataset.workers": 0}, "straight")
    stopped, heard = train({**TORTURE, **live, "dataset.workers": 3}, "stopped", stop_after=5)
    assert (stopped.status, stopped.step, stopped.total) == ("stopped", 5, 12)
    assert "scion train" in heard.of(Finished)[0].lines[-1]
    assert not same(straight, stopped)

    resumed, heard = train({**TORTURE, **live, "dataset.workers": 1}, "stopped")
    assert (resumed.status, resumed.step) == ("finished", 12)
    assert heard.of(Started)[0].step == 5
    assert same(straight, resumed)
    assert steps_in(resumed.folder) == list(range(1, 13))
    # Every loss on the way is the same number, too.
    losses = [
        [line["loss"] for line in metrics.read(result.folder / "metrics.jsonl") if "loss" in line]
        for result in (straight, resumed)
    ]
    assert losses[0] == losses[1]


def test_a_resumed_run_writes_the_same_metadata_times_aside(train):
    straight, _ = train({"run.steps": 4}, "straight")
    train({"run.steps": 4}, "stopped", stop_after=2)
    resumed, _ = train({"run.steps": 4}, "stopped")
    both = [dict(read_header(result.lora).metadata) for result in (straight, resumed)]
    differing = {key for key in both[0] | both[1] if both[0].get(key) != both[1].get(key)}
    assert all("time" in key or "date" in key or "_at" in key for key in differing), differing
    assert both[0]["ss_steps"] == "4"


def test_previews_validation_and_checkpoints_do_not_change_what_is_trained(train, same):
    settings = {"run.steps": 6, "adapter.dropout": 0.2, "dataset.holdout": 1, "dataset.caption_dropout": 0.2}
    quiet, heard = train({**settings, "run.checkpoint_every": 0, "run.validate_every": 100}, "quiet")
    assert len(heard.of(Previewed)) == len(heard.of(Validated)) == 1
    busy, heard = train(
        {
            **settings,
            "run.preview_every": 2,
            "run.validate_every": 1,
            "run.checkpoint_every": 1,
            "preview.sampler": "euler_ancestral",
        },
        "busy",
    )
    assert [event.step for event in heard.of(Previewed)] == [2, 4, 6]
    assert [event.step for event in heard.of(Validated)] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in heard.of(Checkpointed)] == [1, 2, 3, 4, 5, 6]
    assert same(quiet, busy)


def test_the_validation_loss_is_measured_on_the_same_draws_at_every_step(train):
    _, heard = train({"run.steps": 3, "optimizer.learning_rate": 1e-12, "run.validate_every": 1, "dataset.holdout": 2})
    losses = [event.loss for event in heard.of(Validated)]
    assert len(losses) == 3
    assert max(losses) - min(losses) < 1e-6


@pytest.mark.parametrize("damage", ["adapter.safetensors", "optimizer.safetensors", "state.json", "missing"])
def test_a_torn_checkpoint_is_passed_over_with_a_warning_and_the_run_ends_in_the_same_bits(
    train, damage, same, steps_in
):
    settings = {"run.steps": 4, "run.checkpoint_every": 1}
    straight, _ = train(settings, "straight")
    train(settings, "torn", stop_after=3)
    newest = straight.folder.parent / "torn" / "checkpoints" / "step-00000003"
    if damage == "missing":
        (newest / "state.json").unlink()
    else:
        whole = (newest / damage).read_bytes()
        (newest / damage).write_bytes(whole[: len(whole) // 2])
    resumed, heard = train(settings, "torn", warnings=True)
    (warning,) = heard.of(Warned)
    assert str(newest) in warning.message and "before it" in warning.message
    assert heard.of(Started)[0].step == 2
    assert same(straight, resumed)
    assert steps_in(resumed.folder) == [1, 2, 3, 4]
    # The step was done again, and this time its checkpoint is whole.
    assert checkpoints.read(newest).step == 3


def test_an_interrupt_between_two_steps_keeps_the_last_whole_one(train, make_recipe, tmp_path, same, steps_in):
    """Ctrl-C a second time, or the host's own interruption, comes as an exception from wherever the run is."""

    class Interruption(BaseException):
        pass

    class Impatient:
        def on(self, event):
            if isinstance(event, Steps) and event.last == 3:
                raise Interruption

    straight, _ = train({"run.steps": 5}, "straight")
    with pytest.raises(Interruption) as caught:
        run.train(make_recipe({"run.steps": 5}), tmp_path / "run", [Impatient()])
    assert "step 3" in caught.value.__notes__[0] and "scion train" in caught.value.__notes__[0]
    resumed, heard = train({"run.steps": 5})
    assert heard.of(Started)[0].step == 3
    assert same(straight, resumed)
    assert steps_in(resumed.folder) == [1, 2, 3, 4, 5]


def test_a_stop_before_the_first_step_leaves_a_folder_that_can_be_used_again(train):
    result, heard = train(stop_after=0)
    assert (result.status, result.step, result.lora) == ("stopped", 0, None)
    assert heard.of(Finished)[0].status == "stopped"
    result, _ = train()
    assert (result.status, result.step) == ("finished", 3)


def test_only_the_last_checkpoints_are_kept(train):
    result, _ = train({"run.steps": 6, "run.checkpoint_every": 2, "run.keep_checkpoints": 2})
    kept = sorted(path.name for path in (result.folder / "checkpoints").iterdir())
    assert kept == ["step-00000004", "step-00000006"]


def test_checkpoints_come_by_time_too(train):
    _, heard = train({"run.steps": 3, "run.checkpoint_every": 0, "run.checkpoint_minutes": 1e-6})
    assert [event.step for event in heard.of(Checkpointed)] == [1, 2, 3]


def test_a_stop_while_a_resumed_run_is_still_encoding_tells_the_step_that_it_is_at(train, make_recipe, tmp_path):
    first, _ = train({"run.steps": 5}, stop_after=3)

    class Waiting:
        def __init__(self):
            self.encoding, self.ends = False, []

        def on(self, event):
            self.encoding |= getattr(event, "what", "") == "encoding"
            self.ends += [event] if isinstance(event, Finished) else []

    observer = Waiting()
    result = run.train(make_recipe({"run.steps": 5}), tmp_path / "run", [observer], lambda: observer.encoding)
    assert (result.status, result.step, result.total, result.lora) == ("stopped", 3, 5, first.lora)
    assert (observer.ends[0].step, observer.ends[0].total) == (3, 5)
    again, heard = train({"run.steps": 5})
    assert heard.of(Started)[0].step == 3 and again.step == 5
