"""A MODEL of Stable Diffusion XL: it trains in the graph as its folder does on the command line, and computes alike."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer_core import recipe
from trainer_core.engine import run as engine
from trainer_core.families import registry
from trainer_core.sampler import load_for_sampling

STRONG = {"learning_rate": 0.02, "preview_width": 64, "preview_height": 64}
LEFT_OUT = ("lora key not loaded", "NOT LOADED")


@pytest.fixture(scope="module")
def folder(sdxl_folder):
    return sdxl_folder


@pytest.fixture(scope="module")
def sized_host(make_host, folder, tmp_path_factory):
    own = make_host(tmp_path_factory.mktemp("sized"))
    shutil.copytree(folder, own.base / "input" / "sdxl")
    try:
        yield own.start()
    finally:
        own.stop()
        shutil.rmtree(own.base / "models")


def graph_of(graph, **how):
    links = {"model": ("base", 0), "clip": ("base", 1), "vae": ("base", 2)}
    prompt = graph.training(**links, **how)
    return prompt | {"base": graph.node("ProbeSDXL", folder="sdxl")}


def given_to_both(model, file):
    """What a denoiser is told, in a file; the engine's answer to it."""
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    told = model.encoder.stack(model.encoder.encode_captions(["a small red ring", "cross"]))
    told["time_ids"] = torch.tensor([[96, 64, 0, 8, 64, 64], [1023, 771, 3, 0, 64, 64]])
    given = {"noisy": noisy, "timesteps": torch.tensor([10, 900]), **told}
    save_file({name: tensor.contiguous() for name, tensor in given.items()}, file)
    with torch.no_grad():
        return model.family.predict(model.denoiser, noisy, given["timesteps"], told)


def denoised(host, graph, prompt, model, name):
    probe = graph.node("ProbeDenoiseSized", model=model, file="told.safetensors", out=f"{name}.safetensors")
    result = host.run({**prompt, "probe": probe})
    assert result.status == "success", graph.said(result)
    return load_file(host.base / "output" / f"{name}.safetensors")["answer"]


def test_the_host_computes_what_the_engine_computes(sized_host, graph, folder):
    ours = given_to_both(registry.load(str(folder)), sized_host.base / "input" / "told.safetensors")
    base = {"base": graph.node("ProbeSDXL", folder="sdxl")}
    torch.testing.assert_close(denoised(sized_host, graph, base, ("base", 0), "bare"), ours, rtol=0, atol=1e-5)


def test_a_model_trains_as_its_folder_does(sized_host, graph, folder, tmp_path):
    in_graph = graph.run_of(sized_host, sized_host.run(graph_of(graph, config=STRONG)))
    written = recipe.from_dict(
        {
            "base": str(folder),
            "dataset": {"path": str(sized_host.base / "input" / "things"), "resolution": 64},
            "adapter": {"rank": 4},
            "optimizer": {"learning_rate": 0.02},
            "run": {"steps": 3, "batch_size": 2, "device": "cpu"},
            "preview": {"count": 1, "steps": 1, "width": 64, "height": 64},
            "output": {"dtype": "fp32"},
        }
    )
    by_engine = graph.Run(engine.train(written, tmp_path / "run").folder)
    # Up to rounding: the graph has encoded with the host's CLIP and VAE.
    assert in_graph.losses == pytest.approx(by_engine.losses, rel=1e-4)
    assert in_graph.metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert in_graph.tensors.keys() == by_engine.tensors.keys()


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_the_host_loads_all_of_the_file_and_computes_what_the_trainer_computed(sized_host, graph, folder, targets):
    prompt = graph_of(graph, config={**STRONG, "targets": targets})
    prompt["save"] = graph.node("ScionSaveLoRA", lora=("train", 0), name=targets)
    run = graph.run_of(sized_host, sized_host.run(prompt))
    adapted = load_for_sampling(str(folder), str(run.file))
    ours = given_to_both(adapted, sized_host.base / "input" / "told.safetensors")
    base = {"base": graph.node("ProbeSDXL", folder="sdxl")}
    loader = graph.node("LoraLoader", model=("base", 0), clip=("base", 1), lora_name=f"{targets}.safetensors")
    loader["inputs"] |= {"strength_model": 1.0, "strength_clip": 1.0}
    theirs = denoised(sized_host, graph, {**base, "loader": loader}, ("loader", 0), targets)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
    bare = denoised(sized_host, graph, base, ("base", 0), f"bare-{targets}")
    assert (theirs - bare).abs().max() > 0.01
    log = sized_host.log()
    assert not [mark for mark in LEFT_OUT if mark in log]


@pytest.mark.parametrize("layer", [None, -1, -2])
def test_both_text_encoders_learn_on_the_hosts_clip_and_come_back_to_it(sized_host, graph, folder, layer):
    skip = {} if layer is None else {"skip": graph.node("CLIPSetLastLayer", clip=("base", 1), stop_at_clip_layer=layer)}
    clip = ("skip", 0) if skip else ("base", 1)

    def training(**config):
        prompt = graph_of(graph, config={**STRONG, **config}, dataset={"caption_prefix": "wooden " * 40}, **skip)
        prompt["train"]["inputs"]["clip"] = list(clip)
        return prompt

    # What is encoded in the step is what the host has encoded for the cache.
    still = {"learning_rate": 1e-9, "seed": 7}
    runs = [sized_host.run(training(text_encoder=learns, **still)) for learns in ("off", "only")]
    losses = [graph.run_of(sized_host, run).losses for run in runs]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    if layer is not None:
        return
    before = len(sized_host.log())
    prompt = training(text_encoder="on")
    run = graph.run_of(sized_host, sized_host.run(prompt))
    assert {key.split("_text_model")[0] for key in run.tensors if key.startswith("lora_te")} == {"lora_te1", "lora_te2"}
    prompt["save"] = graph.node("ScionSaveLoRA", lora=("train", 0), name="both-encoders")
    prompt["apply"] = graph.node("ScionApplyLoRA", model=("base", 0), clip=clip, lora=("train", 0))
    applied = states(sized_host, graph, prompt, ("apply", 1))
    loader = graph.node("LoraLoader", model=("base", 0), clip=clip, lora_name="both-encoders.safetensors")
    loader["inputs"] |= {"strength_model": 1.0, "strength_clip": 1.0}
    loaded = states(sized_host, graph, {"base": prompt["base"], "loader": loader}, ("loader", 1))
    assert not [mark for mark in LEFT_OUT if mark in sized_host.log()[before:]]
    ours = load_for_sampling(str(folder), str(run.file)).encoder.encode_captions(["a red ring"])[0]["text"]
    bare = load_for_sampling(str(folder), None).encoder.encode_captions(["a red ring"])[0]["text"]
    assert torch.equal(applied, loaded)
    torch.testing.assert_close(loaded, ours, rtol=0, atol=1e-5)
    # CLIP-L's states, then CLIP-G's.
    for of_one in (slice(0, 32), slice(32, None)):
        assert (loaded - bare)[:, of_one].abs().max() > 1e-3


def states(host, graph, prompt, clip):
    """What a CLIP of a prompt makes of a caption, [tokens, width]."""
    prompt["encode"] = graph.node("CLIPTextEncode", text="a red ring", clip=clip)
    prompt["probe"] = graph.node("ProbeConditioning", conditioning=("encode", 0), file="both.safetensors")
    result = host.run(prompt)
    assert result.status == "success", graph.said(result)
    return load_file(host.base / "output" / "both.safetensors")["text"][0]
