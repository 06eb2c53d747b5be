"""Where bases come from: folders of other families, paths that are not there, and the cache of the hub."""

import json
import shutil

import pytest

from trainer_core.errors import BadInput
from trainer_core.families import registry


def test_a_folder_of_another_family_is_refused_by_its_name(copied):
    index = copied / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "PixArtAlphaPipeline"}))
    with pytest.raises(BadInput, match="is a PixArtAlphaPipeline; this version trains StableDiffusionPipeline"):
        registry.load(str(copied))
    index.write_text("[1, 2]")
    with pytest.raises(BadInput, match="model_index.json is not readable"):
        registry.load(str(copied))


def test_what_is_not_there_is_said_with_what_would_do(tmp_path):
    with pytest.raises(BadInput, match="nothing at 'no such base'; give scion-tiny, the path"):
        registry.load("no such base")
    with pytest.raises(BadInput, match="has no model_index.json"):
        registry.load(str(tmp_path))
    other = tmp_path / "model.gguf"
    other.write_bytes(b"GGUF")
    with pytest.raises(BadInput, match="is no checkpoint; expected a file ending in .safetensors"):
        registry.load(str(other))


def test_a_hub_id_is_used_from_the_cache_and_never_downloaded(base, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(BadInput, match="nothing is downloaded by itself. Fetch it once with `hf download some/model`"):
        registry.load("some/model")
    commit = "0" * 40
    place = tmp_path / "hub" / "models--some--model"
    shutil.copytree(base, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    assert registry.load("some/model").name == "model"
