"""What each reader loads of a file: counts that were measured on the real readers."""

import pytest
import torch

from trainer_core.lora_file.dialects import DIALECTS, lora_to_tensors, module_keys
from trainer_core.lora_file.known_targets import standard_target
from trainer_core.lora_file.lora import Target
from trainer_core.lora_file.readers import reader_reports


def reports(lora, dialect, target):
    return {report.reader: report for report in reader_reports(lora_to_tensors(lora, dialect, target), target)}


def thin_tensors(dialect, target):
    """Rank one on every module of a UNet; on the meta device, so that full models cost nothing."""
    form, tensors = DIALECTS[dialect], {}
    for (component, path), name in module_keys(dialect, target).items():
        shape = target.modules[component][path]
        tensors[name + form.down] = torch.empty(1, *shape[1:], device="meta")
        tensors[name + form.up] = torch.empty(shape[0], 1, *[1] * (len(shape) - 2), device="meta")
    return tensors


def counts(found):
    return {reader: (report.loaded, report.total) for reader, report in found.items()}


def test_diffusers_names_lose_the_attention_layers_in_comfyui(one_level_target, random_lora):
    found = reports(random_lora(one_level_target), "diffusers", one_level_target)
    assert counts(found) == {"ComfyUI": (51, 83), "diffusers": (83, 83), "sd-scripts": (0, 83)}
    assert all(".attn" in key for key in found["ComfyUI"].unmatched)
    assert len(found["ComfyUI"].unmatched) == 2 * 32


def test_kohya_names_load_everywhere(one_level_target, random_lora):
    found = reports(random_lora(one_level_target), "kohya", one_level_target)
    # sd-scripts has no LoRA on conv_in, conv_out and the two layers of the time embedding.
    assert counts(found) == {"ComfyUI": (83, 83), "diffusers": (83, 83), "sd-scripts": (79, 83)}
    assert found["ComfyUI"].complete and not found["sd-scripts"].complete
    assert found["ComfyUI"].line() == "83 of 83 modules load in ComfyUI"


@pytest.mark.parametrize("dialect", ["kohya-ldm", "comfyui"])
def test_original_names_load_in_comfyui_only(one_level_target, random_lora, dialect):
    found = reports(random_lora(one_level_target), dialect, one_level_target)
    assert found["ComfyUI"].loaded == 83
    assert not found["diffusers"].complete and found["sd-scripts"].loaded == 0


def test_text_encoders_load_in_the_dialects_that_are_for_them(target, random_lora):
    lora = random_lora(target, lambda component, path: component == "text_encoder" and "layers" in path)
    total = len(lora["text_encoder"])
    assert counts(reports(lora, "kohya", target))["ComfyUI"] == (total, total)
    for dialect in DIALECTS:
        found = reports(lora, dialect, target)
        assert all(found[reader].complete for reader in DIALECTS[dialect].readers), dialect


@pytest.mark.parametrize(
    ("family", "modules", "attention", "in_diffusers"),
    # SDXL's add_embedding has no name in diffusers' converter from kohya's keys.
    [("Stable Diffusion 1.x", 282, 128, 282), ("Stable Diffusion XL", 794, 560, 792)],
)
def test_the_counts_of_full_unets_are_those_of_the_readers(family, modules, attention, in_diffusers):
    target = standard_target(family)
    target = Target({"unet": target.modules["unet"]}, target.unet_config)
    kohya, diffusers, ldm = (
        {report.reader: report for report in reader_reports(thin_tensors(dialect, target), target)}
        for dialect in ("kohya", "diffusers", "kohya-ldm")
    )
    assert counts(kohya)["ComfyUI"] == counts(ldm)["ComfyUI"] == (modules, modules)
    assert counts(kohya)["diffusers"] == (in_diffusers, modules)
    assert all("add_embedding" in key for key in kohya["diffusers"].unmatched)
    assert counts(diffusers)["ComfyUI"] == (modules - attention, modules)
    assert counts(diffusers)["diffusers"] == (modules, modules)


@pytest.mark.parametrize(
    ("family", "modules"),
    [
        ("Stable Diffusion 3", 341),
        ("Stable Diffusion 3.5 Medium", 393),
        ("Stable Diffusion 3.5 Large", 537),
        ("Flux", 504),
    ],
)
def test_diffusers_names_of_transformers_load_everywhere_and_kohyas_in_comfyui(family, modules):
    target = standard_target(family)
    diffusers, kohya = (reader_reports(thin_tensors(dialect, target), target) for dialect in ("diffusers", "kohya"))
    assert {report.reader: report.loaded for report in diffusers} == {"ComfyUI": modules, "diffusers": modules}
    assert all(report.complete for report in diffusers)
    assert {report.reader: report.complete for report in kohya} == {"ComfyUI": True, "diffusers": False}


def test_a_wrong_shape_or_a_missing_half_does_not_count(one_level_target, random_lora):
    tensors = lora_to_tensors(random_lora(one_level_target), "kohya", one_level_target)
    del tensors["lora_unet_conv_in.lora_up.weight"]
    tensors["lora_unet_conv_out.lora_down.weight"] = torch.zeros(3, 7, 3, 3)
    comfyui = reader_reports(tensors, one_level_target)[0]
    assert (comfyui.loaded, comfyui.total) == (81, 83)
    assert "lora_unet_conv_in.lora_down.weight" in comfyui.unmatched


def test_a_file_that_diffusers_refuses_is_reported_as_refused(one_level_target, random_lora):
    tensors = lora_to_tensors(random_lora(one_level_target), "kohya", one_level_target)
    report = reader_reports({**tensors, "extra.alpha": torch.ones(())}, one_level_target)[1]
    assert report.loaded == 0 and report.problem.startswith("refused") and "refused" in report.line()
