"""Metadata is text in the forms that tools read, and our recipe comes back from it."""

import json

import pytest

from trainer_core.lora_file.metadata import Facts, build, top_tags


@pytest.fixture
def facts():
    return Facts(
        title="a dog",
        architecture="stable-diffusion-v1",
        base_model_version="sd_v1",
        resolution=(512, 768),
        rank=16,
        alpha=8.0,
        learning_rate=1e-4,
        optimizer="torch.optim.adamw.AdamW",
        lr_scheduler="cosine",
        mixed_precision="bf16",
        seed=7,
        steps=100,
        max_steps=200,
        epoch=3,
        epochs=5,
        batch_size=2,
        accumulation=2,
        images=10,
        folders={"dog": (2, 5)},
        tags={"dog": {"a dog": 5, "grass": 2}, "more": {"a dog": 1, "sky ": 2}},
        buckets=[((512, 768), 6), ((768, 512), 4)],
        trigger="sks dog",
        started_at=1_700_000_000.5,
        finished_at=1_700_000_100.0,
        version="0.1.0",
        recipe={"steps": 200, "name": "Zoë"},
        dataset_hash="abc",
    )


def test_everything_is_text_and_empty_entries_are_left_out(facts):
    metadata = build(facts)
    assert all(isinstance(key, str) and isinstance(value, str) and value for key, value in metadata.items())
    assert "modelspec.author" not in metadata and "ss_clip_skip" not in metadata


def test_kohyas_entries_have_the_forms_that_tools_parse(facts):
    metadata = build(facts)
    assert metadata["ss_v2"] == "False" and metadata["ss_base_model_version"] == "sd_v1"
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("16", "8.0")
    assert metadata["ss_network_module"] == "networks.lora"
    assert metadata["ss_resolution"] == "(512, 768)"
    assert metadata["ss_training_started_at"] == "1700000000.5"
    assert metadata["ss_num_batches_per_epoch"] == "3" and metadata["ss_total_batch_size"] == "4"
    assert json.loads(metadata["ss_dataset_dirs"]) == {"dog": {"n_repeats": 2, "img_count": 5}}
    assert json.loads(metadata["ss_tag_frequency"])["dog"]["grass"] == 2
    assert json.loads(metadata["ss_bucket_info"])["buckets"]["1"] == {"resolution": [768, 512], "count": 4}


def test_modelspecs_required_entries_are_there(facts):
    metadata = build(facts)
    assert metadata["modelspec.sai_model_spec"] == "1.0.1"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert metadata["modelspec.implementation"] == "diffusers" and metadata["modelspec.title"] == "a dog"
    assert metadata["modelspec.resolution"] == "512x768"
    assert metadata["modelspec.date"] == "2023-11-14T22:15:00Z"
    assert metadata["modelspec.prediction_type"] == "epsilon" and metadata["modelspec.trigger_phrase"] == "sks dog"


def test_the_recipe_is_in_the_file_as_json(facts):
    assert json.loads(build(facts)["scion.recipe"]) == {"steps": 200, "name": "Zoë"}


def test_tags_are_counted_over_all_folders(facts):
    assert top_tags(build(facts), 2) == [("a dog", 6), ("grass", 2)]
    assert top_tags({"ss_tag_frequency": "[1]"}) == [] and top_tags({"ss_tag_frequency": "{"}) == []
