"""A file, ours or anybody's, is described with numbers that are in it."""

import json

import pytest
import torch

from trainer_core.errors import BadInput
from trainer_core.lora_file.dialects import DIALECTS
from trainer_core.lora_file.inspect import inspect_file
from trainer_core.lora_file.safe_io import write_tensors
from trainer_core.lora_file.save import save_lora


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_saved_lora_is_described(target, random_lora, tmp_path, dialect):
    lora = random_lora(target)
    save_lora(tmp_path / "lora.safetensors", lora, dialect, "float16", {"ss_seed": "7"}, target)
    found = inspect_file(tmp_path / "lora.safetensors", target)
    assert found.kind == "LoRA" and found.dialects == [dialect]
    assert found.components == {name: len(pairs) for name, pairs in lora.items()}
    ranks = [pair.rank for pairs in lora.values() for pair in pairs.values()]
    assert found.ranks == {2: ranks.count(2), 3: ranks.count(3)}
    assert set(found.alphas) == ({1.0} if DIALECTS[dialect].keeps_alpha else set())
    assert set(found.dtypes) == {"float16"}
    assert found.hashes["AutoV2"] == found.hashes["SHA-256"][:10]
    assert any(report.complete for report in found.readers)
    text = "\n".join(found.lines())
    assert "seed: 7" in text and "modules load in ComfyUI" in text and "rank: 2 (" in text


def test_the_json_form_is_json_with_metadata_unpacked(target, random_lora, tmp_path):
    save_lora(tmp_path / "lora", random_lora(target), "kohya", "float32", {"scion.recipe": '{"steps": 5}'}, target)
    found = json.loads(json.dumps(inspect_file(tmp_path / "lora", target).as_json()))
    assert found["metadata"]["scion.recipe"] == {"steps": 5}
    assert found["readers"][0]["reader"] == "ComfyUI" and found["alphas"] == {"1": sum(found["ranks"].values())}


def test_a_foreign_sd15_file_is_recognised_and_tried_on_the_standard_model(tmp_path):
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {f"{name}.lora_down.weight": torch.ones(4, 768), f"{name}.lora_up.weight": torch.ones(320, 4)}
    write_tensors(tmp_path / "foreign", {**tensors, f"{name}.alpha": torch.tensor(2.0)})
    found = inspect_file(tmp_path / "foreign")
    assert found.family == "Stable Diffusion 1.x" and found.ranks == {4: 1} and found.alphas == {2.0: 1}
    assert [(report.reader, report.loaded) for report in found.readers] == [
        ("ComfyUI", 1),
        ("diffusers", 1),
        ("sd-scripts", 1),
    ]


@pytest.mark.parametrize(("width", "family"), [(3072, "Flux"), (1536, "Stable Diffusion 3")])
def test_blocks_of_two_streams_are_told_by_their_width(tmp_path, width, family):
    name = "transformer.transformer_blocks.0.attn.to_q"
    tensors = {f"{name}.lora_A.weight": torch.ones(4, width), f"{name}.lora_B.weight": torch.ones(width, 4)}
    write_tensors(tmp_path / "blocks", tensors)
    found = inspect_file(tmp_path / "blocks")
    assert found.family == family
    assert [(report.reader, report.loaded) for report in found.readers] == [("ComfyUI", 1), ("diffusers", 1)]


@pytest.mark.parametrize(
    ("version", "family", "readers"),
    [
        ("kolors", "Kolors", [("diffusers", 1)]),
        ("sdxl_base_v1-0", "Stable Diffusion XL", [("ComfyUI", 1), ("diffusers", 1), ("sd-scripts", 0)]),
        ("", "Stable Diffusion XL", [("ComfyUI", 1), ("diffusers", 1), ("sd-scripts", 0)]),
    ],
)
def test_kolors_is_told_from_sdxl_by_what_the_file_says(tmp_path, version, family, readers):
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {f"{name}.lora_down.weight": torch.ones(4, 2048), f"{name}.lora_up.weight": torch.ones(640, 4)}
    write_tensors(tmp_path / "lora", tensors, {"ss_base_model_version": version})
    found = inspect_file(tmp_path / "lora")
    assert found.family == family
    assert [(report.reader, report.loaded) for report in found.readers] == readers


@pytest.mark.parametrize(
    ("ending", "kind"),
    [("a1.weight", "GLoRA"), ("oft_R.weight", "OFT as peft stores it"), ("diff", "full weight differences")],
)
def test_other_methods_are_named(tmp_path, ending, kind):
    write_tensors(tmp_path / "other", {f"lora_unet_conv_in.{ending}": torch.ones(2, 2)})
    found = inspect_file(tmp_path / "other")
    assert found.kind == kind and found.readers == [] and kind in found.lines()[0]


def test_a_whole_model_is_no_lora_and_nan_is_told(tmp_path):
    write_tensors(tmp_path / "model", {"model.diffusion_model.out.2.weight": torch.ones(4, 4, 3, 3)})
    assert inspect_file(tmp_path / "model").kind.startswith("no LoRA")
    write_tensors(tmp_path / "lora", {"unet.x.lora_A.weight": torch.tensor([[float("nan")]])})
    assert inspect_file(tmp_path / "lora").broken == ["unet.x.lora_A.weight"]
    (tmp_path / "text").write_text("not a model at all")
    with pytest.raises(BadInput, match="looks like text"):
        inspect_file(tmp_path / "text")
