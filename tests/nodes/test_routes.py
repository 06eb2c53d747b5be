"""The page asks for a run's history by the run's id."""

import asyncio
import json

import pytest

LINES = [
    {"step": 1, "loss": 0.5, "learning_rate": 1e-4, "seconds": 0.2},
    {"step": 2, "loss": None, "learning_rate": 1e-4, "seconds": 0.2},
    {"step": 2, "preview": "000002.png"},
]
STATE = {
    "fingerprint": "f" * 64,
    "settings": {},
    "status": "stopped",
    "step": 2,
    "total": 9,
    "lora": "hearts.safetensors",
}


@pytest.fixture
def ask(pack, host, request_of):
    handler = host.server.routes.handlers["/scion/runs/{run}"]
    return lambda run: asyncio.run(handler(request_of(run=run)))


@pytest.fixture
def run(host):
    """A run's folder with a state and a history whose last line was torn."""
    folder = host.base / "output/scion/hearts-0123456789ab"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(STATE))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES) + '{"step": 3, "lo')
    return folder


def test_history_of_a_run_is_its_state_and_its_whole_lines(ask, run):
    answer = ask(run.name)
    assert answer.status == 200
    assert answer.body == {
        "run": "hearts-0123456789ab",
        "status": "stopped",
        "step": 2,
        "total": 9,
        "lora": "hearts.safetensors",
        "history": LINES,
    }
    json.dumps(answer.body, allow_nan=False)


def test_run_without_a_history_has_an_empty_one(ask, run):
    (run / "metrics.jsonl").unlink()
    assert ask(run.name).body["history"] == []


@pytest.mark.parametrize("name", ["unknown", "..", "../scion/hearts-0123456789ab", "hearts-0123456789ab/checkpoints"])
def test_run_that_is_none_is_not_found(ask, run, name):
    (run / "checkpoints").mkdir()
    answer = ask(name)
    assert (answer.status, answer.body) == (404, {"error": "no such run"})


@pytest.mark.parametrize("state", ['{"other": 1}', "{", "[]"])
def test_run_of_another_version_is_a_conflict_that_names_the_file(ask, run, state):
    (run / "run.json").write_text(state)
    answer = ask(run.name)
    assert answer.status == 409
    assert str(run / "run.json") in answer.body["error"]
