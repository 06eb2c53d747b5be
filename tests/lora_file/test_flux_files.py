"""LoRA files of Flux that others have written, in the original's names: read exactly, and who else loads them."""

import pytest
import torch
from diffusers import FluxTransformer2DModel

from trainer_core.errors import BadInput
from trainer_core.lora_file.dialects import lora_from_tensors
from trainer_core.lora_file.known_targets import standard_target
from trainer_core.lora_file.lora import Target
from trainer_core.lora_file.readers import reader_reports

FORMS = {
    "sd-scripts": ("lora_unet_", "_", "lora_down", "lora_up", True),
    "original": ("diffusion_model.", ".", "lora_A", "lora_B", False),
}
STACKED = {
    "double_blocks.0.img_attn.qkv": [f"transformer_blocks.0.attn.to_{letter}" for letter in "qkv"],
    "double_blocks.0.txt_attn.qkv": [f"transformer_blocks.0.attn.add_{letter}_proj" for letter in "qkv"],
    "single_blocks.0.linear1": [
        *(f"single_transformer_blocks.0.attn.to_{letter}" for letter in "qkv"),
        "single_transformer_blocks.0.proj_mlp",
    ],
}
ALONE = {
    "double_blocks.0.img_attn.proj": "transformer_blocks.0.attn.to_out.0",
    "double_blocks.0.txt_mlp.2": "transformer_blocks.0.ff_context.net.2",
    "double_blocks.0.img_mod.lin": "transformer_blocks.0.norm1.linear",
    "single_blocks.0.linear2": "single_transformer_blocks.0.proj_out",
}


@pytest.fixture(scope="module")
def target():
    sizes = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 1}
    with torch.device("meta"):
        return Target.of(transformer=FluxTransformer2DModel(**sizes, joint_attention_dim=48, pooled_projection_dim=64))


def foreign(form, target, modules):
    """A file as another program writes it, and what each original module's weight is changed by."""
    prefix, dot, down, up, has_alpha = FORMS[form]
    numbers, tensors, changes = torch.Generator().manual_seed(4), {}, {}
    for name in modules:
        own = STACKED.get(name) or [ALONE[name]]
        shapes = [target.modules["transformer"][path] for path in own]
        a = torch.randn(4, shapes[0][1], generator=numbers)
        b = torch.randn(sum(shape[0] for shape in shapes), 4, generator=numbers)
        key = prefix + name.replace(".", dot)
        tensors |= {f"{key}.{down}.weight": a, f"{key}.{up}.weight": b}
        if has_alpha:
            tensors[f"{key}.alpha"] = torch.tensor(2.0)
        changes[name] = (0.5 if has_alpha else 1.0) * b @ a
    return tensors, changes


@pytest.mark.parametrize("form", FORMS)
def test_fused_files_are_read_as_what_they_do_to_each_layer(target, form):
    tensors, changes = foreign(form, target, [*STACKED, *ALONE])
    read = lora_from_tensors(tensors, target)["transformer"]
    for name, change in changes.items():
        paths = STACKED.get(name) or [ALONE[name]]
        found = torch.cat([read[path].delta() for path in paths])
        torch.testing.assert_close(found, change, rtol=0, atol=1e-5)
    assert len(read) == sum(len(paths) for paths in STACKED.values()) + len(ALONE)
    assert next(report.complete for report in reader_reports(tensors, target) if report.reader == "ComfyUI")


def test_the_last_modulation_is_turned_as_diffusers_has_it(target):
    down, up = torch.randn(2, 128), torch.randn(256, 2)
    key = "lora_unet_final_layer_adaLN_modulation_1"
    read = lora_from_tensors({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}, target)["transformer"]
    torch.testing.assert_close(read["norm_out.linear"].delta(), torch.cat([up[128:], up[:128]]) @ down)


def test_what_diffusers_takes_apart_counts_as_the_files_own_modules():
    """Its converter knows the released width alone, and makes new tensors."""
    target = standard_target("Flux")
    tensors, _ = foreign("sd-scripts", target, [*STACKED, *ALONE])
    reports = {report.reader: report for report in reader_reports(tensors, target)}
    assert reports["diffusers"].complete and (reports["diffusers"].loaded, reports["diffusers"].total) == (7, 7)


def test_a_narrow_file_that_diffusers_cannot_take_apart_is_refused_by_it(target):
    tensors, _ = foreign("sd-scripts", target, STACKED)
    reports = {report.reader: report for report in reader_reports(tensors, target)}
    assert reports["diffusers"].loaded == 0 and reports["diffusers"].problem.startswith("refused")


def test_a_file_of_another_width_is_refused(target):
    tensors, _ = foreign("sd-scripts", standard_target("Flux"), ["double_blocks.0.img_attn.qkv"])
    with pytest.raises(BadInput, match="do not fit the weight of shape .* It looks like a file for Flux"):
        lora_from_tensors(tensors, target)
