"""A MODEL of HunyuanDiT: it trains in the graph as its folder does on the command line, and computes alike."""

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
VERSIONS = ["1.1", "1.2"]
CHINESE = "一只红色的猫 (cat:1.3)"


@pytest.fixture(scope="module")
def hunyuan_host(make_host, hunyuan_folders, tmp_path_factory):
    own = make_host(tmp_path_factory.mktemp("hunyuan-host"))
    for version, folder in hunyuan_folders.items():
        shutil.copytree(folder, own.base / "input" / version)
    try:
        yield own.start()
    finally:
        own.stop()
        shutil.rmtree(own.base / "models")


def base_of(graph, version):
    return {"base": graph.node("ProbeHunyuan", folder=version)}


def graph_of(graph, version, **how):
    prompt = graph.training(model=("base", 0), clip=("base", 1), vae=("base", 2), **how)
    return prompt | base_of(graph, version)


def given_to_both(family, denoiser, told, file):
    """What a denoiser is told, in a file; the engine's answer to it. The host's sizes have no crop."""
    noisy = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(3))
    told = {**told, "time_ids": torch.tensor([[96, 64, 0, 0, 64, 96], [1023, 771, 0, 0, 64, 96]])}
    given = {"noisy": noisy, "timesteps": torch.tensor([10, 900]), **told}
    save_file({name: tensor.contiguous() for name, tensor in given.items()}, file)
    with torch.no_grad():
        return family.predict(denoiser, noisy, given["timesteps"], told)


def given_by(model, host):
    told = model.encoder.stack(model.encoder.encode_captions([CHINESE, "cross"]))
    return given_to_both(model.family, model.denoiser, told, host.base / "input" / "told.safetensors")


def denoised(host, graph, prompt, model, name):
    probe = graph.node("ProbeDenoiseHunyuan", model=model, file="told.safetensors", out=f"{name}.safetensors")
    result = host.run({**prompt, "probe": probe})
    assert result.status == "success", graph.said(result)
    return load_file(host.base / "output" / f"{name}.safetensors")["answer"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_host_computes_what_the_engine_computes(hunyuan_host, graph, hunyuan_folders, version):
    ours = given_by(registry.load(str(hunyuan_folders[version])), hunyuan_host)
    theirs = denoised(hunyuan_host, graph, base_of(graph, version), ("base", 0), f"bare-{version}")
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


def test_what_the_host_loads_by_itself_computes_alike(hunyuan_host, graph, random_hunyuan, in_hunyuan_names):
    """Of 1.2 it tells depth and width, and takes the rest for that of the released model; 1.1 it tells by the released
    width alone. Text encoders are of the released sizes too, billions of weights, so that this file has none."""
    wide = {"hidden_size": 128, "num_attention_heads": 16, "attention_head_dim": 8, "mlp_ratio": 4.0}
    text = {"cross_attention_dim": 1024, "cross_attention_dim_t5": 2048}
    model = random_hunyuan(False, **wide, **text)
    weights = {f"model.{key}": tensor for key, tensor in in_hunyuan_names(model.state_dict(), model.config).items()}
    save_file(weights, hunyuan_host.base / "models" / "checkpoints" / "hunyuan.safetensors")
    draw = torch.Generator().manual_seed(5)
    told = {"text": torch.randn(2, 77, 1024, generator=draw), "text_t5": torch.randn(2, 256, 2048, generator=draw)}
    told |= {f"{name}_mask": (torch.rand(2, told[name].shape[1], generator=draw) > 0.5).float() for name in list(told)}
    place = hunyuan_host.base / "input" / "told.safetensors"
    ours = given_to_both(registry.FAMILIES["hunyuan_dit"], model, told, place)
    base = {"base": graph.node("CheckpointLoaderSimple", ckpt_name="hunyuan.safetensors")}
    theirs = denoised(hunyuan_host, graph, base, ("base", 0), "detected")
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5 * float(ours.abs().max()))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_trains_as_its_folder_does(hunyuan_host, graph, hunyuan_folders, version, tmp_path):
    in_graph = graph.run_of(hunyuan_host, hunyuan_host.run(graph_of(graph, version, config=STRONG)))
    written = recipe.from_dict(
        {
            "base": str(hunyuan_folders[version]),
            "dataset": {"path": str(hunyuan_host.base / "input" / "things"), "resolution": 64},
            "adapter": {"rank": 4},
            "optimizer": {"learning_rate": 0.02},
            "run": {"steps": 3, "batch_size": 2, "device": "cpu"},
            "preview": {"count": 1, "steps": 1, "width": 64, "height": 64},
            "output": {"dtype": "fp32"},
        }
    )
    by_engine = graph.Run(engine.train(written, tmp_path / "run").folder)
    # Up to rounding: the graph has encoded with the host's text encoders and VAE.
    assert in_graph.losses == pytest.approx(by_engine.losses, rel=1e-4)
    assert in_graph.metadata["ss_base_model_version"] == "hunyuan_dit"
    assert in_graph.tensors.keys() == by_engine.tensors.keys()


def test_captions_longer_than_it_reads_are_cut_as_on_the_command_line(hunyuan_host, graph, hunyuan_folders, tmp_path):
    long = {"caption_prefix": "small red rings on a blue background, " * 20}
    in_graph = graph.run_of(hunyuan_host, hunyuan_host.run(graph_of(graph, "1.2", config=STRONG, dataset=long)))
    written = recipe.from_dict(
        {
            "base": str(hunyuan_folders["1.2"]),
            "dataset": {"path": str(hunyuan_host.base / "input" / "things"), "resolution": 64, **long},
            "adapter": {"rank": 4},
            "optimizer": {"learning_rate": 0.02},
            "run": {"steps": 3, "batch_size": 2, "device": "cpu"},
            "preview": {"count": 1, "steps": 1, "width": 64, "height": 64},
            "output": {"dtype": "fp32"},
        }
    )
    by_engine = graph.Run(engine.train(written, tmp_path / "run").folder)
    assert in_graph.losses == pytest.approx(by_engine.losses, rel=1e-4)
    assert "the first text encoder of HunyuanDiT reads 77 tokens" in hunyuan_host.log()


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_the_host_loads_all_of_the_file_and_computes_what_the_trainer_computed(
    hunyuan_host, graph, hunyuan_folders, targets
):
    before = len(hunyuan_host.log())
    prompt = graph_of(graph, "1.1", config={**STRONG, "targets": targets, "alpha": 2.0})
    prompt["save"] = graph.node("ScionSaveLoRA", lora=("train", 0), name=targets)
    run = graph.run_of(hunyuan_host, hunyuan_host.run(prompt))
    ours = given_by(load_for_sampling(str(hunyuan_folders["1.1"]), str(run.file)), hunyuan_host)
    base = base_of(graph, "1.1")
    loader = graph.node("LoraLoader", model=("base", 0), clip=("base", 1), lora_name=f"{targets}.safetensors")
    loader["inputs"] |= {"strength_model": 1.0, "strength_clip": 1.0}
    theirs = denoised(hunyuan_host, graph, {**base, "loader": loader}, ("loader", 0), targets)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
    bare = denoised(hunyuan_host, graph, base, ("base", 0), f"bare-{targets}")
    assert (theirs - bare).abs().max() > 0.01
    assert not [mark for mark in LEFT_OUT if mark in hunyuan_host.log()[before:]]


def test_a_file_with_its_halves_swapped_computes_something_else(hunyuan_host, graph, hunyuan_folders):
    prompt = graph_of(graph, "1.2", config={**STRONG, "targets": r"re:.*\.to_out\.0"})
    run = graph.run_of(hunyuan_host, hunyuan_host.run(prompt))
    tensors = run.tensors
    for name in {key.split(".")[0] for key in tensors}:
        down, up = (tensors[f"{name}.lora_{half}.weight"] for half in ("down", "up"))
        tensors |= {f"{name}.lora_down.weight": up.T.contiguous(), f"{name}.lora_up.weight": down.T.contiguous()}
    save_file(tensors, hunyuan_host.base / "models" / "loras" / "swapped.safetensors")
    ours = given_by(load_for_sampling(str(hunyuan_folders["1.2"]), str(run.file)), hunyuan_host)
    base = base_of(graph, "1.2")
    loader = graph.node("LoraLoader", model=("base", 0), clip=("base", 1), lora_name="swapped.safetensors")
    loader["inputs"] |= {"strength_model": 1.0, "strength_clip": 1.0}
    theirs = denoised(hunyuan_host, graph, {**base, "loader": loader}, ("loader", 0), "swapped")
    assert (theirs - ours).abs().max() > 1e-3


def test_the_edge_draws_with_it(hunyuan_host, graph):
    prompt = graph_of(graph, "1.2", config=STRONG) | graph.sampling("edge", base="hunyuan", lora=("train", 0))
    prompt |= graph.sampling("bare", base="hunyuan")
    result = hunyuan_host.run(prompt)
    edge, bare = (graph.drawn(hunyuan_host, result, name).astype(int) for name in ("edge", "bare"))
    assert abs(edge - bare).max() > 2


def test_the_clip_of_another_family_is_told(hunyuan_host, graph):
    prompt = graph_of(graph, "1.2") | {
        "other": graph.node("CheckpointLoaderSimple", ckpt_name="random-sd15.safetensors")
    }
    prompt["train"]["inputs"]["clip"] = ["other", 1]
    said = graph.said(hunyuan_host.run(prompt))
    assert "clip: gives no mask of words, which the model takes; wire the CLIP of its checkpoint" in said


def test_a_folder_trains_and_draws_as_a_training_model(hunyuan_host, graph, hunyuan_folders):
    shutil.copytree(hunyuan_folders["1.2"], hunyuan_host.base / "models" / "diffusers" / "small-hunyuan")
    prompt = graph.training(config=STRONG)
    prompt["base"] = graph.node("ScionLoadTrainingModel", base="diffusers/small-hunyuan")
    prompt["train"]["inputs"] |= {"model": ["base", 0]}
    for unused in ("clip", "vae"):
        del prompt["train"]["inputs"][unused]
    drawing = {"prompts": CHINESE, "steps": 1, "width": 64, "height": 64}
    for name, more in (("with", {"lora": ("train", 0)}), ("without", {})):
        prompt[f"{name} drawn"] = graph.node("ScionSampleTrainingModel", model=("base", 0), **drawing, **more)
        prompt[name] = graph.node("SaveImage", images=(f"{name} drawn", 0), filename_prefix=name)
    result = hunyuan_host.run(prompt)
    run = graph.run_of(hunyuan_host, result)
    assert all(key.startswith("lora_unet_blocks_") for key in run.tensors)
    pictures = [graph.drawn(hunyuan_host, result, name).astype(int) for name in ("with", "without")]
    assert abs(pictures[0] - pictures[1]).max() > 2
