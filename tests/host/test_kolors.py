"""Kolors, which the host does not know: it trains and draws in the graph as a TRAINING_MODEL."""

import shutil

import numpy as np
import pytest

NAME = "small-kolors"


@pytest.fixture
def with_kolors(host, kolors_base):
    """The host has the base in its folder of diffusers models."""
    folder = host.base / "models" / "diffusers" / NAME
    shutil.copytree(kolors_base, folder)
    yield host
    shutil.rmtree(folder)


def test_it_trains_and_draws_as_a_training_model_alone(with_kolors, graph):
    host = with_kolors
    prompt = graph.training(config={"learning_rate": 0.02, "preview_width": 64, "preview_height": 64})
    prompt["base"] = graph.node("ScionLoadTrainingModel", base=f"diffusers/{NAME}")
    prompt["train"]["inputs"] |= {"model": ["base", 0]}
    for unused in ("clip", "vae"):
        del prompt["train"]["inputs"][unused]
    drawing = {"prompts": "一只红色的猫", "steps": 1, "width": 64, "height": 64}
    for name, more in (("with", {"lora": ("train", 0)}), ("without", {})):
        prompt[f"{name} drawn"] = graph.node("ScionSampleTrainingModel", model=("base", 0), **drawing, **more)
        prompt[name] = graph.node("SaveImage", images=(f"{name} drawn", 0), filename_prefix=name)
    result = host.run(prompt)
    run = graph.run_of(host, result)
    assert run.metadata["ss_base_model_version"] == "kolors"
    assert all(key.startswith("lora_unet_") for key in run.tensors)
    pictures = [graph.drawn(host, result, name).astype(int) for name in ("with", "without")]
    assert np.abs(pictures[0] - pictures[1]).max() > 2


def test_its_outputs_for_the_hosts_own_nodes_are_blocked(with_kolors, graph):
    prompt = {"base": graph.node("ScionLoadTrainingModel", base=f"diffusers/{NAME}")}
    prompt |= graph.sampling(model=("base", 1))
    result = with_kolors.run(prompt)
    assert result.status == "error"
    assert "ComfyUI does not know the architecture" in graph.said(result)
