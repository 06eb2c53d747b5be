"""A MODEL of FLUX.1: it trains in the graph as its folder does on the command line, and computes alike."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer_core import recipe
from trainer_core.engine import run as engine
from trainer_core.families import flux, registry
from trainer_core.sampler import load_for_sampling

STRONG = {"learning_rate": 0.02, "preview_width": 64, "preview_height": 64, "preview_sampler": "euler"}
LEFT_OUT = ("lora key not loaded", "NOT LOADED")
DETECTED = {"dev": "Flux", "schnell": "FluxSchnell"}


@pytest.fixture(scope="module")
def flux_host(make_host, flux_folders, tmp_path_factory):
    own = make_host(tmp_path_factory.mktemp("flux-host"))
    for name, folder in flux_folders.items():
        shutil.copytree(folder, own.base / "input" / name)
    try:
        yield own.start()
    finally:
        own.stop()
        shutil.rmtree(own.base / "models")


@pytest.fixture(autouse=True)
def as_many_tokens_as_the_host(monkeypatch):
    """The host fills captions up to 256 tokens of T5 for both, diffusers' pipeline of dev up to 512."""
    monkeypatch.setattr(flux, "TOKENS", {True: 256, False: 256})


def graph_of(graph, name="dev", model=("base", 0), **how):
    prompt = graph.training(model=model, clip=("base", 1), vae=("base", 2), **how)
    return prompt | {"base": graph.node("ProbeFlux", folder=name)}


def given_to_both(model, file):
    """What a denoiser is told, in a file; the engine's answer to it."""
    noisy = torch.randn(2, 16, 8, 12, generator=torch.Generator().manual_seed(3))
    told = model.encoder.stack(model.encoder.encode_captions(["a small red ring", "cross"]))
    given = {"noisy": noisy, "times": torch.tensor([10.0, 900.0]), "guidance": torch.full((2,), 3.5), **told}
    save_file({name: tensor.contiguous() for name, tensor in given.items()}, file)
    with torch.no_grad():
        return model.family.predict(model.denoiser, noisy, given["times"], model.told_guidance(told, 3.5))


def denoised(host, graph, prompt, model, name):
    probe = graph.node("ProbeDenoiseFlux", model=model, file="told.safetensors", out=f"{name}.safetensors")
    result = host.run({**prompt, "probe": probe})
    assert result.status == "success", graph.said(result)
    return load_file(host.base / "output" / f"{name}.safetensors")["answer"], result.outputs["probe"]["text"][1]


def run_by_engine(folder, host, place, graph, **adapter):
    written = recipe.from_dict(
        {
            "base": str(folder),
            "dataset": {"path": str(host.base / "input" / "things"), "resolution": 64},
            "adapter": {"rank": 4, **adapter},
            "optimizer": {"learning_rate": 0.02},
            "run": {"steps": 3, "batch_size": 2, "device": "cpu"},
            "preview": {"count": 1, "steps": 1, "width": 64, "height": 64, "sampler": "euler"},
            "output": {"dtype": "fp32"},
        }
    )
    return graph.Run(engine.train(written, place).folder)


@pytest.mark.parametrize("name", DETECTED)
def test_the_host_tells_it_by_its_shapes_and_computes_what_the_engine_computes(flux_host, graph, flux_folders, name):
    ours = given_to_both(registry.load(str(flux_folders[name])), flux_host.base / "input" / "told.safetensors")
    base = {"base": graph.node("ProbeFlux", folder=name)}
    theirs, detected = denoised(flux_host, graph, base, ("base", 0), f"bare-{name}")
    assert detected == DETECTED[name]
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", DETECTED)
def test_a_model_trains_as_its_folder_does(flux_host, graph, flux_folders, tmp_path, name):
    in_graph = graph.run_of(flux_host, flux_host.run(graph_of(graph, name, config=STRONG)))
    by_engine = run_by_engine(flux_folders[name], flux_host, tmp_path / "run", graph)
    # Up to rounding: the graph has encoded with the host's CLIP, T5 and VAE, and shares the host's weights.
    assert in_graph.losses == pytest.approx(by_engine.losses, rel=1e-4)
    assert in_graph.metadata["modelspec.architecture"] == f"flux-1-{name}/lora"
    assert in_graph.tensors.keys() == by_engine.tensors.keys()


def test_a_shift_that_a_node_has_set_is_the_one_that_trains(flux_host, graph, flux_folders, tmp_path):
    told = {"max_shift": 2.0, "base_shift": 2.0, "width": 64, "height": 64}
    prompt = graph_of(graph, model=("moved", 0), config=STRONG)
    prompt["moved"] = graph.node("ModelSamplingFlux", model=("base", 0), **told)
    in_graph = graph.run_of(flux_host, flux_host.run(prompt))
    folder = tmp_path / "moved"
    shutil.copytree(flux_folders["dev"], folder)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace('_shift": 0.5', '_shift": 2.0').replace('_shift": 1.15', '_shift": 2.0'))
    by_engine = run_by_engine(folder, flux_host, tmp_path / "run", graph)
    assert in_graph.losses == pytest.approx(by_engine.losses, rel=1e-4)
    plain = run_by_engine(flux_folders["dev"], flux_host, tmp_path / "plain", graph)
    assert in_graph.losses != pytest.approx(plain.losses, rel=1e-2)


CASES = [
    ("attention", "lora", "auto"),
    ("all", "lora", "auto"),
    ("all", "lora", "kohya-ldm"),
    ("attention", "lokr", "auto"),
]


@pytest.mark.parametrize(("targets", "kind", "dialect"), CASES)
def test_the_host_loads_all_of_the_file_and_computes_what_the_trainer_computed(
    flux_host, graph, flux_folders, targets, kind, dialect
):
    before, name = len(flux_host.log()), f"{targets}-{kind}-{dialect}"
    config = {**STRONG, "targets": targets, "adapter": kind, "alpha": 2.0, "output_dialect": dialect}
    prompt = graph_of(graph, config=config)
    prompt["save"] = graph.node("ScionSaveLoRA", lora=("train", 0), name=name)
    run = graph.run_of(flux_host, flux_host.run(prompt))
    adapted = load_for_sampling(str(flux_folders["dev"]), str(run.file))
    ours = given_to_both(adapted, flux_host.base / "input" / "told.safetensors")
    base = {"base": graph.node("ProbeFlux", folder="dev")}
    loader = graph.node("LoraLoader", model=("base", 0), clip=("base", 1), lora_name=f"{name}.safetensors")
    loader["inputs"] |= {"strength_model": 1.0, "strength_clip": 1.0}
    theirs, _ = denoised(flux_host, graph, {**base, "loader": loader}, ("loader", 0), name)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
    bare, _ = denoised(flux_host, graph, base, ("base", 0), f"bare-{name}")
    assert (theirs - bare).abs().max() > 0.005
    log = flux_host.log()[before:]
    assert not [mark for mark in LEFT_OUT if mark in log]


def test_an_assistant_helps_whether_it_is_wired_or_named(flux_host, graph):
    first = graph_of(graph, "schnell", config=STRONG)
    helper = graph.run_of(flux_host, flux_host.run(first))
    config = {**STRONG, "seed": 1}
    wired = graph_of(graph, "schnell", config=config, train={"assistant_lora": ("helper", 0)})
    wired |= {"helper": first["train"], "plain": first["config"]}
    wired["helper"]["inputs"]["config"] = ["plain", 0]
    helped = graph.run_of(flux_host, flux_host.run(wired))
    shutil.copyfile(helper.file, flux_host.base / "models" / "loras" / "helper.safetensors")
    named = {"assistant_file": "helper.safetensors", "name": "named"}
    again = graph.run_of(flux_host, flux_host.run(graph_of(graph, "schnell", config=config, train=named)))
    alone = graph.run_of(flux_host, flux_host.run(graph_of(graph, "schnell", config=config)))
    assert again.losses == helped.losses != pytest.approx(alone.losses, rel=1e-3)
    assert helped.tensors.keys() == alone.tensors.keys()


def test_the_edge_draws_with_it(flux_host, graph):
    prompt = graph_of(graph, config=STRONG) | graph.sampling("edge", base="flux", lora=("train", 0), cfg=1.0)
    prompt |= graph.sampling("bare", base="flux", cfg=1.0)
    prompt["edge latent"] = prompt["bare latent"] = graph.node("EmptySD3LatentImage", width=64, height=64, batch_size=1)
    result = flux_host.run(prompt)
    edge, bare = (graph.drawn(flux_host, result, name).astype(int) for name in ("edge", "bare"))
    assert abs(edge - bare).max() > 2


def test_the_clip_of_another_family_is_told_by_its_width(flux_host, graph):
    prompt = graph_of(graph) | {"other": graph.node("CheckpointLoaderSimple", ckpt_name="random-sd15.safetensors")}
    prompt["train"]["inputs"]["clip"] = ["other", 1]
    said = graph.said(flux_host.run(prompt))
    assert "clip: gives text states of width 768, the model takes 48; wire the CLIP of its checkpoint" in said


def test_a_text_encoder_that_cannot_learn_is_refused_as_on_the_command_line(flux_host, graph):
    result = flux_host.run(graph_of(graph, config={**STRONG, "text_encoder": "on"}))
    assert "the text encoders of FLUX.1 do not learn here; set it to off" in graph.said(result)
