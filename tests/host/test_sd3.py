"""A MODEL of Stable Diffusion 3: it trains in the graph as its folder does on the command line, and computes alike."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer_core import recipe
from trainer_core.engine import run as engine
from trainer_core.families import registry, sd3
from trainer_core.sampler import load_for_sampling

STRONG = {"learning_rate": 0.02, "preview_width": 64, "preview_height": 64, "preview_sampler": "euler"}
LEFT_OUT = ("lora key not loaded", "NOT LOADED")


@pytest.fixture(scope="module")
def sd3_host(make_host, sd3_folder, tmp_path_factory):
    own = make_host(tmp_path_factory.mktemp("sd3-host"))
    shutil.copytree(sd3_folder, own.base / "input" / "sd3")
    try:
        yield own.start()
    finally:
        own.stop()
        shutil.rmtree(own.base / "models")


@pytest.fixture(autouse=True)
def no_tokens_for_t5(monkeypatch):
    """Where a checkpoint brings no T5, the host gives the tokens of both CLIPs alone, diffusers' pipeline zeros too."""
    monkeypatch.setattr(sd3, "T5_LENGTH", 0)


def graph_of(graph, model=("base", 0), **how):
    prompt = graph.training(model=model, clip=("base", 1), vae=("base", 2), **how)
    return prompt | {"base": graph.node("ProbeSD3", folder="sd3")}


def given_to_both(model, file):
    """What a denoiser is told, in a file; the engine's answer to it."""
    noisy = torch.randn(2, 16, 8, 12, generator=torch.Generator().manual_seed(3))
    told = model.encoder.stack(model.encoder.encode_captions(["a small red ring", "cross"]))
    given = {"noisy": noisy, "times": torch.tensor([10.0, 900.0]), **told}
    save_file({name: tensor.contiguous() for name, tensor in given.items()}, file)
    with torch.no_grad():
        return model.family.predict(model.denoiser, noisy, given["times"], told)


def denoised(host, graph, prompt, model, name):
    probe = graph.node("ProbeDenoiseSD3", model=model, file="told.safetensors", out=f"{name}.safetensors")
    result = host.run({**prompt, "probe": probe})
    assert result.status == "success", graph.said(result)
    return load_file(host.base / "output" / f"{name}.safetensors")["answer"]


def run_by_engine(folder, host, place, graph):
    written = recipe.from_dict(
        {
            "base": str(folder),
            "dataset": {"path": str(host.base / "input" / "things"), "resolution": 64},
            "adapter": {"rank": 4},
            "optimizer": {"learning_rate": 0.02},
            "run": {"steps": 3, "batch_size": 2, "device": "cpu"},
            "preview": {"count": 1, "steps": 1, "width": 64, "height": 64, "sampler": "euler"},
            "output": {"dtype": "fp32"},
        }
    )
    return graph.Run(engine.train(written, place).folder)


def test_the_host_computes_what_the_engine_computes(sd3_host, graph, sd3_folder):
    ours = given_to_both(registry.load(str(sd3_folder)), sd3_host.base / "input" / "told.safetensors")
    base = {"base": graph.node("ProbeSD3", folder="sd3")}
    torch.testing.assert_close(denoised(sd3_host, graph, base, ("base", 0), "bare"), ours, rtol=0, atol=1e-5)


def test_a_model_trains_as_its_folder_does(sd3_host, graph, sd3_folder, tmp_path):
    in_graph = graph.run_of(sd3_host, sd3_host.run(graph_of(graph, config=STRONG)))
    by_engine = run_by_engine(sd3_folder, sd3_host, tmp_path / "run", graph)
    # Up to rounding: the graph has encoded with the host's CLIP and VAE, and shares the host's weights.
    assert in_graph.losses == pytest.approx(by_engine.losses, rel=1e-4)
    assert in_graph.metadata["ss_base_model_version"] == "sd3.5m"
    assert in_graph.tensors.keys() == by_engine.tensors.keys()


def test_a_shift_that_a_node_has_set_is_the_one_that_trains(sd3_host, graph, sd3_folder, tmp_path):
    moved = graph.node("ModelSamplingSD3", model=("base", 0), shift=1.0)
    prompt = graph_of(graph, model=("moved", 0), config=STRONG) | {"moved": moved}
    in_graph = graph.run_of(sd3_host, sd3_host.run(prompt))
    folder = tmp_path / "moved"
    shutil.copytree(sd3_folder, folder)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace('"shift": 3.0', '"shift": 1.0'))
    by_engine = run_by_engine(folder, sd3_host, tmp_path / "run", graph)
    assert in_graph.losses == pytest.approx(by_engine.losses, rel=1e-4)
    plain = run_by_engine(sd3_folder, sd3_host, tmp_path / "plain", graph)
    assert in_graph.losses != pytest.approx(plain.losses, rel=1e-2)


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_the_host_loads_all_of_the_file_and_computes_what_the_trainer_computed(sd3_host, graph, sd3_folder, targets):
    before = len(sd3_host.log())
    prompt = graph_of(graph, config={**STRONG, "targets": targets, "alpha": 2.0})
    prompt["save"] = graph.node("ScionSaveLoRA", lora=("train", 0), name=targets)
    run = graph.run_of(sd3_host, sd3_host.run(prompt))
    adapted = load_for_sampling(str(sd3_folder), str(run.file))
    ours = given_to_both(adapted, sd3_host.base / "input" / "told.safetensors")
    base = {"base": graph.node("ProbeSD3", folder="sd3")}
    loader = graph.node("LoraLoader", model=("base", 0), clip=("base", 1), lora_name=f"{targets}.safetensors")
    loader["inputs"] |= {"strength_model": 1.0, "strength_clip": 1.0}
    theirs = denoised(sd3_host, graph, {**base, "loader": loader}, ("loader", 0), targets)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
    bare = denoised(sd3_host, graph, base, ("base", 0), f"bare-{targets}")
    assert (theirs - bare).abs().max() > 0.01
    log = sd3_host.log()[before:]
    assert not [mark for mark in LEFT_OUT if mark in log]


def test_a_relative_loads_in_the_host_too(sd3_host, graph, sd3_folder):
    before = len(sd3_host.log())
    prompt = graph_of(graph, config={**STRONG, "adapter": "lokr"})
    prompt["save"] = graph.node("ScionSaveLoRA", lora=("train", 0), name="lokr")
    run = graph.run_of(sd3_host, sd3_host.run(prompt))
    ours = given_to_both(
        load_for_sampling(str(sd3_folder), str(run.file)), sd3_host.base / "input" / "told.safetensors"
    )
    base = {"base": graph.node("ProbeSD3", folder="sd3")}
    loader = graph.node("LoraLoader", model=("base", 0), clip=("base", 1), lora_name="lokr.safetensors")
    loader["inputs"] |= {"strength_model": 1.0, "strength_clip": 1.0}
    theirs = denoised(sd3_host, graph, {**base, "loader": loader}, ("loader", 0), "lokr")
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
    assert not [mark for mark in LEFT_OUT if mark in sd3_host.log()[before:]]


def test_the_edge_draws_with_it(sd3_host, graph):
    prompt = graph_of(graph, config=STRONG) | graph.sampling("edge", base="sd3", lora=("train", 0))
    prompt |= graph.sampling("bare", base="sd3")
    prompt["edge latent"] = prompt["bare latent"] = graph.node("EmptySD3LatentImage", width=64, height=64, batch_size=1)
    result = sd3_host.run(prompt)
    edge, bare = (graph.drawn(sd3_host, result, name).astype(int) for name in ("edge", "bare"))
    assert abs(edge - bare).max() > 2


def test_the_clip_of_another_family_is_told_by_its_width(sd3_host, graph):
    prompt = graph_of(graph) | {"other": graph.node("CheckpointLoaderSimple", ckpt_name="random-sd15.safetensors")}
    prompt["train"]["inputs"]["clip"] = ["other", 1]
    said = graph.said(sd3_host.run(prompt))
    assert "clip: gives text states of width 768, the model takes 4096; wire the CLIP of its checkpoint" in said


def test_a_folder_trains_and_draws_as_a_training_model(sd3_host, graph, sd3_folder):
    folder = sd3_host.base / "models" / "diffusers" / "small-sd3"
    shutil.copytree(sd3_folder, folder)
    prompt = graph.training(config=STRONG)
    prompt["base"] = graph.node("ScionLoadTrainingModel", base="diffusers/small-sd3")
    prompt["train"]["inputs"] |= {"model": ["base", 0]}
    for unused in ("clip", "vae"):
        del prompt["train"]["inputs"][unused]
    drawing = {"prompts": "a red ring", "steps": 1, "width": 64, "height": 64, "sampler": "euler"}
    for name, more in (("with", {"lora": ("train", 0)}), ("without", {})):
        prompt[f"{name} drawn"] = graph.node("ScionSampleTrainingModel", model=("base", 0), **drawing, **more)
        prompt[name] = graph.node("SaveImage", images=(f"{name} drawn", 0), filename_prefix=name)
    result = sd3_host.run(prompt)
    assert all(key.startswith("transformer.") for key in graph.run_of(sd3_host, result).tensors)
    pictures = [graph.drawn(sd3_host, result, name).astype(int) for name in ("with", "without")]
    assert abs(pictures[0] - pictures[1]).max() > 2
