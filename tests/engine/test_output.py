"""What a LoRA file is called and what it says about itself."""

import json

import pytest

from trainer_core.engine import output
from trainer_core.engine.output import file_name
from trainer_core.errors import BadInput
from trainer_core.lora_file.safe_io import read_header
from trainer_core.recipe import from_dict


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/a/my dog", "my-dog"),
        ("things/", "things"),
        ("/a/我的狗", "我的狗"),
        ("10_sks dog!", "10_sks-dog"),
        ("/", "lora"),
        ("", "lora"),
        ("..", "lora"),
        ("/a/v1.5.", "v1.5"),
        ("/a/adapter", "adapter-lora"),
    ],
)
def test_the_file_is_called_after_the_datasets_folder(folder, name):
    assert file_name(from_dict({"dataset": {"path": folder}})) == name
    assert file_name(from_dict({"dataset": {"path": folder}, "output": {"name": "给 me"}})) == "给 me"


def test_a_name_that_a_checkpoint_uses_itself_is_refused():
    with pytest.raises(BadInput, match="output.name: 'optimizer' is what a checkpoint calls its own file"):
        from_dict({"output": {"name": "optimizer"}})


@pytest.fixture
def said(train, base, pictures, tmp_path):
    first, _ = train({"run.steps": 1, "adapter.alpha": 3.0}, "first")
    result, _ = train(
        {
            "run.steps": 5,
            "run.accumulation": 2,
            "adapter.alpha": 3.0,
            "adapter.start_from": str(first.lora),
            "dataset.trigger": "dingsda",
            "dataset.repeats": 2,
            "dataset.cache": "disk",
            "dataset.cache_path": str(tmp_path / "cache"),
            "optimizer.schedule": "cosine",
            "output.author": "me",
        }
    )
    return read_header(result.lora).metadata


def test_it_says_how_it_was_trained(said):
    expected = {
        "ss_network_dim": "4",
        "ss_network_alpha": "3.0",
        "ss_base_model_version": "sd_v1",
        "ss_steps": "5",
        "ss_max_train_steps": "5",
        "ss_learning_rate": "0.001",
        "ss_lr_scheduler": "cosine",
        "ss_mixed_precision": "no",
        "ss_seed": "0",
        "ss_gradient_accumulation_steps": "2",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.title": "things",
        "modelspec.author": "me",
        "modelspec.trigger_phrase": "dingsda",
        "modelspec.resolution": "64x64",
    }
    assert {key: said.get(key) for key in expected} == expected


def test_it_tells_strangers_nothing_about_the_disk(said, base, pictures, tmp_path):
    text = json.dumps(dict(said))
    for path in (base.parent, pictures.parent, tmp_path):
        assert str(path) not in text
    assert "things" in text  # the folder's own name is told


def test_of_captions_that_are_all_different_it_tells_the_most_frequent_parts(train, monkeypatch):
    monkeypatch.setattr(output, "TAGS_MOST", 3)
    result, _ = train({"run.steps": 1})
    (tags,) = json.loads(read_header(result.lora).metadata["ss_tag_frequency"]).values()
    assert tags == {"red": 5, "big": 5, "old": 5}
