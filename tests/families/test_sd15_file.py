"""Stable Diffusion 1 from one file in original names: the same model as its folder's; files that are refused."""

import datetime

import pytest
import torch
from safetensors.torch import save_file

from trainer_core.errors import BadInput
from trainer_core.families import registry
from trainer_core.families.clip_vocabulary.tokenizer import clip_tokenizer


@pytest.fixture(scope="module")
def original(clip_base, in_one_file):
    return in_one_file(clip_base)


@pytest.mark.parametrize("ending", [".safetensors", ".SafeTensors", ".ckpt", ".PT"])
def test_one_file_in_original_names_predicts_what_its_folder_predicts(clip_base, original, tmp_path, ending, predict):
    path = tmp_path / f"anything{ending}"
    if ending in (".ckpt", ".PT"):
        # torch before 1.6 wrote no archive but one pickle after another.
        torch.save({"state_dict": original, "global_step": 7}, path, _use_new_zipfile_serialization=ending == ".ckpt")
    else:
        save_file(original, path)
    folder, file = registry.load(str(clip_base)), registry.load(str(path))
    assert file.name == "anything"
    assert file.identity == folder.identity and file.encoder.identity == folder.encoder.identity
    torch.testing.assert_close(predict(file), predict(folder), rtol=0, atol=1e-5)
    pixels = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    latents = file.encoder.encode_pictures(pixels)
    torch.testing.assert_close(latents, folder.encoder.encode_pictures(pixels), rtol=0, atol=1e-5)
    torch.testing.assert_close(file.encoder.decode(latents), folder.encoder.decode(latents), rtol=0, atol=1e-5)
    noise, at = torch.randn(1, 4, 8, 8), torch.tensor([500])
    both = [model.process.add_noise(latents, noise, at) for model in (file, folder)]
    assert torch.equal(*both)
    assert file.process.prediction_type == "epsilon"


def test_text_weights_without_their_prefix_are_read_too(clip_base, original, tmp_path, predict):
    state = {key.replace(".transformer.text_model.", ".transformer."): value for key, value in original.items()}
    state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(state, tmp_path / "bare.safetensors")
    found, expected = registry.load(str(tmp_path / "bare.safetensors")), registry.load(str(clip_base))
    torch.testing.assert_close(predict(found), predict(expected), rtol=0, atol=1e-5)


def test_marker_keys_make_it_a_v_prediction_model_with_zero_terminal_snr(original, tmp_path):
    save_file({**original, "v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}, tmp_path / "v.safetensors")
    diffusion = registry.load(str(tmp_path / "v.safetensors")).process
    assert diffusion.prediction_type == "v_prediction"
    assert diffusion.snr(torch.tensor([999])).item() == 0
    save_file({**original, "v_pred": torch.tensor([])}, tmp_path / "v.safetensors")
    diffusion = registry.load(str(tmp_path / "v.safetensors")).process
    assert diffusion.prediction_type == "v_prediction"
    assert diffusion.snr(torch.tensor([999])).item() > 0.001


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("conditioner.embedders.0.model.text_projection", "Stable Diffusion XL refiner"),
        ("cond_stage_model.model.positional_embedding", "Stable Diffusion 2"),
    ],
)
def test_a_file_of_another_family_is_refused_by_its_name(tmp_path, key, name):
    path = tmp_path / "other.safetensors"
    save_file({key: torch.ones(2), "model.diffusion_model.input_blocks.0.0.weight": torch.ones(2)}, path)
    with pytest.raises(BadInput, match=f"is a {name} checkpoint"):
        registry.load(str(path))


def test_a_block_of_number_billions_is_one_too_many_and_not_billions(original, tmp_path):
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.4000000000.attn1.to_q.weight"
    save_file(original | {key: torch.ones(2)}, tmp_path / "hostile.safetensors")
    with pytest.raises(BadInput, match="does not fit its configuration: .* missing"):
        registry.load(str(tmp_path / "hostile.safetensors"))


def test_a_file_without_a_part_or_without_weights_says_what_is_missing(original, tmp_path):
    path = tmp_path / "part.safetensors"
    save_file({key: value for key, value in original.items() if not key.startswith("first_stage")}, path)
    with pytest.raises(BadInput, match=r"lacks the VAE \(first_stage_model.…\)"):
        registry.load(str(path))
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(BadInput, match="is of no family that is known here: 1 tensors, whose names begin with a"):
        registry.load(str(path))
    path.write_bytes(b"not a checkpoint at all")
    with pytest.raises(BadInput, match="cannot be read as weights .*is the download complete"):
        registry.load(str(path))


@pytest.mark.parametrize("lost", ["out.2.weight", "attn2.to_k.weight", "output_blocks.1.0.in_layers.2.weight"])
def test_a_file_with_holes_is_bad_input_and_no_bug(original, tmp_path, lost):
    path = tmp_path / "holes.safetensors"
    save_file({key: value for key, value in original.items() if not key.endswith(lost)}, path)
    with pytest.raises(BadInput, match=str(path)):
        registry.load(str(path))


def test_an_inpainting_model_is_refused(original, tmp_path):
    name = "model.diffusion_model.input_blocks.0.0.weight"
    save_file({**original, name: torch.zeros(32, 9, 3, 3)}, tmp_path / "inpainting.safetensors")
    with pytest.raises(BadInput, match="takes 9 channels instead of 4: it is made for inpainting"):
        registry.load(str(tmp_path / "inpainting.safetensors"))


def test_clips_own_tokenizer_is_rebuilt_as_it_was_released():
    tokens = clip_tokenizer()
    assert len(tokens) == 49408
    assert (tokens.bos_token_id, tokens.eos_token_id, tokens.pad_token_id) == (49406, 49407, 49407)
    # Ids as published with CLIP ("a photo of a cat").
    assert tokens("a photo of a cat", add_special_tokens=False).input_ids == [320, 1125, 539, 320, 2368]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_checkpoint_with_foreign_objects_says_which_and_what_to_do(tmp_path, zipped):
    path = tmp_path / "lightning.ckpt"
    callbacks = {"callbacks": datetime.timedelta(1), "state_dict": {"a": torch.ones(1)}}
    torch.save(callbacks, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(BadInput) as caught:
        registry.load(str(path))
    assert str(caught.value) == (
        f"base: {path} holds objects other than tensors (datetime.timedelta), which could run code, so it is not "
        "opened; convert it to .safetensors"
    )


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x02\x85\x85\x85", b"PK\x03\x04torn"])
def test_a_torn_ckpt_is_said_on_one_line_without_control_codes(tmp_path, content):
    path = tmp_path / "torn.ckpt"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="torn.ckpt cannot be read as weights .*is the download complete") as caught:
        registry.load(str(path))
    assert str(caught.value).isprintable()
