"""Run folders in use, of another recipe, with torn or newer checkpoints."""

import json
import shutil

import pytest
from filelock import FileLock


@pytest.fixture
def mine(trained, tmp_path):
    return shutil.copytree(trained.folder, tmp_path / "mine")


@pytest.fixture
def again(words, pictures, mine):
    """The words that go on with the run that is there, with changes."""
    usual = {"run.checkpoint_every": 1, "run.keep_checkpoints": 9, "run.steps": 3}
    return lambda **changes: words(pictures, out=mine, **{**usual, **changes})


def test_a_second_process_on_the_same_run_is_refused(refused, again, mine):
    with FileLock(mine / ".lock"):
        refused(again(), [f"{mine}: another process trains in this folder", "wait for it, or choose another folder"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"adapter.rank": 3}, "adapter.rank was 2, is 3", id="rank"),
        pytest.param({"run.seed": 5}, "run.seed was 0, is 5", id="seed"),
        pytest.param({"optimizer.name": "adafactor"}, "optimizer.name was 'adamw', is 'adafactor'", id="optimiser"),
    ],
)
def test_a_run_of_another_recipe_is_refused_with_what_differs(refused, again, mine, changes, said):
    refused(again(**changes), [f"{mine}: holds another run", said, "choose another folder, or run.existing=new"])


def test_fewer_steps_than_are_done_are_refused(refused, again, mine):
    refused(again(**{"run.steps": 1}), ["run.steps: 1, but the run in", "has done 2 already", "run.existing=new"])


def test_a_run_is_refused_where_that_is_asked(refused, again, mine):
    refused(again(**{"run.existing": "error"}), f"{mine}: holds a run already (finished, step 2 of 2)")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("", "run.json: the file is empty", id="empty"),
        pytest.param('{"status": ', "run.json: not JSON", id="torn"),
        pytest.param("[]", "run.json: was written by another version of Scion", id="a list"),
        pytest.param('{"unheard_of": 1}', "run.json: was written by another version of Scion", id="another version's"),
    ],
)
def test_a_state_that_cannot_be_read_is_refused(refused, again, mine, content, said):
    (mine / "run.json").write_text(content)
    refused(again(), said)


def test_a_checkpoint_of_a_newer_format_is_refused_and_kept(refused, again, mine, edit_json):
    newest = mine / "checkpoints" / "step-00000002"
    edit_json(newest / "state.json", format=2)
    said = [f"{newest}: was written by a newer Scion (format 2, this one reads up to 1)", "update Scion"]
    refused(again(), said)


@pytest.mark.parametrize("file", ["adapter.safetensors", "optimizer.safetensors", "state.json"])
def test_a_checkpoint_cut_in_half_is_passed_over_and_said_so(scion, again, mine, file):
    newest = mine / "checkpoints" / "step-00000002"
    whole = (newest / file).read_bytes()
    (newest / file).write_bytes(whole[: len(whole) // 2])
    code, out, errors = scion(*again())
    assert code == 0, errors
    assert f"{newest} is not whole" in out + errors and "the checkpoint before it is used, of step 1" in out + errors
    assert "Going on at step 1 of 3" in out
    assert json.loads((mine / "run.json").read_text())["step"] == 3


def test_a_checkpoint_of_another_run_is_refused_and_kept(refused, scion, words, again, pictures, mine, tmp_path):
    settings = {"run.steps": 2, "run.checkpoint_every": 1, "adapter.rank": 3}
    assert scion(*words(pictures, out=tmp_path / "other", **settings))[0] == 0
    newest = mine / "checkpoints" / "step-00000002"
    shutil.rmtree(newest)
    shutil.copytree(tmp_path / "other" / "checkpoints" / "step-00000002", newest)
    said = [f"{newest}: holds other tensors than this recipe trains (", "is [3, 32] there, [2, 32] here", "delete it"]
    refused(again(), said)


def test_a_run_whose_only_checkpoint_is_torn_begins_anew_and_says_so(scion, again, mine):
    for path in (mine / "checkpoints").iterdir():
        (path / "optimizer.safetensors").write_bytes(b"")
    code, out, errors = scion(*again())
    assert code == 0, errors
    for step in (1, 2):
        assert f"{mine / 'checkpoints' / f'step-0000000{step}'} is not whole" in out
    assert out.count("no other is, so the run begins anew") == 2 and "the checkpoint before it" not in out
    assert "Training 3 steps" in out


def test_a_checkpoint_of_a_later_step_than_is_asked_for_is_refused(refused, again, mine, edit_json):
    """As a run leaves it that is killed after its checkpoint and before run.json."""
    edit_json(mine / "run.json", step=1, status="unfinished")
    refused(again(**{"run.steps": 1}), ["run.steps: 1, but the run in", "has done 2 already", "run.existing=new"])


def test_a_cache_folder_that_cannot_be_made_is_refused(refused, words, pictures, tmp_path):
    (tmp_path / "taken").write_text("a file")
    given = words(pictures, **{"dataset.cache": "disk", "dataset.cache_path": tmp_path / "taken" / "cache"})
    refused(given, [f"scion: dataset.cache_path: {tmp_path / 'taken' / 'cache'}", "cannot be made", "choose another"])
