"""Flux's original names: every tensor is diffusers' own conversion of it, over the storage that it had."""

import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

from trainer_core.errors import BadInput
from trainer_core.families.flux_checkpoint import transformer_of


@pytest.fixture(scope="module")
def in_original_names(flux_models):
    return flux_models.original


@pytest.fixture(scope="module")
def released():
    """Flux dev as it was released, but for the number of its blocks and the width of its texts; small integers."""
    with torch.device("meta"):
        shapes = FluxTransformer2DModel(num_layers=1, num_single_layers=1, joint_attention_dim=64, guidance_embeds=True)
    filled = {}
    for number, (key, value) in enumerate(shapes.state_dict().items()):
        # Each row differs from every other, in one byte a number.
        rows = (torch.arange(value.shape[0]) + 7 * number).remainder(251).to(torch.uint8)
        filled[key] = rows.reshape(-1, *[1] * (value.ndim - 1)).expand(value.shape).contiguous()
    return filled, shapes.config


def test_every_tensor_is_what_diffusers_converter_makes_of_it(in_original_names, released):
    _, config = released
    original = in_original_names(*released)
    theirs = convert_flux_transformer_checkpoint_to_diffusers(dict(original))
    found, ours = transformer_of(original, "the released one")
    assert ours.keys() == theirs.keys() == released[0].keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert all(torch.equal(ours[key], released[0][key]) for key in theirs)
    assert {key: config[key] for key in found} == found


def test_fused_weights_are_views_and_only_the_last_modulation_is_copied(in_original_names, released):
    original = in_original_names(*released)
    kept = {tensor.untyped_storage().data_ptr() for tensor in original.values()}
    copied = {
        key
        for key, tensor in transformer_of(original, "it")[1].items()
        if tensor.untyped_storage().data_ptr() not in kept
    }
    assert copied == {"norm_out.linear.weight", "norm_out.linear.bias"}


def test_norms_may_be_called_as_the_host_calls_them(in_original_names, released):
    of_host = in_original_names(*released, norm="weight")
    assert "double_blocks.0.img_attn.norm.query_norm.weight" in of_host
    assert transformer_of(of_host, "it")[1].keys() == released[0].keys()


def test_without_guidance_it_is_read_as_schnell(in_original_names, released):
    state = {key: value for key, value in released[0].items() if "guidance" not in key}
    assert transformer_of(in_original_names(state, released[1]), "it")[0]["guidance_embeds"] is False


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"img_in.weight": None}, "the file lacks 'img_in.weight', so its shape cannot be read"),
        ({"double_blocks.0.img_attn.qkv.scale_weight": torch.ones(1)}, r"is quantised \(double_blocks.0.*; take the"),
        ({"double_blocks.0.img_attn.norm.query_norm.scale": torch.ones(64)}, "heads of width 64 instead of 128"),
        ({"distilled_guidance_layer.norms.0.scale": torch.ones(1)}, "the file is Chroma's; this version trains FLUX.1"),
        ({"single_blocks.0.linear1.weight": torch.ones(7, 2)}, "single_blocks.0.linear1.weight has 7 rows instead of"),
    ],
)
def test_what_cannot_be_read_is_named(in_original_names, released, change, said):
    original = {**in_original_names(*released), **change}
    with pytest.raises(BadInput, match=said):
        transformer_of({key: value for key, value in original.items() if value is not None}, "the file")
