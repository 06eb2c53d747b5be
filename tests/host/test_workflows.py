"""The example workflows as they are queued headless, shortened: every one runs to its pictures and its LoRA."""

import json
from pathlib import Path

import pytest

API = Path(__file__).parents[2] / "example_workflows" / "api"
SHORT = {
    "ScionLoRATrainConfig": {"steps": 3, "rank": 4, "preview_every": 2, "preview_steps": 2},
    "ScionLoadImageCaptionDataset": {"resolution": 64},
    "EmptyLatentImage": {"width": 64, "height": 64},
    "KSampler": {"steps": 2},
}
"""What makes a run of seconds of each."""


def shortened(name, checkpoint):
    graph = json.loads((API / name).read_text(encoding="utf-8"))
    for node in graph.values():
        node["inputs"] |= SHORT.get(node["class_type"], {})
        if "ckpt_name" in node["inputs"]:
            node["inputs"]["ckpt_name"] = checkpoint
    return graph


@pytest.mark.parametrize("name", sorted(path.name for path in API.glob("*.json")))
def test_an_example_workflow_trains_applies_samples_and_saves(host, sd15_checkpoint, name):
    before = len(host.log())
    graph = shortened(name, sd15_checkpoint.name)
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
