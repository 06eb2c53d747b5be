"""The graph trains on the host's models, draws with what it trained, and leaves the base as it was."""

import json
import random
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer_core import sampler
from trainer_core.assets.judge import judge
from trainer_core.assets.scenes import random_scene

CHECKPOINT = "random-sd15.safetensors"
BASES = ("scion-tiny", CHECKPOINT)
NODES = (
    "ScionLoadTrainingModel",
    "ScionLoadImageCaptionDataset",
    "ScionLoRATrainConfig",
    "ScionTrainLoRA",
    "ScionSaveLoRA",
    "ScionApplyLoRA",
    "ScionSampleTrainingModel",
)
LEFT_OUT = ("lora key not loaded", "NOT LOADED")
STRONG = {"learning_rate": 0.02}
"""So that a few steps show in a picture."""


@pytest.mark.parametrize("name", NODES)
def test_node_is_offered_in_our_category(host, name):
    assert host.object_info(name)["category"] == "Scion"


def test_pack_imports_in_less_than_a_second(host):
    log = host.log()
    assert "IMPORT FAILED" not in log
    [seconds] = re.findall(r"([\d.]+) seconds(?: \(.*\))?: \S*custom_nodes/scion\b", log)
    assert float(seconds) < 1.0


@pytest.mark.parametrize("base", BASES)
def test_what_was_trained_is_applied_drawn_with_and_saved(host, graph, base):
    prompt = graph.training(base, config=STRONG, save=graph.node("ScionSaveLoRA", lora=("train", 0), name="whole"))
    prompt |= graph.sampling("with", base, lora=("train", 0)) | graph.sampling("without", base)
    prompt |= graph.sampling("off", base, lora=("train", 0), strength=0.0)
    result = host.run(prompt)
    run = graph.run_of(host, result)
    assert (run.state["status"], run.state["step"], len(run.losses)) == ("finished", 3, 3)
    pictures = {name: graph.drawn(host, result, name) for name in ("with", "without", "off")}
    assert np.abs(pictures["with"].astype(int) - pictures["without"]).max() > 2
    assert (pictures["off"] == pictures["without"]).all()
    assert (host.base / "models" / "loras" / "whole.safetensors").is_file()
    log = host.log()
    assert not [mark for mark in LEFT_OUT if mark in log]


@pytest.mark.parametrize("base", BASES)
def test_host_computes_with_the_lora_what_the_trainer_computed(host, graph, sd15_checkpoint, base):
    run = graph.run_of(host, host.run(graph.training(base, config=STRONG)))
    source = str(sd15_checkpoint) if base == CHECKPOINT else base
    engine = sampler.load_for_sampling(source, str(run.file), device="cpu", precision="fp32")
    numbers = torch.Generator().manual_seed(5)
    given = {
        "noisy": torch.randn(2, 4, 8, 8, generator=numbers),
        "timesteps": torch.tensor([30, 900]),
        "text": torch.randn(2, 77, engine.denoiser.config.cross_attention_dim, generator=numbers),
    }
    save_file(given, host.base / "input" / "inputs.safetensors")
    answers = {}
    for name, strength in (("trained", 1.0), ("bare", 0.0)):
        prompt = graph.training(base, config=STRONG)
        first = 1 if base == "scion-tiny" else 0
        prompt["apply"] = graph.node(
            "ScionApplyLoRA", model=("base", first), lora=("train", 0), strength_model=strength
        )
        prompt["probe"] = graph.node("ProbeDenoise", model=("apply", 0), file="inputs.safetensors")
        result = host.run(prompt)
        assert result.outputs["probe"]["text"] == ["torch.float32"], graph.said(result)
        answers[name] = load_file(host.base / "output" / "inputs.safetensors")["answer"]
    with torch.no_grad():
        told = {"text": given["text"]}
        expected = engine.family.predict(engine.denoiser, given["noisy"], given["timesteps"], told)
    difference = (answers["trained"] - expected).abs().max()
    print(f"{base}: differs by {difference:.2e} of {expected.abs().max():.2f}")
    assert difference < 1e-4
    # Or a LoRA that does nothing at all would do.
    assert (answers["bare"] - expected).abs().max() > 1e-2


def digests(host, graph, base):
    prompt = graph.training(base)
    first = 1 if base == "scion-tiny" else 0
    links = {part: ("base", first + place) for place, part in enumerate(("model", "clip", "vae"))}
    result = host.run({"base": prompt["base"], "probe": graph.node("ProbeWeights", **links)})
    assert result.status == "success", graph.said(result)
    return json.loads(result.outputs["probe"]["text"][0])


def finish(host, graph, base):
    graph.run_of(host, host.run(graph.training(base, config={"seed": 41})))


def cancel(host, graph, base):
    with host.listen() as listener:
        prompt = graph.training(base, config={"seed": 42, "steps": 5000})
        prompt_id = host.queue(prompt, listener.client_id)
        listener.wait_for(lambda message: message.type == "scion.step", 60)
        host.interrupt(prompt_id)
        end, _ = listener.until_done(prompt_id)
    assert end.type == "execution_interrupted"


def fail(host, graph, base):
    # Weights that decay by ten times themselves alternate and grow without bound.
    diverging = {"learning_rate": 1.0, "weight_decay": 10.0, "steps": 500}
    result = host.run(graph.training(base, config={"seed": 43, **diverging}))
    assert result.status == "error"
    assert "gradients were not finite" in graph.said(result)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("end", [finish, cancel, fail])
def test_base_is_the_same_to_the_bit_after_training(host, graph, base, end):
    before = digests(host, graph, base)
    end(host, graph, base)
    assert digests(host, graph, base) == before
    assert len(set(before.values())) == 3


@pytest.mark.parametrize("base", BASES)
def test_bare_base_draws_the_same_before_and_after_training(host, graph, base):
    def draw(name):
        result = host.run({"base": graph.training(base)["base"], **graph.sampling(name, base)})
        assert f"{name} sample" not in graph.remembered(result)
        return graph.drawn(host, result, name)

    before = draw("before")
    finish(host, graph, base)
    assert (draw("after") == before).all()


@pytest.mark.parametrize("base", BASES)
def test_sampling_with_a_lora_first_changes_no_training(module_host, graph, base):
    first = module_host.run(graph.training(base, config=STRONG))
    fresh = graph.run_of(module_host, first)
    # The host keeps the patched weights in memory until it needs others.
    sampled = module_host.run(graph.training(base, config=STRONG) | graph.sampling("patched", base, lora=("train", 0)))
    graph.drawn(module_host, sampled, "patched")
    again = graph.run_of(module_host, module_host.run(graph.training(base, config=STRONG, train={"existing": "new"})))
    assert again.folder.name == f"{fresh.folder.name}-2"
    assert again.losses == fresh.losses
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in fresh.tensors.items())


def test_sample_training_model_draws_with_and_without_a_lora(host, graph):
    prompt = graph.training(config=STRONG)
    for name, more in (
        ("with", {"lora": ("train", 0)}),
        ("without", {}),
        ("off", {"lora": ("train", 0), "strength": 0}),
    ):
        asked = {"prompts": "a red ring", "steps": 2, "width": 64, "height": 64, **more}
        prompt[f"{name} sample"] = graph.node("ScionSampleTrainingModel", model=("base", 0), **asked)
        prompt[name] = graph.node("SaveImage", images=(f"{name} sample", 0), filename_prefix=name)
    result = host.run(prompt)
    pictures = {name: graph.drawn(host, result, name) for name in ("with", "without", "off")}
    assert pictures["with"].shape == (64, 64, 3)
    assert np.abs(pictures["with"].astype(int) - pictures["without"]).max() > 2
    assert (pictures["off"] == pictures["without"]).all()


def test_training_model_trains_with_its_own_encoders(host, graph):
    prompt = graph.training(model=("base", 0))
    del prompt["train"]["inputs"]["clip"], prompt["train"]["inputs"]["vae"]
    run = graph.run_of(host, host.run(prompt))
    assert (run.state["status"], run.state["step"]) == ("finished", 3)
    # The same numbers as through the host's encoders, up to rounding.
    through_host = graph.run_of(host, host.run(graph.training()))
    assert run.losses == pytest.approx(through_host.losses, abs=1e-3)


def test_training_goes_on_from_a_lora_of_the_graph(host, graph):
    first = graph.run_of(host, host.run(graph.training(config=STRONG)))
    # A step so small that what it began with is still there.
    prompt = graph.training(config=STRONG)
    prompt["gently"] = graph.node("ScionLoRATrainConfig", **{**graph.CONFIG, "learning_rate": 1e-9, "steps": 1})
    prompt["more"] = graph.node("ScionTrainLoRA", **{**prompt["train"]["inputs"], "start_lora": ("train", 0)})
    prompt["more"]["inputs"]["config"] = ["gently", 0]
    result = host.run(prompt)
    more = graph.run_of(host, result, "more")
    assert more.folder != first.folder
    assert more.tensors.keys() == first.tensors.keys()
    assert max((more.tensors[name] - tensor).abs().max() for name, tensor in first.tensors.items()) < 1e-6


def test_host_draws_what_prompts_say_with_the_built_in_base(host, graph):
    rng = random.Random(7)
    scenes = [random_scene(rng) for _ in range(40)]
    prompt = {"base": graph.training()["base"]}
    for place, scene in enumerate(scenes):
        how = {"sampler": "dpmpp_2m", "steps": 20, "side": 96, "seed": place, "cfg": 3.0}
        prompt |= graph.sampling(f"scene{place}", text=scene.caption, **how)
    result = host.run(prompt)
    right = [judge(graph.drawn(host, result, f"scene{place}")).agrees(scene) for place, scene in enumerate(scenes)]
    print(f"right: {sum(right)} of {len(right)}")
    assert sum(right) >= 0.9 * len(right)


def test_attention_backend_of_the_config_trains_alike_and_one_that_cannot_is_named(host, graph):
    usual = graph.run_of(host, host.run(graph.training()))
    asked = {"config": {"attention_backend": "_native_math"}, "train": {"existing": "new"}}
    other = graph.run_of(host, host.run(graph.training(**asked)))
    assert other.folder != usual.folder
    assert other.losses == pytest.approx(usual.losses, rel=1e-4)
    result = host.run(graph.training(config={"attention_backend": "xformers", "seed": 9}))
    assert result.error["node_id"] == "train"
    assert "attention_backend: xformers computes on cuda, this run trains on cpu; choose auto" in graph.said(result)
