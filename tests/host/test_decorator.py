"""A decorator in the graph: the host, with it behind a prompt, computes what the trainer computed; on every family."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer_core.families import flux, sd3
from trainer_core.lora_file.decorator import read_decorator
from trainer_core.sampler import load_for_sampling

PROMPT = "a small red ring"
CONFIG = {"learning_rate": 0.02, "decorator_tokens": 3, "decorator_learning_rate": 0.2}
SMALL = {"preview_width": 64, "preview_height": 64}
PROBES = {"sdxl": "ProbeSDXL", "sd3": "ProbeSD3", "flux": "ProbeFlux", "hunyuan": "ProbeHunyuan"}
CHANNELS = {"sd3": 16, "flux": 16}


@pytest.fixture(scope="module")
def families(sdxl_folder, sd3_folder, flux_folders, hunyuan_folders):
    folders = {"flux": flux_folders["dev"], "hunyuan": hunyuan_folders["1.2"]}
    return {"sdxl": sdxl_folder, "sd3": sd3_folder, **folders}


@pytest.fixture(scope="module")
def own_host(make_host, families, tmp_path_factory):
    own = make_host(tmp_path_factory.mktemp("decorator-host"))
    for name, folder in families.items():
        shutil.copytree(folder, own.base / "input" / name)
    try:
        yield own.start()
    finally:
        own.stop()
        shutil.rmtree(own.base / "models")


def given(host, name=""):
    """What both denoisers are to answer to; written for the host's, which counts the time of Flux from 0 to 1."""
    numbers = torch.Generator().manual_seed(3)
    noisy, times = torch.randn(1, CHANNELS.get(name, 4), 8, 8, generator=numbers), torch.tensor([700.0])
    tensors = {"noisy": noisy, "times": times}
    told = {**tensors, "times": times / 1000} if name == "flux" else tensors
    save_file(told, host.base / "input" / "given.safetensors")
    return tensors


def by_engine(base, run, tensors, on=True, with_it=True):
    """What the trainer's own model answers, with the run's files."""
    lora = str(run.file) if run.state["lora"] else None
    decorator = read_decorator(run.folder / run.state["decorator"]) if with_it else None
    model = load_for_sampling(str(base), lora, device="cpu", decorator=decorator)
    with torch.no_grad():
        told = model.encoder.stack(model.encoder.encode_captions([PROMPT if on else ""]))
        if model.family.sized:
            told["time_ids"] = torch.tensor([[64, 64, 0, 0, 64, 64]])
        times = tensors["times"].long() if model.family.name in ("sd15", "sdxl") else tensors["times"]
        told = model.told_guidance(model.decorated(told, on), 3.5)
        return model.family.predict(model.denoiser, tensors["noisy"], times, told)


def decorated(graph, prompt, model, clip, decorator=("train", 0), **held):
    """Nodes that put a decorator behind both prompts, and ask the denoiser of each."""
    apply = graph.node(
        "ScionApplyDecoratorTokens", positive=("yes", 0), negative=("no", 0), **{"decorator": decorator, **held}
    )
    prompt |= {
        "yes": graph.node("CLIPTextEncode", text=PROMPT, clip=clip),
        "no": graph.node("CLIPTextEncode", text="", clip=clip),
        "decorate": apply,
    }
    for number, name in enumerate(("positive", "negative")):
        asked = {"conditioning": ("decorate", number), "file": "given.safetensors", "out": f"{name}.safetensors"}
        prompt[name] = graph.node("ProbeConditioned", model=model, **asked)
    return prompt


def answers(host, name):
    return list(load_file(host.base / "output" / f"{name}.safetensors").values())


@pytest.mark.parametrize("name", PROBES)
def test_each_family_answers_in_the_host_as_in_the_trainer(own_host, graph, families, name, monkeypatch):
    # Where a checkpoint brings no T5, the host gives the tokens of both CLIPs alone; Flux's it fills up to 256.
    monkeypatch.setattr(sd3, "T5_LENGTH", 0)
    monkeypatch.setattr(flux, "TOKENS", {True: 256, False: 256})
    sampler = {"preview_sampler": "euler"} if name in CHANNELS else {}
    links = {"model": ("base", 0), "clip": ("base", 1), "vae": ("base", 2)}
    prompt = graph.training(config={**CONFIG, **SMALL, **sampler}, train={"name": name}, **links)
    prompt["base"] = graph.node(PROBES[name], folder=name)
    prompt["apply"] = graph.node("ScionApplyLoRA", model=("base", 0), clip=("base", 1), lora=("train", 0))
    tensors = given(own_host, name)
    prompt = decorated(graph, prompt, ("apply", 0), ("base", 1), ("train", 5))
    run = graph.run_of(own_host, own_host.run(prompt))
    for asked, on in (("positive", True), ("negative", False)):
        [theirs] = answers(own_host, asked)
        ours = by_engine(families[name], run, tensors, on)
        torch.testing.assert_close(theirs[:, : ours.shape[1]], ours, rtol=0, atol=1e-4)
        bare = by_engine(families[name], run, tensors, on, with_it=False)
        assert (ours - bare).abs().max() > 1e-3, "the decorator is heard"


@pytest.mark.parametrize("alone", [False, True])
def test_a_decorator_that_was_saved_is_read_again_and_strength_and_range_count(own_host, graph, alone):
    config = {**CONFIG, "decorator_alone": alone}
    training = graph.training(config=config, train={"name": "tiny"})
    save = graph.node("ScionSaveLoRA", lora=("train", 0), decorator=("train", 5), name="saved", existing="overwrite")
    training["apply"] = graph.node("ScionApplyLoRA", model=("base", 1), clip=("base", 2), lora=("train", 0))
    tensors = given(own_host)
    result = own_host.run({**training, "save": save})
    run = graph.run_of(own_host, result)
    assert bool(run.state["lora"]) is not alone
    assert "Decorator saved: saved.decorator.safetensors" in result.outputs["save"]["text"][0]
    ours = by_engine("scion-tiny", run, tensors)

    def asked(**held):
        links = ("apply", 0), ("base", 2)
        result = own_host.run(decorated(graph, dict(training), *links, **held))
        assert result.status == "success", graph.said(result)
        return answers(own_host, "positive")

    [wired] = asked(decorator=("train", 5))
    torch.testing.assert_close(wired, ours, rtol=0, atol=1e-4)
    chosen = {"decorator_file": "saved.decorator.safetensors"}
    prompt = decorated(graph, dict(training), ("apply", 0), ("base", 2), **chosen)
    del prompt["decorate"]["inputs"]["decorator"]
    assert own_host.run(prompt).status == "success"
    torch.testing.assert_close(answers(own_host, "positive")[0], wired, rtol=0, atol=0)
    bare = by_engine("scion-tiny", run, tensors, with_it=False)
    [off] = asked(decorator=("train", 5), strength=0.0)
    torch.testing.assert_close(off, bare, rtol=0, atol=1e-4)
    before, within, after = asked(decorator=("train", 5), start_percent=0.2, end_percent=0.6)
    assert torch.equal(before, off) and torch.equal(after, off) and torch.equal(within, wired)


def test_a_graph_samples_with_it_for_a_part_and_the_engine_s_own_sampler_too(own_host, graph):
    prompt = graph.training(config=CONFIG, train={"name": "tiny"})
    prompt |= graph.sampling("plain") | graph.sampling("part")
    drawing = prompt["part sample"]["inputs"]
    positive, negative = drawing["positive"], drawing["negative"]
    apply = {"positive": tuple(positive), "negative": tuple(negative), "decorator": ("train", 5)}
    prompt["decorate"] = graph.node("ScionApplyDecoratorTokens", end_percent=0.5, **apply)
    drawing |= {"positive": ["decorate", 0], "negative": ["decorate", 1]}
    for name, decorator in (("bare", None), ("with", ("train", 5))):
        held = {"model": ("base", 0), "prompts": PROMPT, "steps": 2}
        node = graph.node("ScionSampleTrainingModel", **held, **({"decorator": decorator} if decorator else {}))
        prompt |= {
            f"draw {name}": node,
            name: graph.node("SaveImage", images=(f"draw {name}", 0), filename_prefix=name),
        }
    result = own_host.run(prompt)
    assert (graph.drawn(own_host, result, "part") != graph.drawn(own_host, result, "plain")).any()
    assert (graph.drawn(own_host, result, "with") != graph.drawn(own_host, result, "bare")).any()


def test_without_a_decorator_what_hangs_on_it_is_blocked_and_says_why(own_host, graph):
    prompt = graph.training(config={"steps": 2}, train={"name": "none"})
    prompt["save"] = graph.node("ScionSaveLoRA", lora=("train", 0), name="plain")
    result = own_host.run(decorated(graph, prompt, ("base", 1), ("base", 2), ("train", 5)))
    assert "decorator: none was trained" in graph.said(result)
    assert "positive" not in result.outputs and result.outputs["save"]["text"] == ["Saved: plain.safetensors"]


def test_a_decorator_of_another_model_is_refused_with_both_widths(own_host, graph):
    prompt = graph.training(config={**CONFIG, "decorator_alone": True}, train={"name": "tiny"})
    prompt["other"] = graph.node("ProbeSDXL", folder="sdxl")
    result = own_host.run(decorated(graph, prompt, ("other", 0), ("other", 1), ("train", 5)))
    assert "its vectors are 128 wide, the text states of this conditioning are" in graph.said(result)
