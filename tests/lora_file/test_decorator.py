"""Files of decorators: written whole, read whoever wrote them, and told from other files."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer_core.errors import BadInput, ScionError
from trainer_core.lora_file.decorator import read_decorator, save_decorator
from trainer_core.lora_file.dialects import read_lora
from trainer_core.lora_file.inspect import inspect_file
from trainer_core.lora_file.lora import Target
from trainer_core.lora_file.words import read_word

ROWS = torch.arange(12.0).reshape(2, 6)


def test_ai_toolkit_s_file_is_read_in_float32_and_named_after_the_file(tmp_path):
    save_file({"weight": ROWS.bfloat16()}, tmp_path / "style.safetensors")
    read = read_decorator(tmp_path / "style.safetensors")
    assert (read.name, read.width, read.weight.dtype) == ("style", 6, torch.float32)
    assert torch.equal(read.weight, ROWS)


def test_a_decorator_comes_back_as_it_was_with_its_hashes(tmp_path):
    file = tmp_path / "style.decorator.safetensors"
    save_decorator(file, ROWS, {"note": "kept"})
    read = read_decorator(file)
    assert (read.name, read.metadata["note"]) == ("style", "kept") and torch.equal(read.weight, ROWS)
    assert read.metadata["modelspec.hash_sha256"] == f"0x{inspect_file(file).hashes['sshs_model_hash']}"
    assert list(load_file(file)) == ["weight"]


@pytest.mark.parametrize(
    "tensors",
    [{"weight": ROWS, "bias": ROWS}, {"weight": ROWS[0]}, {"emb_params": ROWS}, {"weight": torch.empty(0, 6)}],
    ids=["two tensors", "one row without an axis", "a new word", "no row"],
)
def test_what_is_no_decorator_is_refused(tmp_path, tensors):
    save_file({key: rows.clone() for key, rows in tensors.items()}, tmp_path / "style.safetensors")
    with pytest.raises(BadInput, match="style.safetensors: is no decorator: it holds"):
        read_decorator(tmp_path / "style.safetensors")


def test_numbers_that_are_not_finite_are_neither_saved_nor_read(tmp_path):
    file = tmp_path / "style.decorator.safetensors"
    save_decorator(file, ROWS, {})
    with pytest.raises(ScionError, match="the vectors of the decorator hold NaN or infinite numbers"):
        save_decorator(file, ROWS / 0, {})
    assert torch.equal(load_file(file)["weight"], ROWS)
    save_file({"weight": ROWS / 0}, file)
    with pytest.raises(BadInput, match="its vectors hold NaN or infinite numbers"):
        read_decorator(file)


def test_it_is_told_from_a_lora_and_from_a_new_word(tmp_path):
    file = tmp_path / "style.decorator.safetensors"
    save_decorator(file, ROWS, {})
    with pytest.raises(BadInput, match="holds a decorator and no LoRA; scion sample takes it by --decorator"):
        read_lora(file, Target({}))
    with pytest.raises(BadInput, match="is no embedding"):
        read_word(file)
    found = inspect_file(file)
    assert (found.kind, found.tokens, found.word) == ("decorator", (2, 6), "")
