"""Stable Diffusion 3's original weights as diffusers', at the released widths: equal numbers, over the same storage."""

import pytest
import torch
from diffusers import SD3Transformer2DModel
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

from trainer_core.errors import BadInput
from trainer_core.families.sd3_checkpoint import transformer_of
from trainer_core.lora_file.fused import stacked
from trainer_core.lora_file.sd3_names import stacks

RELEASED = {
    "3 medium": {"width": 1536, "norms": False, "dual": (), "positions": 192},
    "3.5 medium": {"width": 1536, "norms": True, "dual": (0,), "positions": 384},
    "3.5 large": {"width": 2432, "norms": True, "dual": (), "positions": 192},
}


def shapes_of_original(width, norms, dual, positions, depth=2):
    """As the released files have them, but for the number of blocks."""
    linear = {
        "x_embedder.proj": (width, 16, 2, 2),
        "context_embedder": (width, 4096),
        "t_embedder.mlp.0": (width, 256),
        "t_embedder.mlp.2": (width, width),
        "y_embedder.mlp.0": (width, 2048),
        "y_embedder.mlp.2": (width, width),
        "final_layer.linear": (64, width),
        "final_layer.adaLN_modulation.1": (2 * width, width),
    }
    shapes = {"pos_embed": (1, positions**2, width)}
    for number in range(depth):
        for stream in ("x_block", "context_block"):
            block, last = f"joint_blocks.{number}.{stream}", stream == "context_block" and number == depth - 1
            linear[f"{block}.attn.qkv"] = (3 * width, width)
            modulated = 9 if stream == "x_block" and number in dual else 2 if last else 6
            linear[f"{block}.adaLN_modulation.1"] = (modulated * width, width)
            if not last:
                linear[f"{block}.attn.proj"] = (width, width)
                linear |= {f"{block}.mlp.fc1": (4 * width, width), f"{block}.mlp.fc2": (width, 4 * width)}
            if norms:
                shapes |= {f"{block}.attn.ln_{letter}.weight": (64,) for letter in "qk"}
        if number in dual:
            block = f"joint_blocks.{number}.x_block.attn2"
            linear |= {f"{block}.qkv": (3 * width, width), f"{block}.proj": (width, width)}
            shapes |= {f"{block}.ln_{letter}.weight": (64,) for letter in "qk"}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


@pytest.fixture(scope="module", params=RELEASED)
def original(request):
    """Weights of a released width: renaming does no arithmetic, so eight bits do."""
    numbers = torch.Generator().manual_seed(0)
    settings = RELEASED[request.param]
    shapes = shapes_of_original(**settings)
    positions = torch.zeros(1, 1, 1, dtype=torch.int8).expand(shapes.pop("pos_embed"))
    drawn = {key: torch.randint(-128, 128, shape, dtype=torch.int8, generator=numbers) for key, shape in shapes.items()}
    return settings, drawn | {"pos_embed": positions}


def test_every_tensor_is_what_diffusers_converter_makes_of_it_and_fits_its_model(original):
    settings, weights = original
    config, found = transformer_of(weights, "x")
    expected = convert_sd3_transformer_checkpoint_to_diffusers(dict(weights))
    assert found.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []
    assert (
        config["num_attention_heads"] == settings["width"] // 64
        and config["pos_embed_max_size"] == settings["positions"]
    )
    assert config["qk_norm"] == ("rms_norm" if settings["norms"] else None)
    with torch.device("meta"):
        module = SD3Transformer2DModel.from_config(config | {"pos_embed_max_size": 8, "sample_size": 16})
    wanted = {key: tensor.shape for key, tensor in module.state_dict().items() if key != "pos_embed.pos_embed"}
    assert wanted == {key: tensor.shape for key, tensor in found.items() if key != "pos_embed.pos_embed"}


def test_all_but_the_last_modulations_share_their_storage(original):
    _, weights = original
    there = {tensor.untyped_storage().data_ptr() for tensor in weights.values()}
    _, found = transformer_of(weights, "x")
    copied = {key for key, tensor in found.items() if tensor.untyped_storage().data_ptr() not in there}
    last = ("norm_out.linear", "transformer_blocks.1.norm1_context.linear")
    assert copied == {f"{path}.{kind}" for path in last for kind in ("weight", "bias")}


def test_stacked_again_they_are_the_original(original):
    _, weights = original
    config, found = transformer_of(weights, "x")
    for path, stack in stacks(config).items():
        for kind in ("weight", "bias"):
            own = {rows.path: found[f"{rows.path}.{kind}"] for rows in stack}
            assert torch.equal(stacked(stack, own), weights[f"{path}.{kind}"]), path


def test_weights_that_tell_no_shape_are_refused(original):
    _, weights = original
    less = {key: tensor for key, tensor in weights.items() if key != "context_embedder.weight"}
    with pytest.raises(BadInput, match="base: x lacks 'context_embedder.weight', so its shape cannot be read"):
        transformer_of(less, "x")
    cut = weights | {"joint_blocks.1.x_block.attn.qkv.bias": torch.zeros(12)}
    with pytest.raises(BadInput, match="joint_blocks.1.x_block.attn.qkv.bias has 12 rows instead of"):
        transformer_of(cut, "x")
