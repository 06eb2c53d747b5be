"""LoRA files in every dialect are read to the same additions to the weights; what does not belong is refused."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model

from trainer_core.errors import BadInput
from trainer_core.lora_file.alpha import effective_alpha
from trainer_core.lora_file.dialects import DIALECTS, lora_from_tensors, lora_to_tensors, read_lora
from trainer_core.lora_file.lora import LoraPair, Target
from trainer_core.lora_file.safe_io import write_tensors

QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def assert_same_deltas(lora, other):
    assert {c: set(pairs) for c, pairs in lora.items()} == {c: set(pairs) for c, pairs in other.items()}
    for component, pairs in lora.items():
        for path, pair in pairs.items():
            torch.testing.assert_close(other[component][path].delta(), pair.delta(), rtol=1e-6, atol=1e-7)


def refused(tensors, target, **others) -> str:
    with pytest.raises(BadInput) as caught:
        lora_from_tensors(tensors, target, where="my.safetensors", **others)
    assert "my.safetensors" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_lora_on_every_module_survives_a_dialect_with_its_scale(target, random_lora, dialect, tmp_path):
    lora = random_lora(target)
    write_tensors(tmp_path / "lora.safetensors", lora_to_tensors(lora, dialect, target))
    read, _ = read_lora(tmp_path / "lora.safetensors", target)
    assert_same_deltas(lora, read)


def test_one_alpha_for_all_modules_is_stored_as_it_is(target, random_lora):
    lora = random_lora(target)
    for pairs in lora.values():
        pairs |= {path: LoraPair(pair.down, pair.up, 1.25) for path, pair in pairs.items()}
    for dialect in ("kohya", "kohya-ldm", "comfyui"):
        tensors = lora_to_tensors(lora, dialect, target)
        assert {t.item() for key, t in tensors.items() if key.endswith(".alpha")} == {1.25}
        read = lora_from_tensors(tensors, target)["unet"][QUERY]
        assert torch.equal(read.up, lora["unet"][QUERY].up) and read.scale == 1.25 / read.rank


def test_each_dialect_names_modules_as_its_users_do(target, random_lora):
    lora = random_lora(target, lambda _, path: path in (QUERY, "down_blocks.0.downsamplers.0.conv"))
    names = {
        dialect: {key.split(".lora_")[0] for key in lora_to_tensors(lora, dialect, target)} for dialect in DIALECTS
    }
    under = QUERY.replace(".", "_")
    assert f"lora_unet_{under}" in names["kohya"]
    assert "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q" in names["kohya-ldm"]
    assert "diffusion_model.input_blocks.2.0.op" in names["comfyui"]
    assert names["diffusers"] == {f"unet.{QUERY}", "unet.down_blocks.0.downsamplers.0.conv"}
    encoder = random_lora(target, lambda component, _: component == "text_encoder")
    assert "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha" in lora_to_tensors(encoder, "kohya", target)


def test_convolutions_are_stored_as_kernel_and_one_by_one(target, random_lora):
    lora = random_lora(target, lambda _, path: path.endswith(("conv1", "conv_shortcut", "proj_in")))
    tensors = lora_to_tensors(lora, "kohya", target)
    assert tensors["lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight"].shape[1:] == (32, 3, 3)
    assert tensors["lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight"].shape[2:] == (1, 1)
    flat = {key: t.flatten(1) if t.ndim == 4 and t.shape[2] == 1 else t for key, t in tensors.items()}
    assert_same_deltas(lora, lora_from_tensors(flat, target))


def test_rank_stabilised_scale_is_written_as_a_plain_alpha():
    pair = LoraPair(torch.ones(16, 2), torch.ones(3, 16), effective_alpha(16, 8.0, rslora=True))
    assert pair.scale == 8.0 / 16**0.5
    assert effective_alpha(16, 8.0, rslora=False) == 8.0


def test_without_alpha_the_scale_is_one(target, random_lora):
    tensors = lora_to_tensors(random_lora(target), "kohya", target)
    bare = {key: tensor for key, tensor in tensors.items() if not key.endswith(".alpha")}
    assert {pair.scale for pair in lora_from_tensors(bare, target)["unet"].values()} == {1.0}


@pytest.mark.parametrize("rslora", [False, True])
def test_pefts_own_folder_is_read_with_its_alpha(make_unet, target, tmp_path, rslora):
    unet = make_unet()
    before = {path: module.weight.clone() for path, module in unet.named_modules() if path.endswith(("to_q", "conv1"))}
    settings = LoraConfig(
        r=4,
        lora_alpha=2,
        use_rslora=rslora,
        target_modules=["to_q", "conv1"],
        init_lora_weights=False,
        alpha_pattern={QUERY: 7},
    )
    model = get_peft_model(unet, settings)
    model.save_pretrained(tmp_path)
    lora, _ = read_lora(tmp_path / "adapter_model.safetensors", target)
    merged = model.merge_and_unload()
    assert lora["unet"].keys() == before.keys()
    for path, weight in before.items():
        now = merged.get_submodule(path).weight
        torch.testing.assert_close(weight + lora["unet"][path].delta(), now, rtol=1e-5, atol=1e-6)


def test_the_alpha_in_diffusers_metadata_is_obeyed(target, random_lora):
    lora = random_lora(target, lambda component, path: component == "unet" and path.endswith("to_q"))
    tensors = lora_to_tensors(lora, "diffusers", target)
    settings = {"unet.r": 2, "unet.lora_alpha": 1, "unet.alpha_pattern": {"mid_block.attentions.0.proj_in": 9}}
    metadata = {"lora_adapter_metadata": json.dumps(settings)}
    read = lora_from_tensors(tensors, target, metadata)
    assert {pair.alpha for pair in read["unet"].values()} == {1.0}
    assert "regular expression" in refused(
        tensors, target, metadata={"lora_adapter_metadata": json.dumps({"unet.alpha_pattern": {".*_q": 3}})}
    )
    assert "damaged" in refused(tensors, target, metadata={"lora_adapter_metadata": "[oops"})


def test_attention_processor_files_of_early_diffusers_are_read(target, random_lora):
    lora = random_lora(target, lambda component, path: component == "unet" and ".attn1.to_" in path)
    old = {}
    for path, pair in lora["unet"].items():
        name = "unet." + path.replace(".to_", ".processor.to_").replace("to_out.0", "to_out") + "_lora"
        old |= {f"{name}.down.weight": pair.down, f"{name}.up.weight": pair.up * pair.scale}
    assert_same_deltas(lora, lora_from_tensors(old, target))


def test_swapped_halves_are_refused(target, random_lora):
    tensors = lora_to_tensors(random_lora(target), "kohya", target)
    swap = {"lora_down": "lora_up", "lora_up": "lora_down"}
    swapped = {}
    for key, tensor in tensors.items():
        part = key.split(".")[1]
        swapped[key.replace(part, swap.get(part, part))] = tensor
    assert "do not share a rank" in refused(swapped, target)


def test_every_problem_of_a_file_is_told_at_once(target, random_lora):
    tensors = lora_to_tensors(random_lora(target), "diffusers", target)
    names = list(tensors)
    del tensors["unet.conv_in.lora_A.weight"]
    tensors["unet.conv_out.lora_A.weight"] = torch.ones(5, 32, 3, 3)
    tensors["unet.nowhere.lora_A.weight"] = torch.ones(2, 2)
    tensors[f"unet.{QUERY}.lora_B.weight"][0, 0] = float("nan")
    text = refused(tensors, target)
    assert f"only {len(names) - 1} of its {len(names)} keys belong" in text and "unet.nowhere" in text
    assert "unet.conv_in: has only up" in text
    assert "unet.conv_out: A of shape [5, 32, 3, 3]" in text
    assert f"unet.{QUERY}: holds NaN" in text


def test_a_lora_of_another_family_is_refused_with_its_name(target, make_unet, random_lora):
    flux = {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": torch.ones(2, 8)}
    assert "none of its 1 keys belong" in refused(flux, target) and "LoRA for Flux" in refused(flux, target)
    wide = Target.of(unet=make_unet(cross_attention_dim=768))
    tensors = lora_to_tensors(random_lora(wide, lambda _, path: path.endswith("attn2.to_k")), "kohya", wide)
    assert "do not fit the weight of shape [32, 24]" in refused(tensors, target)
    assert "holds no LoRA weights" in refused({}, target)


@pytest.mark.parametrize(
    ("ending", "method"),
    [
        ("a1.weight", "GLoRA"),
        ("lora_magnitude_vector", "DoRA as peft stores it"),
        ("rescale", "OFT that scales"),
        ("lora_mid.weight", "Tucker-decomposed LoRA"),
        ("diff", "full weight"),
    ],
)
def test_other_methods_are_named_instead_of_misread(target, random_lora, ending, method):
    tensors = lora_to_tensors(random_lora(target), "kohya", target)
    tensors[f"lora_unet_conv_in.{ending}"] = torch.ones(2, 2)
    assert method in refused(tensors, target)


def test_a_dialect_without_a_name_for_a_module_says_so(target):
    lora = {"transformer": {"x": LoraPair(torch.ones(1, 2), torch.ones(2, 1), 1.0)}}
    with pytest.raises(BadInput, match="has no name for 1 of the trained modules"):
        lora_to_tensors(lora, "kohya", Target({"transformer": {"x": (2, 2)}}))
    with pytest.raises(BadInput, match="'lycoris' is not one of kohya"):
        lora_to_tensors(lora, "lycoris", target)
