"""What pages ask about runs: what trains now, all runs, one's history; commands, going on and deleting."""

import io
import json
import math
import os
import shutil
import time

import pytest
import torch
from filelock import FileLock
from PIL import Image

from trainer_core.engine.charts import save_strip

LINES = [
    {"step": 1, "loss": 0.5, "learning_rate": 1e-4, "seconds": 0.2},
    {"step": 2, "loss": None, "learning_rate": 1e-4, "seconds": 0.2},
    {"step": 2, "validation": 0.75, "best_step": 2},
    {"step": 2, "checkpoint": "step-00000002"},
    {"step": 2, "preview": "step-00000002.png", "prompts": ["a <b>"], "count": 1, "width": 64, "height": 48},
    {"step": 3, "loss": 0.25, "learning_rate": 2e-4, "seconds": 0.3},
]
STATE = {
    "fingerprint": "f" * 64,
    "settings": {"adapter.rank": 4, "dataset.trigger": "sks"},
    "status": "stopped",
    "step": 2,
    "total": 9,
    "lora": "hearts.safetensors",
    "started_at": 100.0,
}
NAME = "hearts-0123456789ab"
RUN = f"/scion/runs/{NAME}"
EARLY = {"status": "finished", "step": 3, "early_end": 9, "ended_by_hand": True}


@pytest.fixture
def make(host):
    """make(name, **state): a run's folder whose history's last line was torn."""

    def folder(name=NAME, **state):
        path = host.base / "output/scion" / name
        (path / "previews").mkdir(parents=True)
        (path / "run.json").write_text(json.dumps({**STATE, **state}))
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES) + '{"step": 4, "lo')
        (path / "hearts.safetensors").write_bytes(b"LoRA")
        (path / "previews/step-00000002.png").write_bytes(b"\x89PNG picture")
        return path

    return folder


@pytest.fixture
def run(make):
    return make()


@pytest.fixture
def training(pack, run):
    """A node that trains the run."""
    active = pack("nodes.host.active")
    one = active.Training("12:5", "prompt", pack("trainer_core.engine.requests").Requests(), run=NAME, step=3, total=9)
    active.enter(one)
    yield one
    active.leave(one)


# ---- looking


def test_history_of_a_run_is_its_state_and_its_columns(ask, run):
    answer = ask("GET", RUN)
    assert answer.status == 200
    assert answer.body == {
        "run": NAME,
        "status": "stopped",
        "early": False,
        "by_hand": False,
        "failure": "",
        "active": False,
        "step": 3,
        "total": 9,
        "lora": "hearts.safetensors",
        "loss": pytest.approx(0.5 - 0.25 * (1 - math.exp(-1))),
        "settings": {"adapter.rank": 4},
        "dataset": [],
        "series": {"step": [1, 3], "loss": [0.5, 0.25], "low": [0.5, 0.25], "high": [0.5, 0.25]},
        "learning_rate": [[1, 1e-4], [3, 2e-4]],
        "validation": [[2, 0.75]],
        "best": {"step": 2, "loss": 0.75},
        "checkpoints": [2],
        "previews": [
            {"step": 2, "name": "step-00000002.png", "prompts": ["a <b>"], "count": 1, "width": 64, "height": 48}
        ],
        "seconds_per_step": 0.3,
    }
    assert ask("GET", f"{RUN}?settings=all").body["settings"] == STATE["settings"]
    later = ask("GET", f"{RUN}?after=2").body
    assert (later["series"]["step"], later["learning_rate"]) == ([3], [[3, 2e-4]])
    assert (later["validation"], later["checkpoints"], later["previews"], later["step"]) == ([], [], [], 3)
    thin = ask("GET", f"{RUN}?points=1").body["series"]
    assert thin == {"step": [3], "loss": [0.375], "low": [0.25], "high": [0.5]}


def test_run_without_a_history_or_a_file_says_so(ask, run):
    (run / "metrics.jsonl").unlink()
    (run / "hearts.safetensors").unlink()
    told = ask("GET", RUN).body
    assert (told["series"]["step"], told["best"], told["seconds_per_step"], told["lora"]) == ([], None, None, None)


@pytest.mark.parametrize("asked", ["after=-1", "points=0", "points=1e9", "after=%c2%b2"])
def test_numbers_that_cannot_be_meant_are_refused_with_their_range(ask, run, asked):
    answer = ask("GET", f"{RUN}?{asked}")
    assert answer.status == 400 and "is no whole number from" in answer.body["error"]


@pytest.mark.parametrize("name", ["unknown", "..", "%2e%2e", "..%2fscion%2f" + NAME, NAME + "%2fpreviews", "%00"])
def test_run_that_is_none_is_not_found(ask, run, name):
    (run / "previews/run.json").write_text("{}")
    for method, path in (("GET", ""), ("POST", "/commands"), ("POST", "/continue"), ("DELETE", "")):
        answer = ask(method, f"/scion/runs/{name}{path}")
        assert answer.status in (404, 405) and b"hearts" not in str(answer.body).encode()
    assert run.is_dir()


@pytest.mark.parametrize("state", ['{"other": 1}', "{", "[]"])
def test_run_of_another_version_is_a_conflict_that_names_the_file(ask, run, state):
    (run / "run.json").write_text(state)
    answer = ask("GET", RUN)
    assert answer.status == 409
    assert str(run / "run.json") in answer.body["error"]
    assert ask("GET", "/scion/runs").body == {"runs": []}


def test_all_runs_are_listed_with_what_they_came_to(ask, make, training):
    make("dogs-abcdefabcdef-2", started_at=200.0, finished_at=300.0, lora="", **EARLY)
    hearts, dogs = ask("GET", "/scion/runs").body["runs"]
    assert (dogs["name"], dogs["status"], dogs["early"], dogs["active"], dogs["lora"]) == (
        "dogs",
        "finished",
        True,
        False,
        None,
    )
    assert dogs["finished_at"] == 300.0
    assert hearts.pop("bytes") > 400
    assert hearts == {
        "run": NAME,
        "name": "hearts",
        "status": "stopped",
        "early": False,
        "failure": "",
        "active": True,
        "step": 3,
        "total": 9,
        "started_at": 100.0,
        "finished_at": None,
        "loss": pytest.approx(0.5 - 0.25 * (1 - math.exp(-1))),
        "validation": {"step": 2, "loss": 0.75},
        "lora": "hearts.safetensors",
        "settings": {"adapter.rank": 4},
        "preview": "step-00000002.png",
        "curve": [[1, 0.5], [3, 0.25]],
        "workflow": False,
    }


def test_what_trains_is_listed_first_then_what_began_or_ended_last(ask, make, training):
    make("long-aaaaaaaaaaaa", started_at=50.0, finished_at=400.0, status="finished")
    make("short-bbbbbbbbbbbb", started_at=200.0, finished_at=300.0, status="finished")
    make("killed-cccccccccccc", started_at=350.0)
    runs = ask("GET", "/scion/runs").body["runs"]
    assert [run["run"].partition("-")[0] for run in runs] == ["hearts", "long", "killed", "short"]


def test_listed_run_follows_its_history_and_its_length(ask, run):
    def told():
        return [ask("GET", "/scion/runs").body["runs"][0][key] for key in ("step", "loss")]

    loss = 0.5 - 0.25 * (1 - math.exp(-1))
    assert told() == [3, pytest.approx(loss)]
    with open(run / "metrics.jsonl", "a") as file:
        file.writelines(f'\n{{"step": {step}, "loss": 0.125}}\n' for step in range(4, 21))
    short = told()
    (run / "run.json").write_text(json.dumps({**STATE, "total": 1000}))
    assert short[0] == 20 and told()[1] > short[1] + 0.01, "a longer run is averaged over more steps"
    assert told()[1] == ask("GET", RUN).body["loss"] == ask("GET", f"{RUN}?points=2").body["loss"]


def test_run_tells_its_dataset_by_names_alone(ask, run, host, pack):
    def told(**dataset):
        (run / "recipe.json").write_text(json.dumps({"dataset": dataset}))
        return ask("GET", RUN).body["dataset"]

    built_in = str(pack("trainer_core.assets").EXAMPLE_DATASET)
    assert told(path=built_in, folders=[]) == ["scion-example (built in)"]
    assert told(path=str(host.base / "input/people/alice")) == ["people/alice"]
    assert told(path="/srv/private/dogs", folders=[{"path": "/srv/cats"}]) == ["dogs", "cats"]
    assert (told(path="", folders=[{"path": "/srv/cats"}]), told(path="", folders=[])) == (["cats"], [""])
    assert told() == []
    (run / "recipe.json").write_text("[]")
    assert ask("GET", RUN).body["dataset"] == []


def test_listed_preview_is_the_one_nearest_the_best_validation_else_the_last(ask, run):
    for name in ("step-00000001.png", "step-00000009.png", "step-of-mine.png"):
        (run / "previews" / name).touch()
    assert ask("GET", "/scion/runs").body["runs"][0]["preview"] == "step-00000002.png"
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES if "validation" not in line))
    assert ask("GET", "/scion/runs").body["runs"][0]["preview"] == "step-00000009.png"


def test_workflow_is_given_as_it_was_kept(ask, run):
    missing = ask("GET", f"{RUN}/workflow")
    assert (missing.status, "Queue its workflow again" in missing.body["error"]) == (404, True)
    (run / "workflow.json").write_text('{"id": "w"}')
    assert ask("GET", f"{RUN}/workflow").body == {"id": "w"}
    assert ask("GET", "/scion/runs").body["runs"][0]["workflow"] is True


def test_previews_are_served_by_their_names_alone(ask, run):
    got = ask("GET", f"{RUN}/previews/step-00000002.png")
    assert (got.status, got.body, got.headers["Content-Type"]) == (200, b"\x89PNG picture", "image/png")
    shutil.copy(run / "previews/step-00000002.png", run / "step-00000003.png")
    for name in ("step-00000003.png", "..%2fstep-00000003.png", "..%2frun.json", "run.json", "%2fetc%2fpasswd"):
        assert ask("GET", f"{RUN}/previews/{name}").status == 404


def test_a_preview_s_pictures_are_served_without_their_captions(ask, run):
    address = f"{RUN}/previews/step-00000002.png?bare=1"
    assert ask("GET", address).body == b"\x89PNG picture", "one that does not say where they lie is left whole"
    save_strip(run / "previews/step-00000002.png", torch.rand(2, 192, 192, 3), ["a", "b"])
    assert Image.open(io.BytesIO(ask("GET", address).body)).size == (384, 192)
    small = ask("GET", address + "&height=48")
    assert Image.open(io.BytesIO(small.body)).size == (96, 48) and small.headers["Content-Type"] == "image/jpeg"
    assert ask("GET", address + "&height=4096").status == 400


def test_what_trains_now_is_told_to_who_comes_late(ask, training):
    training.phase = {"what": "encoding", "done": 2, "total": 5}
    told = {"node": "12:5", "prompt_id": "prompt", "run": NAME, "phase": training.phase, "step": 3, "total": 9}
    assert ask("GET", "/scion/active").body == {"runs": [told]}
    assert ask("GET", RUN).body["active"] is True


# ---- changing


@pytest.mark.parametrize("command", ["finish", "checkpoint", "sample"])
def test_commands_reach_the_run(ask, training, command):
    answer = ask("POST", f"{RUN}/commands", json={"command": command})
    assert (answer.status, training.requests.take(command)) == (202, True)


def test_commands_that_are_none_or_find_no_training_are_refused(ask, run):
    answer = ask("POST", f"{RUN}/commands", json={"command": "finish"})
    assert (answer.status, answer.body["error"]) == (
        409,
        "this run does not train now; queue its workflow to go on with it",
    )
    for said, why in (
        ({"json": {"command": "rm"}}, "is none of finish, checkpoint, sample"),
        ({"json": {"command": ["finish"]}}, "is none of"),
        ({"json": ["finish"]}, "no JSON object"),
        ({"data": b"\xff{"}, "no JSON"),
    ):
        answer = ask("POST", f"{RUN}/commands", **said)
        assert answer.status == 400 and why in answer.body["error"]
    assert ask("POST", f"{RUN}/commands", data=b" " * 300_000).status == 413


def test_run_that_ended_early_goes_on_when_it_is_queued_again(ask, make, pack):
    path, node = make(**EARLY), pack.nodes["ScionTrainLoRA"]
    before = node.fingerprint_inputs(existing="resume")
    assert ask("POST", f"{RUN}/continue").status == 200
    state = json.loads((path / "run.json").read_text())
    assert (state["status"], state["early_end"], state["ended_by_hand"]) == ("stopped", 0, False)
    # The host, which remembers what the run gave, has to ask the node again; not one that would begin a new run.
    assert node.fingerprint_inputs(existing="resume") != before
    assert node.fingerprint_inputs(existing="new") is None


def test_of_runs_with_the_same_settings_the_one_that_is_continued_goes_on(ask, make, pack):
    older, newer = make(), make(f"{NAME}-2")
    for path, age in ((older, 200), (newer, 100)):
        os.utime(path / "run.json", (time.time() - age, time.time() - age))
    paths = pack("nodes.host.paths")
    assert paths.run_folder("0123456789ab", "hearts") == newer
    state = (older / "run.json").read_text()
    assert ask("POST", f"{RUN}/continue").status == 200
    assert paths.run_folder("0123456789ab", "hearts") == older
    assert json.loads((older / "run.json").read_text()).items() >= json.loads(state).items()


def test_run_that_has_done_all_its_steps_does_not_go_on(ask, make):
    make(status="finished", step=9)
    answer = ask("POST", f"{RUN}/continue")
    assert (answer.status, answer.body["error"][:32]) == (409, "this run has done all its steps;")


def test_deleting_takes_the_folder_away_and_tells_its_size(ask, run):
    size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    assert ask("DELETE", RUN).body == {"bytes": size}
    assert not run.exists() and ask("DELETE", RUN).status == 404


def test_run_that_trains_is_neither_deleted_nor_opened_again(ask, training, run, pack):
    assert [ask("DELETE", RUN).status, ask("POST", f"{RUN}/continue").status] == [409, 409]
    pack("nodes.host.active").leave(training)
    with FileLock(run / ".lock"):  # as of a command line elsewhere
        answer = ask("DELETE", RUN)
        assert (answer.status, ask("POST", f"{RUN}/continue").status) == (409, 409)
        assert "another process trains in this folder" in answer.body["error"]
    pack("nodes.host.active").enter(training)
    assert (run / "run.json").is_file()


@pytest.mark.parametrize(
    "headers, allowed",
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://proxy.example"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://here:8188", "Host": "here:8188"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://here:9999", "Host": "here:8188"}, False),
        ({"Origin": "http://here:8188", "Host": "here:8188"}, True),
        ({"Origin": "https://here", "Host": "here:443"}, True),
        ({"Origin": "http://there:8188", "Host": "here:8188"}, False),
        ({"Origin": "null", "Host": "here:8188"}, False),
    ],
)
def test_what_changes_something_is_not_for_pages_of_other_sites(ask, run, headers, allowed):
    assert ask("DELETE", RUN, headers=headers).status == (200 if allowed else 403)
    assert run.exists() != allowed
    assert ask("POST", f"{RUN}/commands", headers=headers).status == (404 if allowed else 403)
