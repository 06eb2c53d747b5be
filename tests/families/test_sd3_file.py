"""Stable Diffusion 3 from one file in original names: the same model as its folder's; what such files lack."""

import pytest
import torch
from safetensors.torch import save_file

from trainer_core.errors import BadInput
from trainer_core.families import registry


@pytest.fixture(scope="module")
def original(sd3_clip_base, sd3_in_one_file):
    return sd3_in_one_file(sd3_clip_base)


@pytest.fixture(scope="module")
def folder(sd3_clip_base):
    return registry.load(str(sd3_clip_base))


def test_one_file_in_original_names_predicts_what_its_folder_predicts(folder, original, tmp_path, predict, caplog):
    save_file(original, tmp_path / "anything.safetensors")
    file = registry.load(str(tmp_path / "anything.safetensors"))
    assert file.family.name == "sd3" and file.resolution == 1024 and not caplog.records
    assert file.encoder.identity == folder.encoder.identity and file.identity == folder.identity
    torch.testing.assert_close(predict(file), predict(folder), rtol=0, atol=1e-5)
    pixels = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    latents = folder.encoder.encode_pictures(pixels)
    torch.testing.assert_close(file.encoder.encode_pictures(pixels), latents, rtol=0, atol=1e-5)


def test_a_half_precision_file_without_t5_has_zeros_in_its_place(folder, original, tmp_path, caplog):
    halved = {key: tensor.half() for key, tensor in original.items() if "t5xxl" not in key}
    save_file(halved, tmp_path / "sd3_medium_incl_clips.safetensors")
    file = registry.load(str(tmp_path / "sd3_medium_incl_clips.safetensors"))
    assert "brings no T5" in caplog.text
    (ours,), (whole,) = (model.encoder.encode_captions(["a small red ring"]) for model in (file, folder))
    assert ours["text"].shape == whole["text"].shape and not ours["text"][77:].any()
    torch.testing.assert_close(ours["text"][:77], whole["text"][:77], rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (("model.diffusion_model.",), r"lacks the VAE \(first_stage_model.…\), CLIP-L \(text_encoders.clip_l.transfor"),
        (("model.diffusion_model.", "first_stage_model.", "text_encoders.clip_l."), r"lacks CLIP-G \(text_encoders.cl"),
    ],
)
def test_what_a_file_lacks_is_named_with_the_way_out(original, tmp_path, kept, said):
    path = tmp_path / "sd3.5_medium.safetensors"
    save_file({key: value for key, value in original.items() if key.startswith(kept)}, path)
    with pytest.raises(BadInput, match=said + ".*sd3_medium_incl_clips.*in ComfyUI the parts may come from loaders of"):
        registry.load(str(path))


def test_a_bare_transformer_is_told_from_other_families(original, tmp_path):
    prefix = "model.diffusion_model."
    bare = {key.removeprefix(prefix): value for key, value in original.items() if key.startswith(prefix)}
    save_file(bare, tmp_path / "bare.safetensors")
    with pytest.raises(BadInput, match="bare.safetensors lacks the VAE"):
        registry.load(str(tmp_path / "bare.safetensors"))
