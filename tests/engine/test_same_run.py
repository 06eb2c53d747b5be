"""A folder that holds a run already: asked again, extended, written anew, or refused as another run."""

import json
import shutil
import threading

import pytest
import torch

from trainer_core import recipe
from trainer_core.engine.events import Finished, Started, Steps
from trainer_core.engine.run_folder import RunFolder
from trainer_core.errors import BadInput
from trainer_core.lora_file.safe_io import read_header


def test_a_finished_run_is_returned_at_once(train):
    first, _ = train()
    written = first.lora.stat().st_mtime_ns
    again, heard = train()
    assert again == first
    assert again.lora.stat().st_mtime_ns == written
    assert not heard.of(Steps) and not heard.of(Started)
    assert "nothing was left to do" in heard.of(Finished)[0].lines[0]


def test_a_finished_run_whose_lora_was_deleted_writes_it_again(train, tensors):
    first, _ = train()
    before = tensors(first)
    first.lora.unlink()
    again, heard = train()
    assert not heard.of(Steps)
    assert again.status == "finished"
    assert all(torch.equal(value, before[key]) for key, value in tensors(again).items())


def test_more_steps_extend_a_finished_run_to_the_longer_one(train, same, steps_in):
    straight, _ = train({"run.steps": 7}, "straight")
    train({"run.steps": 4})
    longer, heard = train({"run.steps": 7})
    assert heard.of(Started)[0].step == 4
    assert [event.first for event in heard.of(Steps)] == [5, 6, 7]
    assert same(straight, longer)
    assert steps_in(longer.folder) == list(range(1, 8))


def test_fewer_steps_than_are_done_are_refused_with_both_numbers(train):
    train({"run.steps": 5})
    with pytest.raises(BadInput, match="run.steps: 3, but the run in .* has done 5 already"):
        train({"run.steps": 3})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"optimizer.learning_rate": 5e-4}, "optimizer.learning_rate was 0.001, is 0.0005"),
        ({"adapter.rank": 8}, "adapter.rank was 4, is 8"),
        ({"run.seed": 1}, "run.seed was 0, is 1"),
        ({"dataset.flip": True}, "dataset.flip was False, is True"),
    ],
)
def test_a_folder_with_another_run_is_refused_and_the_setting_named(train, changes, named):
    train()
    with pytest.raises(BadInput, match="holds another run") as caught:
        train(changes)
    assert named in str(caught.value)


def test_the_length_counts_as_another_run_only_where_the_learning_rate_depends_on_it(train):
    train({"optimizer.schedule": "linear"})
    with pytest.raises(BadInput, match="run.steps was 3, is 4"):
        train({"optimizer.schedule": "linear", "run.steps": 4})


def test_another_dataset_is_another_run(train, pictures, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(pictures, copy)
    train({"dataset.path": str(copy)})
    (copy / "0.txt").write_text("something else")
    with pytest.raises(BadInput, match="the dataset or the base model has changed"):
        train({"dataset.path": str(copy)})


def test_the_precision_counts_as_it_is_and_not_as_it_was_asked_for(train):
    first, _ = train({"run.precision": "auto"})
    again, heard = train({"run.precision": "fp32"})
    assert again == first and not heard.of(Started)
    with pytest.raises(BadInput, match="holds another run .run.precision was 'fp32', is 'bf16'.;"):
        train({"run.precision": "bf16"})


@pytest.mark.parametrize(
    ("part", "change"),
    [("scheduler/scheduler_config.json", {"beta_end": 0.02}), ("vae/config.json", {"scaling_factor": 0.2})],
)
def test_another_noise_schedule_or_vae_is_another_run(train, base, tmp_path, part, change):
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    first, _ = train({"base": str(copy)})
    assert train()[0] == first
    path = copy / part
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadInput, match="the dataset or the base model has changed"):
        train({"base": str(copy)})


def test_what_does_not_decide_the_weights_may_change(train):
    train()
    result, heard = train({"run.preview_every": 1, "run.checkpoint_every": 1, "output.dtype": "fp16"})
    assert result.step == 3 and not heard.of(Steps)


@pytest.mark.parametrize(
    ("changes", "key", "value"),
    [
        ({"output.author": "me"}, "modelspec.author", "me"),
        ({"output.license": "CC0"}, "modelspec.license", "CC0"),
        ({"output.description": "a thing"}, "modelspec.description", "a thing"),
        ({"output.name": "ding"}, "modelspec.title", "ding"),
    ],
)
def test_a_finished_run_asked_with_other_words_writes_its_file_again_without_a_step(
    train, changes, key, value, tensors
):
    first, _ = train()
    before, numbers = read_header(first.lora).metadata, tensors(first)
    assert before.get(key) != value
    again, heard = train(changes)
    assert not heard.of(Steps)
    assert read_header(again.lora).metadata[key] == value
    assert all(torch.equal(number, numbers[name]) for name, number in tensors(again).items())
    written = again.lora.stat().st_mtime_ns
    third, heard = train(changes)
    assert third == again and third.lora.stat().st_mtime_ns == written and not heard.of(Started)


def test_a_finished_run_asked_in_another_precision_and_dialect_writes_its_file_again_without_a_step(train, tensors):
    first, _ = train()
    before = tensors(first)
    again, heard = train({"output.dtype": "bf16", "output.dialect": "comfyui"})
    assert not heard.of(Steps) and again.lora == first.lora
    now = tensors(again)
    assert {value.dtype for key, value in now.items() if "lora_" in key} == {torch.bfloat16}
    assert not now.keys() & before.keys()
    assert again.step == 3 and (again.folder / "checkpoints" / "step-00000003").is_dir()


def test_the_state_of_a_run_of_an_older_scion_is_read_and_its_file_returned(train):
    first, _ = train()
    path = first.folder / "run.json"
    state = json.loads(path.read_text())
    del state["output"]
    path.write_text(json.dumps(state))
    again, heard = train()
    assert again == first and not heard.of(Started)


def test_a_run_begun_with_existing_new_or_error_goes_on_by_its_own_recipe(train):
    for existing in ("new", "error"):
        begun, _ = train({"run.existing": existing, "run.steps": 4}, existing, stop_after=2)
        written = recipe.read(begun.folder / "recipe.json")
        assert written.run.existing == "resume"
        ended, heard = train(written, existing)
        assert (ended.folder, ended.step, heard.of(Started)[0].step) == (begun.folder, 4, 2)


def test_existing_new_starts_beside_and_error_refuses(train, same):
    first, _ = train()
    beside, _ = train({"run.existing": "new"})
    assert (first.folder.name, beside.folder.name) == ("run", "run-2")
    assert same(first, beside)
    with pytest.raises(BadInput, match="holds a run already .finished, step 3 of 3"):
        train({"run.existing": "error"})


def test_a_second_run_in_a_folder_that_trains_is_refused(train, tmp_path):
    with RunFolder(tmp_path / "run").locked(), pytest.raises(BadInput, match="another process trains in this folder"):
        train()
    refused = []

    def second():
        try:
            train()
        except BadInput as error:
            refused.append(str(error))

    with RunFolder(tmp_path / "run").locked():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "another process trains" in refused[0]
    assert train()[0].status == "finished"
