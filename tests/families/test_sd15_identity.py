"""Identities of a base and its encoder: another one for all that makes another model, the same for all else."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer_core.families import registry


def identities(folder, dtype=torch.float32):
    model = registry.load(str(folder), dtype)
    return model.identity, model.encoder.identity


def test_a_copy_has_the_same_identity_in_every_precision(copied, model):
    expected = model.identity, model.encoder.identity
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert identities(copied, dtype) == expected


def test_other_unet_weights_are_another_model_with_the_same_encoder(copied, model):
    path = copied / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["conv_out.bias"] += 1e-3
    save_file(state, path)
    changed = registry.load(str(copied))
    assert changed.identity != model.identity
    assert changed.encoder.identity == model.encoder.identity


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("unet/config.json", {"norm_num_groups": 16}),
        ("unet/config.json", {"sample_size": 16}),
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}),
        ("scheduler/scheduler_config.json", {"beta_end": 0.02}),
        ("scheduler/scheduler_config.json", {"beta_schedule": "linear"}),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}),
    ],
    ids=str,
)
def test_another_unet_configuration_or_noise_schedule_is_another_model_with_the_same_encoder(
    copied, model, name, change, edit_json
):
    edit_json(copied / name, **change)
    changed = registry.load(str(copied))
    assert changed.identity != model.identity
    assert changed.encoder.identity == model.encoder.identity


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("vae/config.json", {"scaling_factor": 0.2}),
        ("vae/config.json", {"shift_factor": 0.1}),
        ("vae/config.json", {"norm_num_groups": 16}),
        ("text_encoder/config.json", {"hidden_act": "gelu"}),
        ("text_encoder/config.json", {"num_attention_heads": 2}),
        ("tokenizer/tokenizer_config.json", {"pad_token": "!"}),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 40}),
    ],
    ids=str,
)
def test_an_encoder_that_makes_something_else_has_another_identity_and_so_has_its_model(
    copied, model, name, change, edit_json
):
    edit_json(copied / name, **change)
    changed = registry.load(str(copied))
    assert changed.encoder.identity != model.encoder.identity
    assert changed.identity != model.identity


def test_another_vocabulary_is_another_encoder(copied, model):
    path = copied / "tokenizer" / "tokenizer.json"
    words = json.loads(path.read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(words))
    assert identities(copied)[1] != model.encoder.identity


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("unet/config.json", {"_diffusers_version": "0.1", "_name_or_path": "x", "center_input_sample": False}),
        ("scheduler/scheduler_config.json", {"_class_name": "PNDMScheduler", "skip_prk_steps": True}),
        ("vae/config.json", {"sample_size": 512, "shift_factor": 0.0}),
        ("text_encoder/config.json", {"torch_dtype": "float16", "eos_token_id": 2, "projection_dim": 9}),
    ],
    ids=str,
)
def test_what_decides_nothing_changes_no_identity(copied, model, name, change, edit_json):
    edit_json(copied / name, **change)
    assert identities(copied) == (model.identity, model.encoder.identity)
