"""Stable Diffusion XL from one file in original names: the same model as its folder's; what single files are told."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from trainer_core.errors import BadInput
from trainer_core.families import registry, sd_checkpoint
from trainer_core.lora_file.known_targets import standard_target
from trainer_core.lora_file.unet_names import ldm_names


@pytest.fixture(scope="module")
def original(sdxl_clip_base, in_one_file):
    return in_one_file(sdxl_clip_base)


@pytest.fixture(scope="module")
def folder(sdxl_clip_base):
    return registry.load(str(sdxl_clip_base))


def test_one_file_in_original_names_predicts_what_its_folder_predicts(folder, original, tmp_path, predict):
    save_file(original, tmp_path / "anything.safetensors")
    file = registry.load(str(tmp_path / "anything.safetensors"))
    assert file.family.name == "sdxl"
    assert file.identity == folder.identity and file.encoder.identity == folder.encoder.identity
    torch.testing.assert_close(predict(file), predict(folder), rtol=0, atol=1e-5)
    pixels = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    latents = folder.encoder.encode_pictures(pixels)
    torch.testing.assert_close(file.encoder.encode_pictures(pixels), latents, rtol=0, atol=1e-5)


def test_a_half_precision_ckpt_with_the_marks_of_v_prediction_is_read(folder, original, tmp_path, predict):
    halved = {key: tensor.half() for key, tensor in original.items()}
    torch.save({"state_dict": {**halved, "v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}}, tmp_path / "v.ckpt")
    file = registry.load(str(tmp_path / "v.ckpt"))
    assert file.process.prediction_type == "v_prediction" and file.process.snr(torch.tensor([999])).item() == 0
    torch.testing.assert_close(predict(file), predict(folder), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("first_stage_model.", r"lacks the VAE \(first_stage_model.…\); a full Stable Diffusion XL checkpoint"),
        ("conditioner.embedders.0.", r"lacks text encoder 1 \(conditioner.embedders.0.transformer.…\)"),
        ("conditioner.embedders.1.model.ln_final.bias", r"the text_encoder_2 of .*1 missing \(text_model.final_l"),
        ("model.diffusion_model.label_emb.0.2.weight", "lacks 'label_emb.0.2.weight'"),
        ("model.diffusion_model.label_emb.", "is told other things of a picture than Stable Diffusion XL's"),
    ],
)
def test_what_a_file_lacks_is_named(original, tmp_path, lost, said):
    path = tmp_path / "part.safetensors"
    save_file({key: value for key, value in original.items() if not key.startswith(lost)}, path)
    with pytest.raises(BadInput, match=said):
        registry.load(str(path))


def file_of(path, **shapes):
    save_file({key.replace("__", "."): torch.ones(shape) for key, shape in shapes.items()}, path)
    return str(path)


ATTENTION = "model__diffusion_model__input_blocks__4__1__transformer_blocks__0__attn2__to_k__weight"


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({ATTENTION: (2, 2048)}, "lacks the VAE .*, text encoder 1 .*; a full Stable Diffusion XL checkpoint"),
        ({ATTENTION: (2, 768)}, "lacks the VAE .*, the text encoder .*; a full Stable Diffusion 1 checkpoint"),
        ({ATTENTION: (2, 1280)}, "is a Stable Diffusion XL refiner checkpoint; of single files this version trains"),
        ({ATTENTION: (2, 1024)}, "is a Stable Diffusion 2 checkpoint"),
        ({ATTENTION: (2, 640)}, "is of no family that is known here: 1 tensors, whose names begin with model$"),
        ({"lora_unet_x.lora_down.weight": (2, 2)}, "it is a LoRA; give the checkpoint that it was made for"),
        (
            {"cond_stage_model__transformer__a": (1,), "conditioner__embedders__1__a": (1,)},
            "has weights of Stable Diffusion 1 and of Stable Diffusion XL in it, so it cannot be told what it is",
        ),
    ],
    ids=["XL", "1", "refiner", "2", "unknown", "LoRA", "ambiguous"],
)
def test_a_file_is_told_by_its_keys_and_shapes(tmp_path, shapes, said):
    with pytest.raises(BadInput, match=said):
        registry.load(file_of(tmp_path / "some.safetensors", **shapes))


def test_clips_own_tokenizers_pad_as_they_were_released(folder):
    first, second = (folder.encoder.texts[name].windows("a cat")[0] for name in ("te1", "te2"))
    assert first[:4] == second[:4] == [49406, 320, 2368, 49407]
    assert set(first[4:]) == {49407} and set(second[4:]) == {0}


def test_the_released_models_shape_is_read_off_its_weights():
    target = standard_target("Stable Diffusion XL")
    with torch.device("meta"):
        released = UNet2DConditionModel(**target.unet_config)
    weights = released.state_dict()
    names = ldm_names(target.unet_config, {key.rpartition(".")[0] for key in weights})
    original = {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in weights.items()}
    config, renamed = sd_checkpoint.unet_of(original, sd_checkpoint.STABLE_DIFFUSION_XL, "the released one")
    assert {key: value.shape for key, value in renamed.items()} == {key: value.shape for key, value in weights.items()}
    read = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    same = ("down_block_types", "transformer_layers_per_block", "attention_head_dim", "use_linear_projection")
    assert {key: read[key] for key in same} == {key: target.unet_config[key] for key in same}
    assert read["projection_class_embeddings_input_dim"] == 2816 and read["sample_size"] == 128
