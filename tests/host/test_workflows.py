"""The example workflows as they are queued headless, shortened: every one runs to its pictures and its LoRA."""

import json
import shutil
from pathlib import Path

import pytest

API = Path(__file__).parents[2] / "example_workflows" / "api"
SHORT = {
    "ScionLoRATrainConfig": {"steps": 3, "rank": 4, "preview_every": 2, "preview_steps": 2},
    "ScionLoadImageCaptionDataset": {"resolution": 64},
    "ScionSampleTrainingModel": {"steps": 2, "width": 64, "height": 64},
    "EmptyLatentImage": {"width": 64, "height": 64},
    "EmptySD3LatentImage": {"width": 64, "height": 64},
    "KSampler": {"steps": 2},
}
"""What makes a run of seconds of each."""
LOADERS = {"CheckpointLoaderSimple": 0, "UNETLoader": 0, "DualCLIPLoader": 1, "VAELoader": 2}
"""Where the first of their outputs stands among MODEL, CLIP and VAE."""
LARGE = {"preview_count": 1, "preview_width": 64, "preview_height": 64}
"""These families draw 1,024 pixels by themselves."""
BUILT_IN = "Train a LoRA with the built-in base"
SD15 = "Train a LoRA on an SD1.5 checkpoint and sample with it"
SDXL = "Train a LoRA on an SDXL checkpoint and sample with it"
KOLORS = "Train a LoRA on Kolors and sample with it"
SD3 = "Train a LoRA on an SD3 checkpoint and sample with it"
FLUX = "Train a LoRA on Flux and sample with it"
HUNYUAN = "Train a LoRA on HunyuanDiT and sample with it"


def shortened(name, **more):
    """The workflow as it is queued; `more` is what its config node holds beside."""
    graph = json.loads((API / f"{name}.json").read_text(encoding="utf-8"))
    for node in graph.values():
        node["inputs"] |= SHORT.get(node["class_type"], {})
        if node["class_type"] == "ScionLoRATrainConfig":
            node["inputs"] |= more
    return graph


def runs(host, graph):
    """Runs the graph to its end: trained, saved where loaders list it, drawn. Gives what each node showed, by class."""
    before = len(host.log())
    result = host.run(graph)
    assert result.status == "success", result.error
    by_class = {graph[node]["class_type"]: output for node, output in result.outputs.items()}
    assert by_class["ScionTrainLoRA"]["scion"][0]["status"] == "finished"
    assert len(by_class["ScionTrainLoRA"]["images"]) >= 1
    (saved,) = by_class["ScionSaveLoRA"]["text"]
    assert saved.removeprefix("Saved: ") in host.object_info("LoraLoader")["input"]["required"]["lora_name"][0]
    assert all(path.stat().st_size > 0 for path in host.files(result))
    log = host.log()[before:]
    assert "lora key not loaded" not in log and "NOT LOADED" not in log
    return by_class


def test_every_example_workflow_is_run_here():
    assert sorted(path.stem for path in API.glob("*.json")) == sorted(
        [BUILT_IN, SD15, SDXL, KOLORS, SD3, FLUX, HUNYUAN]
    )


@pytest.mark.parametrize("name", [BUILT_IN, SD15])
def test_an_example_workflow_trains_applies_samples_and_saves(host, sd15_checkpoint, name):
    graph = shortened(name)
    if "ckpt_name" in graph["1"]["inputs"]:
        graph["1"]["inputs"]["ckpt_name"] = sd15_checkpoint.name
    runs(host, graph)


def test_the_workflow_of_sdxl_runs_on_a_small_one_in_the_hosts_own_classes(host, sdxl_folder):
    """A file that the host takes for one has 2.4 GB even with a narrow UNet: CLIP-G and the depth are fixed."""
    graph = shortened(SDXL, **LARGE)
    assert graph["1"]["class_type"] == "CheckpointLoaderSimple"
    graph["1"] = {"class_type": "ProbeSDXL", "inputs": {"folder": "small-sdxl"}}
    base = host.base / "input" / "small-sdxl"
    shutil.copytree(sdxl_folder, base)
    try:
        assert len(runs(host, graph)["SaveImage"]["images"]) == 1
    finally:
        shutil.rmtree(base)


def test_the_workflow_of_kolors_runs_on_a_small_one_in_the_folder_of_diffusers_models(host, kolors_base):
    graph = shortened(KOLORS, **LARGE)
    graph["1"]["inputs"]["base"] = "diffusers/small-kolors"
    folder = host.base / "models" / "diffusers" / "small-kolors"
    shutil.copytree(kolors_base, folder)
    try:
        assert len(runs(host, graph)["SaveImage"]["images"]) == 2
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def small_ones(sd3_folder, flux_folders, hunyuan_folders):
    """By workflow: a small base's folder, and the node that gives it as the host's MODEL, CLIP and VAE."""
    return {
        SD3: (sd3_folder, "ProbeSD3"),
        FLUX: (flux_folders["dev"], "ProbeFlux"),
        HUNYUAN: (hunyuan_folders["1.2"], "ProbeHunyuan"),
    }


@pytest.mark.parametrize("name", [SD3, FLUX, HUNYUAN])
def test_the_workflow_of_a_transformer_runs_on_a_small_one_in_the_hosts_own_classes(host, small_ones, name):
    """The loaders of the released sizes are taken out; what they give comes from one node."""
    graph, (source, probe) = shortened(name, **LARGE), small_ones[name]
    loaders = {number: node["class_type"] for number, node in graph.items() if node["class_type"] in LOADERS}
    for node in graph.values():
        for wire, held in node["inputs"].items():
            if isinstance(held, list) and held[0] in loaders:
                node["inputs"][wire] = ["1", LOADERS[loaders[held[0]]] + held[1]]
    for number in loaders:
        del graph[number]
    folder = host.base / "input" / "small-one"
    graph["1"] = {"class_type": probe, "inputs": {"folder": folder.name}}
    shutil.copytree(source, folder)
    try:
        assert len(runs(host, graph)["SaveImage"]["images"]) == 1
    finally:
        shutil.rmtree(folder)
