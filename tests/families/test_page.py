"""docs/families.md says what the code does."""

import json
from pathlib import Path

import pytest

from trainer_core import families_page
from trainer_core.families import registry
from trainer_core.families.base import Family
from trainer_core.families.registry import FAMILIES

ROOT = Path(__file__).parents[2]


def test_the_page_is_the_one_that_the_code_makes():
    written = families_page.PAGE.read_text(encoding="utf-8")
    assert "| **Kolors** (`kolors`) |" in written and written == families_page.for_page(written)


def test_those_that_train_as_a_model_in_the_graph_are_those_that_take_the_hosts_weights():
    taking = [name for name, family in FAMILIES.items() if type(family).from_original is not Family.from_original]
    assert taking == [name for name, family in FAMILIES.items() if family.comfyui]
    assert taking == ["sd15", "sdxl", "sd3", "hunyuan_dit", "flux"]


def test_who_loads_a_familys_files():
    loaded = {name: families_page.loaded_by(family) for name, family in FAMILIES.items()}
    assert loaded == {
        "sd15": ["ComfyUI", "diffusers", "sd-scripts"],
        "sdxl": ["ComfyUI", "diffusers", "sd-scripts"],
        "kolors": ["diffusers"],
        "sd3": ["ComfyUI", "diffusers"],
        "hunyuan_dit": ["ComfyUI"],
        "flux": ["ComfyUI", "diffusers"],
    }


@pytest.mark.parametrize("folder", ["base", "sdxl_base", "kolors_base"])
def test_the_text_encoders_that_learn_are_those_that_a_loaded_base_offers(folder, request):
    model = registry.load(str(request.getfixturevalue(folder)))
    assert families_page.learning(model.family) == list(model.encoder.text_encoders)


def test_measured_figures_are_the_benchmarks_and_what_was_not_measured_is_blank(tmp_path, monkeypatch):
    found = {"bf16+": {"weights": 5.13, "passing": 0.154, "trained": 5806080}, "checkpointing takes": {"ratio": 1.3}}
    (tmp_path / "figures.json").write_text(json.dumps({"on": "a machine", "families": {"sdxl": {"512": found}}}))
    monkeypatch.setattr(families_page, "MEASURED", tmp_path / "figures.json")
    lines = families_page.tables().splitlines()
    assert "| Stable Diffusion XL | 5,806,080 |  | 5.13 GB |  |  |  | 0.15 GB | × 1.30 |  |" in lines
    assert f"| Kolors |{'  |' * 9}" in lines
