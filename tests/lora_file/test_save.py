"""A LoRA is saved only if it reads back, is finite, and loads in every reader that its dialect is for."""

import pytest
import torch

from trainer_core.errors import BadInput, ScionError
from trainer_core.lora_file import save
from trainer_core.lora_file.dialects import DIALECTS, read_lora
from trainer_core.lora_file.hashes import sha256_of_data
from trainer_core.lora_file.lora import LoraPair, ReaderReport
from trainer_core.lora_file.safe_io import read_tensors


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_saved_lora_loads_in_full_and_carries_its_hashes(one_level_target, random_lora, tmp_path, dialect, dtype):
    lora, path = random_lora(one_level_target), tmp_path / "loras" / "mine.safetensors"
    found = save.save_lora(path, lora, dialect, dtype, {"ss_output_name": "mine"}, one_level_target)
    assert {report.reader for report in found if report.complete} >= set(DIALECTS[dialect].readers)
    read, metadata = read_lora(path, one_level_target)
    assert metadata["ss_output_name"] == "mine"
    assert metadata["sshs_model_hash"] == sha256_of_data(path)
    assert metadata["modelspec.hash_sha256"] == f"0x{sha256_of_data(path)}"
    close = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 1e-2}[dtype]
    for module, pair in lora["unet"].items():
        assert read["unet"][module].down.dtype == getattr(torch, dtype)
        torch.testing.assert_close(read["unet"][module].delta(), pair.delta(), rtol=close, atol=close)


def test_saving_twice_gives_equal_bytes(one_level_target, random_lora, tmp_path):
    for name in ("a", "b"):
        save.save_lora(tmp_path / name, random_lora(one_level_target), "kohya", "float32", {"k": "v"}, one_level_target)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), "float32"), (1e6, "float16")])
def test_numbers_that_are_not_finite_in_the_file_are_never_saved(target, random_lora, tmp_path, value, dtype):
    lora = random_lora(target, lambda _, path: path.endswith("to_q"))
    next(iter(lora["unet"].values())).down[0, 0] = value
    with pytest.raises(ScionError, match="NaN or infinite.*Save as float32"):
        save.save_lora(tmp_path / "lora", lora, "kohya", dtype, {}, target)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_a_reader_would_load_in_part_is_not_left_behind(target, random_lora, tmp_path, monkeypatch):
    lora = random_lora(target)
    save.save_lora(tmp_path / "lora", lora, "kohya", "float32", {"state": "old"}, target)
    partial = [ReaderReport("ComfyUI", 5, 9, ["a.alpha", "b.alpha", "c.alpha"])]
    monkeypatch.setattr(save, "reader_reports", lambda tensors, target: partial)
    with pytest.raises(ScionError, match="5 of 9 modules load in ComfyUI; not: a.alpha, b.alpha and 1 more"):
        save.save_lora(tmp_path / "lora", lora, "kohya", "float32", {"state": "new"}, target)
    assert [path.name for path in tmp_path.iterdir()] == ["lora"]
    assert read_tensors(tmp_path / "lora")[1]["state"] == "old"


def test_a_disk_that_returns_other_bytes_is_noticed(target, random_lora, tmp_path, monkeypatch):
    def damaged(path):
        tensors, metadata = read_tensors(path)
        next(iter(tensors.values())).add_(1)
        return tensors, metadata

    monkeypatch.setattr(save, "read_tensors", damaged)
    with pytest.raises(ScionError, match="does not read back"):
        save.save_lora(tmp_path / "lora", random_lora(target), "kohya", "float32", {}, target)
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_no_weight_of_the_model_fits_is_not_saved(target, tmp_path):
    lora = {"unet": {"conv_in": LoraPair(torch.ones(1, 5, 3, 3), torch.ones(32, 1, 1, 1), 1.0)}}
    with pytest.raises(BadInput, match="do not fit the weight of shape"):
        save.save_lora(tmp_path / "lora", lora, "kohya", "float32", {}, target)
    assert list(tmp_path.iterdir()) == []


def test_nothing_and_unknown_settings_are_refused(target, random_lora, tmp_path):
    with pytest.raises(ScionError, match="nothing to save"):
        save.save_lora(tmp_path / "lora", {"unet": {}}, "kohya", "float32", {}, target)
    with pytest.raises(BadInput, match="'int8' is not one of float32"):
        save.save_lora(tmp_path / "lora", random_lora(target), "kohya", "int8", {}, target)
