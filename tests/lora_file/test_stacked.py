"""Files in original names, where a weight stacks several modules: written exactly, and read back as they were."""

import re

import pytest
import torch
from diffusers import HunyuanDiT2DModel, SD3Transformer2DModel

from trainer_core.errors import BadInput
from trainer_core.lora_file.dialects import OF_ORIGINALS, lora_from_tensors, lora_to_tensors, module_keys
from trainer_core.lora_file.foreign import guess_family
from trainer_core.lora_file.known_targets import standard_target
from trainer_core.lora_file.lora import LoraPair, Target
from trainer_core.lora_file.readers import reader_reports


def hunyuan():
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "hidden_size": 16, "num_layers": 4}
    text = {"cross_attention_dim": 12, "cross_attention_dim_t5": 16, "text_len": 3, "text_len_t5": 4}
    return HunyuanDiT2DModel(in_channels=4, patch_size=2, pooled_projection_dim=8, **sizes, **text)


def sd3():
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "caption_projection_dim": 16}
    return SD3Transformer2DModel(sample_size=8, joint_attention_dim=12, pooled_projection_dim=8, **sizes)


@pytest.fixture(scope="module", params=[hunyuan, sd3])
def target(request):
    with torch.device("meta"):
        return Target.of(transformer=request.param())


QKV = (".to_q", ".to_k", ".to_v")
WRITTEN = [name for name in OF_ORIGINALS if name != "peft-original"]


@pytest.mark.parametrize("wanted", [QKV, (".to_v",), ("",)], ids=["q, k and v", "v alone", "all"])
@pytest.mark.parametrize("dialect", WRITTEN)
def test_what_is_written_comes_back_and_comfyui_loads_it(target, random_lora, dialect, wanted):
    lora = random_lora(target, lambda component, path: path.endswith(wanted))
    tensors = lora_to_tensors(lora, dialect, target)
    assert not [key for key in tensors if "to_q" in key]
    (report,) = [report for report in reader_reports(tensors, target) if report.reader == "ComfyUI"]
    assert report.complete
    read = lora_from_tensors(tensors, target)["transformer"]
    assert read.keys() == lora["transformer"].keys()
    for path, pair in lora["transformer"].items():
        assert read[path].rank == pair.rank
        torch.testing.assert_close(read[path].delta(), pair.delta(), rtol=0, atol=1e-6)


def test_at_the_released_size_every_number_comes_back(random_lora):
    target = standard_target("HunyuanDiT")
    lora = random_lora(target, lambda component, path: re.search(r"attn\d\.(to_q|to_k|to_v|to_out\.0)$", path))
    pairs = {path: LoraPair(pair.down[:2], pair.up[:, :2], 3.0) for path, pair in lora["transformer"].items()}
    tensors = lora_to_tensors({"transformer": pairs}, "kohya-ldm", target)
    assert len(pairs) == 320 and reader_reports(tensors, target)[0].loaded == 200
    read = lora_from_tensors(tensors, target)["transformer"]
    assert all(torch.equal(read[path].down, pair.down) for path, pair in pairs.items())
    assert all(torch.equal(read[path].up, pair.up) for path, pair in pairs.items())


def test_a_module_that_stands_in_a_file_twice_is_named(target, random_lora):
    lora = random_lora(target, lambda component, path: path.endswith((".to_q", ".to_k")))
    both = lora_to_tensors(lora, "comfyui", target)
    path = next(iter(lora["transformer"]))
    both[f"transformer.{path}.lora_A.weight"] = lora["transformer"][path].down
    both[f"transformer.{path}.lora_B.weight"] = lora["transformer"][path].up
    with pytest.raises(BadInput, match=rf"{path}.* occurs twice"):
        lora_from_tensors(both, target)


def test_another_kind_on_a_stacked_weight_is_not_read(target):
    stack = next(key for key in module_keys("kohya-ldm", target).values() if "qkv" in key)
    rows, width = 48, 16
    tensors = {f"{stack}.{part}": torch.ones(rows if part.endswith("a") else 2, 2 if part.endswith("a") else width)
               for part in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")}  # fmt: skip
    with pytest.raises(BadInput, match="is LoHa on a weight that stacks several layers, which is not read here"):
        lora_from_tensors(tensors, target)


@pytest.mark.parametrize(
    ("key", "family"),
    [
        ("lora_unet_blocks_0_attn1_Wqkv.lora_down.weight", "HunyuanDiT"),
        ("lora_unet_blocks_3_attn2_kv_proj.lora_down.weight", "HunyuanDiT"),
        ("base_model.model.blocks.0.attn1.to_q.lora_A.weight", "HunyuanDiT"),
        ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight", None),
    ],
)
def test_hunyuan_dit_is_told_by_its_names(key, family):
    assert guess_family({key: (4, 1408)}) == family


def test_other_models_with_blocks_are_not_taken_for_it():
    assert guess_family({"transformer.blocks.0.attn1.to_q.lora_A.weight": (4, 1536)}) is None
