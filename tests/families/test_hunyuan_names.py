"""HunyuanDiT's original names: every tensor is where diffusers' own conversion puts it, as a view, and comes back."""

import pytest
import torch
from diffusers import HunyuanDiT2DModel

from trainer_core.errors import BadInput
from trainer_core.families.hunyuan_checkpoint import transformer_of

RELEASED = {
    "num_attention_heads": 16,
    "attention_head_dim": 88,
    "in_channels": 4,
    "patch_size": 2,
    "sample_size": 128,
    "hidden_size": 1408,
    "num_layers": 4,
    "mlp_ratio": 4.3637,
    "use_style_cond_and_image_meta_size": False,
}


def by_diffusers(depth, style):
    """What diffusers' conversion script (scripts/convert_hunyuandit_to_diffusers.py) does: its name for a tensor -> the
    original name, which of how many equal parts is taken, and in what order their halves stand."""
    found = {"text_embedding_padding": ("text_embedding_padding", 0, 1)}

    def both(ours, theirs, part=0, parts=1):
        for kind in ("weight", "bias"):
            found[f"{ours}.{kind}"] = f"{theirs}.{kind}", part, parts

    for i in range(depth):
        for number, letter in enumerate("qkv"):
            both(f"blocks.{i}.attn1.to_{letter}", f"blocks.{i}.attn1.Wqkv", number, 3)
        for number, letter in enumerate("kv"):
            both(f"blocks.{i}.attn2.to_{letter}", f"blocks.{i}.attn2.kv_proj", number, 2)
        both(f"blocks.{i}.attn2.to_q", f"blocks.{i}.attn2.q_proj")
        for attention in ("attn1", "attn2"):
            both(f"blocks.{i}.{attention}.norm_q", f"blocks.{i}.{attention}.q_norm")
            both(f"blocks.{i}.{attention}.norm_k", f"blocks.{i}.{attention}.k_norm")
            both(f"blocks.{i}.{attention}.to_out.0", f"blocks.{i}.{attention}.out_proj")
        both(f"blocks.{i}.norm2", f"blocks.{i}.norm3")
        both(f"blocks.{i}.norm3", f"blocks.{i}.norm2")
        both(f"blocks.{i}.norm1.norm", f"blocks.{i}.norm1")
        both(f"blocks.{i}.norm1.linear", f"blocks.{i}.default_modulation.1")
        both(f"blocks.{i}.ff.net.0.proj", f"blocks.{i}.mlp.fc1")
        both(f"blocks.{i}.ff.net.2", f"blocks.{i}.mlp.fc2")
        if i > depth // 2:
            both(f"blocks.{i}.skip_norm", f"blocks.{i}.skip_norm")
            both(f"blocks.{i}.skip_linear", f"blocks.{i}.skip_linear")
    pooler = "time_extra_emb.pooler"
    found[f"{pooler}.positional_embedding"] = "pooler.positional_embedding", 0, 1
    for letter in "kqvc":
        both(f"{pooler}.{letter}_proj", f"pooler.{letter}_proj")
    for number in (1, 2):
        both(f"time_extra_emb.timestep_embedder.linear_{number}", f"t_embedder.mlp.{2 * number - 2}")
        both(f"time_extra_emb.extra_embedder.linear_{number}", f"extra_embedder.{2 * number - 2}")
        both(f"text_embedder.linear_{number}", f"mlp_t5.{2 * number - 2}")
    both("pos_embed.proj", "x_embedder.proj")
    both("proj_out", "final_layer.linear")
    if style:
        found["time_extra_emb.style_embedder.weight"] = "style_embedder.weight", 0, 1
    return found


@pytest.fixture(scope="module", params=[False, True], ids=["1.2", "1.1"])
def released(request, in_hunyuan_names):
    """The weights of a model as wide as the released ones, with four blocks, in original names. Memory that nobody
    writes to takes no place, so only the small tensors have numbers."""
    config = RELEASED | {"use_style_cond_and_image_meta_size": request.param}
    with torch.device("meta"):
        state = HunyuanDiT2DModel(**config).state_dict()
        shapes = {key: tensor.shape for key, tensor in in_hunyuan_names(state, config).items()}
    weights = {key: torch.empty(shape) for key, shape in shapes.items()}
    last = weights["final_layer.adaLN_modulation.1.bias"]
    last.copy_(torch.arange(float(len(last))))
    return config, state, weights


def test_every_tensor_is_where_diffusers_puts_it_and_a_view(released, in_hunyuan_names):
    config, state, weights = released
    read, ours = transformer_of(weights, "a file")
    assert {name: read[name] for name in config} == config
    assert {key: tensor.shape for key, tensor in ours.items()} == {key: tensor.shape for key, tensor in state.items()}
    swapped = {"norm_out.linear.weight", "norm_out.linear.bias"}
    expected = by_diffusers(4, config["use_style_cond_and_image_meta_size"])
    assert expected.keys() | swapped == ours.keys()
    for name, (theirs, part, parts) in expected.items():
        rows = weights[theirs].chunk(parts)[part]
        assert ours[name].data_ptr() == rows.data_ptr(), name
        assert ours[name].stride() == rows.stride(), name
    shift, scale = torch.arange(2.0 * 1408).chunk(2)
    assert torch.equal(ours["norm_out.linear.bias"], torch.cat([scale, shift]))
    back = in_hunyuan_names(ours, read)
    assert {key: tensor.shape for key, tensor in back.items()} == {k: tensor.shape for k, tensor in weights.items()}


def test_a_small_model_comes_back_from_its_original_names(in_hunyuan_names):
    torch.manual_seed(0)
    config = RELEASED | {"num_attention_heads": 2, "attention_head_dim": 8, "hidden_size": 16, "mlp_ratio": 4.0}
    config |= {"cross_attention_dim": 24, "cross_attention_dim_t5": 16, "text_len": 5, "text_len_t5": 7}
    state = HunyuanDiT2DModel(**config, pooled_projection_dim=12).state_dict()
    read, ours = transformer_of(in_hunyuan_names(state, config), "a file")
    assert {name: read[name] for name in config} == config
    assert ours.keys() == state.keys() and all(torch.equal(ours[key], state[key]) for key in state)


def test_what_is_missing_or_misshaped_is_named(released):
    _, _, weights = released
    with pytest.raises(BadInput, match="a file lacks 'mlp_t5.0.weight', so its shape cannot be read"):
        transformer_of({key: tensor for key, tensor in weights.items() if key != "mlp_t5.0.weight"}, "a file")
    wrong = weights | {"blocks.1.attn1.Wqkv.bias": torch.zeros(4223)}
    with pytest.raises(BadInput, match=r"a file: blocks.1.attn1.Wqkv.bias has 4223 rows instead of 4224"):
        transformer_of(wrong, "a file")
