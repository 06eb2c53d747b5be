"""Fetching a base from the hub: never by itself, and of each part one form of the weights."""

import dataclasses
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from trainer_core import cli
from trainer_core.errors import BadInput
from trainer_core.families import sources

REPOSITORY = [
    "README.md",
    "model_index.json",
    "v1-5-pruned.ckpt",
    "scheduler/scheduler_config.json",
    "safety_checker/model.safetensors",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/pytorch_model.bin",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.bin",
    "vae/diffusion_pytorch_model.fp16.bin",
]


@pytest.fixture
def hub(base, monkeypatch):
    """A hub that holds the test's base under any name; the list of what was fetched from it."""
    fetched = []

    def snapshot(repo, local_files_only=False, allow_patterns=None):
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        fetched.append((repo, allow_patterns))
        return str(base)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, repo: REPOSITORY)
    return fetched


def test_of_each_part_one_form_of_the_weights_is_fetched():
    assert sources.wanted_files(REPOSITORY) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "text_encoder/config.json",
        "unet/config.json",
        "vae/config.json",
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.bin",
    ]


def test_a_variant_is_fetched_where_there_is_nothing_else():
    names = ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors"]
    assert sources.wanted_files(names) == names


def test_shards_and_their_index_are_all_fetched():
    shards = [f"transformer/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = "transformer/diffusion_pytorch_model.safetensors.index.json"
    assert sorted(sources.wanted_files(["model_index.json", index, *shards])) == sorted(
        ["model_index.json", index, *shards]
    )


def test_the_shards_of_a_variant_are_fetched_where_there_is_nothing_else():
    whole = [f"text_encoder_3/model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    halved = [f"text_encoder_3/model.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert sources.wanted_files(["model_index.json", *whole, *halved]) == ["model_index.json", *whole]
    assert sources.wanted_files(["model_index.json", *halved]) == ["model_index.json", *halved]


def test_nothing_is_downloaded_unless_it_is_asked_for(hub):
    with pytest.raises(BadInput, match="nothing is downloaded by itself"):
        sources.resolve("someone/model")
    assert hub == []


def test_what_is_asked_for_is_fetched_into_the_cache(hub, base):
    source = sources.resolve("someone/model", download=True)
    assert source.path == Path(base)
    assert hub == [("someone/model", sources.wanted_files(REPOSITORY))]


def test_a_repository_that_is_no_diffusers_model_is_refused_before_anything_is_fetched(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, repo: ["model.gguf"])
    with pytest.raises(BadInput, match="someone/model.*could not be fetched.*no model_index.json"):
        sources.resolve("someone/model", download=True)
    assert hub == []


@pytest.mark.parametrize("flag, count", [([], 0), (["--download"], 1)])
def test_the_command_line_fetches_only_with_its_flag(hub, tmp_path, capsys, flag, count):
    words = ["sample", "--base", "someone/model", "--prompt", "a red ring", "--steps", "1", *flag]
    cli.main([*words, "--out", str(tmp_path / "ring.png"), "--width", "64", "--height", "64"])
    assert len(hub) == count


def test_what_was_fetched_is_found_again_though_much_of_the_repository_was_not_wanted(base, tmp_path, monkeypatch):
    """As the hub's library leaves it: a listing of the whole repository beside the files that were fetched."""
    import huggingface_hub.constants

    commit, place = "0" * 40, tmp_path / "models--someone--model"
    shutil.copytree(base, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    entry = {"size": 1, "blob_id": "a" * 40, "lfs": None, "xet_hash": None}
    listed = [path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file()]
    try:
        from huggingface_hub._tree_cache import TreeCacheEntry, write_tree_cache
    except ImportError:
        pytest.skip("this huggingface_hub keeps no listing")
    names = {field.name for field in dataclasses.fields(TreeCacheEntry)}
    entries = {n: TreeCacheEntry(**{k: v for k, v in entry.items() if k in names}) for n in [*listed, "README.md"]}
    write_tree_cache(str(place), commit, entries)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(huggingface_hub.errors.LocalEntryNotFoundError):  # asked for everything, it says no
        huggingface_hub.snapshot_download("someone/model", local_files_only=True)
    assert sources.resolve("someone/model").path == place / "snapshots" / commit


def test_a_model_that_is_here_is_used_where_the_hub_cannot_be_reached(hub, base, monkeypatch):
    def unreachable(self, repo):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, **asked: str(base))
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", unreachable)
    assert sources.resolve("someone/model", download=True).path == base


@pytest.mark.parametrize("text", ["../../etc/passwd", "/etc/passwd", "~/x", "a/../b", "a/b/c", "..", "./a", "\\\\h\\s"])
def test_no_path_passes_for_a_hub_id(text):
    assert not sources.is_hub_id(text)
