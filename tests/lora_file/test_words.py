"""Files of new words: written whole, and read whoever wrote them."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer_core.errors import BadInput, ScionError
from trainer_core.lora_file.dialects import read_lora
from trainer_core.lora_file.inspect import inspect_file
from trainer_core.lora_file.lora import Target
from trainer_core.lora_file.words import read_word, save_word

ROWS = torch.arange(12.0).reshape(2, 6)


@pytest.mark.parametrize(
    ("tensors", "name", "vectors"),
    [
        ({"emb_params": ROWS}, "cat", {"te": ROWS}),
        ({"emb_params": ROWS[0].half()}, "cat", {"te": ROWS[:1]}),
        ({"clip_g": ROWS, "clip_l": ROWS[:, :3].contiguous()}, "cat", {"te1": ROWS[:, :3], "te2": ROWS}),
        ({"<my-cat>": ROWS}, "<my-cat>", {"te": ROWS}),
    ],
    ids=["sd-scripts", "one vector in half precision", "SDXL", "diffusers"],
)
def test_words_of_other_programs_are_read(tmp_path, tensors, name, vectors):
    save_file(tensors, tmp_path / "cat.safetensors")
    word = read_word(tmp_path / "cat.safetensors")
    assert word.name == name and word.vectors.keys() == vectors.keys()
    assert word.count == len(next(iter(vectors.values())))
    assert all(torch.equal(word.vectors[part], rows) for part, rows in vectors.items())
    assert inspect_file(tmp_path / "cat.safetensors").word == name


@pytest.mark.parametrize(
    "tensors",
    [
        {"emb_params": ROWS, "other": ROWS},
        {"clip_g": ROWS},
        {"clip_g": ROWS, "emb_params": ROWS},
        {"clip_g": ROWS, "clip_l": ROWS[:1]},
        {"emb_params": torch.tensor(1.0)},
    ],
)
def test_what_is_no_word_is_refused(tmp_path, tensors):
    save_file({key: rows.clone() for key, rows in tensors.items()}, tmp_path / "cat.safetensors")
    with pytest.raises(BadInput, match="cat.safetensors: is no embedding: it holds"):
        read_word(tmp_path / "cat.safetensors")


def test_a_word_comes_back_as_it_was_with_its_name_and_hashes(tmp_path):
    save_word(tmp_path / "cat.safetensors", "<Cat>", {"te": ROWS}, {"note": "kept"})
    word = read_word(tmp_path / "cat.safetensors")
    assert (word.name, word.metadata["note"]) == ("<Cat>", "kept") and torch.equal(word.vectors["te"], ROWS)
    hashes = inspect_file(tmp_path / "cat.safetensors").hashes
    assert word.metadata["modelspec.hash_sha256"] == f"0x{hashes['sshs_model_hash']}"


def test_numbers_that_are_not_finite_are_not_saved(tmp_path):
    save_word(tmp_path / "cat.safetensors", "cat", {"te": ROWS}, {})
    with pytest.raises(ScionError, match="the vectors of cat hold NaN or infinite numbers"):
        save_word(tmp_path / "cat.safetensors", "cat", {"te": ROWS / 0}, {})
    assert torch.equal(load_file(tmp_path / "cat.safetensors")["emb_params"], ROWS)


def test_a_word_given_as_a_lora_is_told_from_one(tmp_path):
    save_word(tmp_path / "cat.safetensors", "<cat>", {"te": ROWS}, {})
    with pytest.raises(BadInput, match="holds the new word <cat> and no LoRA; scion sample takes it by --words"):
        read_lora(tmp_path / "cat.safetensors", Target({}))
