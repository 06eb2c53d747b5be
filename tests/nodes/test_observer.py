"""What all pages hear of a run in the graph, and what a page that comes late can ask."""

import json
from pathlib import Path

import pytest
import torch


@pytest.fixture
def events(pack):
    return pack("trainer_core.engine.events")


@pytest.fixture
def observer(pack, events, tmp_path):
    """Of the node 12:5, whose run has started at step 2 of 9."""
    one = pack("nodes.host.observer").NodeObserver("12:5")
    with one.present():
        one.on(events.Started(tmp_path / "hearts-0123456789ab", 2, 9, 3, 100, "fp32", "cpu"))
        yield one


@pytest.fixture
def steps(events):
    return lambda first, *losses: events.Steps(first, list(losses), 1e-4, 9, 0, 0.5, 1.0, 10)


def told(host, name):
    """The data of all messages of a name, without what each of them carries."""
    return [
        {key: value for key, value in data.items() if key not in ("node", "prompt_id", "run")}
        for event, data in host.server.sent
        if event == f"scion.{name}"
    ]


def test_every_message_carries_node_and_run(observer, host, events, pack):
    before = pack("nodes.host.observer").NodeObserver("3")
    before.on(events.Scanned(["5 pictures"]))
    carried = [(data["node"], data["prompt_id"], data["run"]) for _, data in host.server.sent]
    assert carried == [("12:5", None, "hearts-0123456789ab"), ("3", None, None)]


def test_steps_are_gathered_and_losses_that_are_no_numbers_are_null(observer, host, steps):
    for step in range(3, 7):
        observer.on(steps(step, 0.5 if step > 3 else float("nan")))
    observer.on(steps(7, 0.25, 0.125, float("inf")))
    sent = told(host, "step")
    assert [one["first"] for one in sent] == [3, 4]
    assert [one["losses"] for one in sent] == [[None], [0.5, 0.5, 0.5, 0.25, 0.125, None]]
    assert sent[1]["total"] == 9 and sent[1]["seconds_per_step"] == 0.5
    json.dumps(host.server.sent, allow_nan=False)


@pytest.mark.parametrize(
    "settings, seconds",
    [
        ('{"Scion.EventInterval": 2}', 2.0),
        ('{"Scion.EventInterval": 0}', 0.1),
        ('{"Scion.EventInterval": "1"}', 0.1),
        ("[]", 0.1),
        ("{", 0.1),
    ],
)
def test_how_often_steps_are_told_is_a_setting_of_the_host(pack, host, events, steps, settings, seconds, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    (host.base / "user/default").mkdir()
    (host.base / "user/default/comfy.settings.json").write_text(settings)
    one = pack("nodes.host.observer").NodeObserver("7")
    one.on(events.Started(Path("run"), 0, 9, 3, 100, "fp32", "cpu"))
    for step, after in enumerate([0, 0.5, 0.5, 1.1], 1):
        clock[0] += after
        one.on(steps(step, 0.5))
    assert len(told(host, "step")) == (2 if seconds == 2.0 else 4)


def test_what_the_steps_wait_for_is_told_and_known_until_the_next_step(observer, host, events, steps, pack):
    active = pack("nodes.host.active")
    observer.on(events.Busy("saving"))
    for done in range(5):
        observer.on(events.Busy("previewing", done, 4))
    phases = [(one["what"], one["done"], one["total"]) for one in told(host, "working")]
    # What comes too fast is left out; the first and the last are told.
    assert phases == [("saving", 0, 0), ("previewing", 0, 4), ("previewing", 4, 4)]
    [training] = active.trainings()
    assert training.told() == {
        "node": "12:5",
        "prompt_id": None,
        "run": "hearts-0123456789ab",
        "phase": {"what": "previewing", "done": 4, "total": 4},
        "step": 2,
        "total": 9,
    }
    observer.on(steps(3, 0.5))
    assert (training.told()["phase"], training.told()["step"]) == (None, 3)
    assert active.of_run("hearts-0123456789ab").requests is observer.requests


def test_validations_and_previews_tell_what_the_panel_draws(observer, host, events):
    observer.on(events.Validated(4, 0.5, 3, 0.25))
    observer.on(events.Validated(5, float("nan")))
    assert told(host, "validation") == [
        {"step": 4, "loss": 0.5, "best": {"step": 3, "loss": 0.25}},
        {"step": 5, "loss": None, "best": None},
    ]
    observer.on(events.Previewed(4, Path("step-00000004.png"), ["a", "b"], torch.zeros(2, 48, 64, 3)))
    assert told(host, "preview") == [
        {"step": 4, "name": "step-00000004.png", "prompts": ["a", "b"], "count": 2, "width": 64, "height": 48}
    ]


def test_end_tells_whether_it_was_early_and_of_which_run(host, events, pack, tmp_path):
    lora = tmp_path / "hearts-0123456789ab" / "hearts.safetensors"
    one = pack("nodes.host.observer").NodeObserver("7")
    one.on(events.Finished("finished", 4, 9, events.Made(lora), ["Loads in ComfyUI."], "as it was asked to"))
    [(_, data)] = host.server.sent
    assert (data["run"], data["status"], data["early"], data["lora"]) == (
        "hearts-0123456789ab",
        "finished",
        True,
        "hearts.safetensors",
    )
    assert data["lines"] == ["It ended early, as it was asked to.", "Loads in ComfyUI."]
    assert data["by_hand"] is True
    assert data["trained"] is False, "it was finished before"


def test_end_of_a_run_that_was_trained_says_so(observer, host, events):
    observer.on(events.Finished("stopped", 4, 9))
    assert [one["trained"] for one in told(host, "finished")] == [True]


def test_failure_is_told_once_and_the_node_trains_no_more(host, pack):
    active, one = pack("nodes.host.active"), pack("nodes.host.observer").NodeObserver("7")
    with pytest.raises(ValueError), one.present():
        assert [training.node for training in active.trainings()] == ["7"]
        raise ValueError("steps: 0 is out of range")
    assert active.trainings() == [] and told(host, "failed") == [{"message": "steps: 0 is out of range", "step": 0}]


def test_cancelled_run_has_not_failed(host, pack):
    active, one = pack("nodes.host.active"), pack("nodes.host.observer").NodeObserver("7")
    with pytest.raises(KeyboardInterrupt), one.present():
        raise KeyboardInterrupt
    assert active.trainings() == told(host, "failed") == []


WORKFLOW = {"id": "w", "nodes": [{"type": "ScionTrainLoRA", "widgets_values": ["ein Fuchs \U0001f98a", "\udc00"]}]}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def with_workflow(pack):
    """A node's observer, where the page sent this beside the prompt."""

    def make(sent):
        return pack("nodes.host.observer").NodeObserver("5", pack("nodes.host.workflow_file").said_with(sent))

    return make


def test_workflow_that_was_queued_is_kept_with_the_run(with_workflow, events, folder):
    started = events.Started(folder, 2, 9, 3, 100, "fp32", "cpu")
    for sent in (None, [], {"workflow": None}, {"workflow": {}}):
        with_workflow(sent).on(started)
    assert not list(folder.iterdir())
    with_workflow({"workflow": WORKFLOW}).on(started)
    [kept] = folder.iterdir()
    assert kept.name == "workflow.json"
    assert json.loads(kept.read_text("utf-8"))["nodes"][0]["widgets_values"] == ["ein Fuchs \U0001f98a", "?"]


def test_finished_run_is_given_the_workflow_that_it_lacks(with_workflow, events, folder):
    finished = events.Finished("finished", 9, 9, events.Made(folder / "hearts.safetensors"))
    for name in ("first", "second"):
        with_workflow({"workflow": {"id": name}}).on(finished)
    assert json.loads((folder / "workflow.json").read_text()) == {"id": "first"}


@pytest.mark.parametrize(
    "workflow, why", [({"a": "x" * 2**22}, "more than 4,194,304 bytes"), ({"a": float("nan")}, "no JSON")]
)
def test_workflow_that_cannot_be_kept_does_not_end_the_training(with_workflow, events, host, folder, workflow, why):
    with_workflow({"workflow": workflow}).on(events.Started(folder, 2, 9, 3, 100, "fp32", "cpu"))
    [warning] = told(host, "warning")
    assert why in warning["message"] and not list(folder.iterdir())
