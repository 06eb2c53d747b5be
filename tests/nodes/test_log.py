"""What the host's log and the node say of a run."""

import logging
from pathlib import Path

import pytest


@pytest.fixture
def observer(pack):
    return pack("nodes.log").LogObserver()


@pytest.fixture
def events(pack):
    return pack("trainer_core.engine.events")


def test_a_run_is_a_few_lines_in_the_log(observer, events, caplog):
    with caplog.at_level(logging.INFO, "scion"):
        observer.on(events.Started(Path("runs/dog-1"), 0, 500, 128, 797184, "fp32", "cpu"))
        for step in range(1, 101):
            observer.on(events.Steps(step, [0.5], 1e-4, 500, 0, 0.1, 40.0, 10**9))
        observer.on(events.Finished("finished", 500, 500, events.Made(Path("runs/dog-1/dog.safetensors"))))
    assert [record.getMessage() for record in caplog.records] == [
        "Scion: runs/dog-1 trains 500 steps, fp32 on cpu",
        "Scion: finished at step 500 of 500: runs/dog-1/dog.safetensors",
    ]


def test_validation_and_an_early_end_are_told_in_the_log(observer, events, caplog):
    with caplog.at_level(logging.INFO, "scion"):
        observer.on(events.Validated(200, 0.25, 100, 0.125))
        observer.on(
            events.Finished("finished", 300, 500, events.Made(Path("dog.safetensors")), [], "it has not improved")
        )
    assert [record.getMessage() for record in caplog.records] == [
        "Scion: step 200, validation loss 0.2500 (best 0.1250 at step 100)",
        "Scion: finished early (it has not improved) at step 300 of 500: dog.safetensors",
    ]


def test_progress_comes_once_a_minute(observer, pack, events, caplog, monkeypatch):
    clock = iter([30.0, 61.0, 61.0, 90.0, 122.0, 122.0])
    monkeypatch.setattr(pack("nodes.log").time, "monotonic", lambda: next(clock))
    observer._said = 0.0
    with caplog.at_level(logging.INFO, "scion"):
        for step in range(1, 5):
            observer.on(events.Steps(step, [0.25], 1e-4, 500, 0, 0.1, 600.0, 10**9))
    assert [record.getMessage() for record in caplog.records] == [
        "Scion: step 2 of 500, loss 0.2500, 10 min left",
        "Scion: step 4 of 500, loss 0.2500, 10 min left",
    ]


def test_numbers_that_json_does_not_know_are_nothing(pack):
    finite = pack("nodes.host.observer")._finite
    assert finite({"losses": [1.0, float("nan"), float("inf")], "step": 3}) == {"losses": [1.0, None, None], "step": 3}
