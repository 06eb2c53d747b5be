"""LoRA files that the graph saves, and LoRAs that go between our nodes and the host's own."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

STRONG = {"learning_rate": 0.02}
LEFT_OUT = ("lora key not loaded", "NOT LOADED")


def saved(host, graph, name="", lora=("train", 0), config=STRONG, **how):
    """Trains, saves, and returns the file and what the node said of it."""
    more = {"existing": how.pop("existing")} if "existing" in how else {}
    more |= {"dialect": how.pop("dialect")} if "dialect" in how else {}
    save = graph.node("ScionSaveLoRA", lora=lora, name=name, **more)
    result = host.run(graph.training(config=config, save=save, **how))
    assert result.status == "success", graph.said(result)
    [text] = result.outputs["save"]["text"]
    return host.base / "models" / "loras" / text.partition(": ")[2], text.partition(": ")[0]


def header(path):
    with safe_open(path, "pt") as file:
        return list(file.keys()), file.metadata()


def test_saved_lora_is_listed_without_a_restart_and_loads_whole(host, graph):
    path, text = saved(host, graph, "listed")
    assert (path.name, text, path.is_file()) == ("listed.safetensors", "Saved", True)
    [options, *_] = host.object_info("LoraLoader")["input"]["required"]["lora_name"]
    assert "listed.safetensors" in options
    loader = graph.node("LoraLoader", model=("base", 1), clip=("base", 2), lora_name="listed.safetensors")
    loader["inputs"] |= {"strength_model": 1.0, "strength_clip": 1.0}
    prompt = graph.training(config=STRONG, loader=loader)
    prompt |= graph.sampling("file", model=("loader", 0)) | graph.sampling("edge", lora=("train", 0))
    prompt |= graph.sampling("bare")
    result = host.run(prompt)
    assert (graph.drawn(host, result, "file") == graph.drawn(host, result, "edge")).all()
    assert np.abs(graph.drawn(host, result, "file").astype(int) - graph.drawn(host, result, "bare")).max() > 2
    log = host.log()
    assert not [mark for mark in LEFT_OUT if mark in log]


def test_saving_the_same_again_writes_nothing(host, graph):
    path, _ = saved(host, graph, "same")
    written = path.stat().st_mtime_ns
    # Another setting of the node, so that the host does not simply remember.
    again, text = saved(host, graph, "same", existing="error")
    assert (again, text, path.stat().st_mtime_ns) == (path, "Already there", written)
    assert not path.with_name("same-2.safetensors").exists()


def test_another_lora_of_the_name_gets_a_number(host, graph):
    first, _ = saved(host, graph, "numbered")
    held = first.read_bytes()
    second, text = saved(host, graph, "numbered", config={**STRONG, "seed": 5})
    assert (second.name, text) == ("numbered-2.safetensors", "Saved")
    assert first.read_bytes() == held
    assert second.read_bytes() != held


def test_overwrite_replaces_another_lora(host, graph):
    path, _ = saved(host, graph, "replaced")
    held = load_file(path)
    again, _ = saved(host, graph, "replaced", config={**STRONG, "seed": 5}, existing="overwrite")
    assert again == path
    now = load_file(path)
    assert [name for name in held if not torch.equal(held[name], now[name])]
    assert not path.with_name("replaced-2.safetensors").exists()


def test_error_refuses_another_lora_of_the_name(host, graph):
    path, _ = saved(host, graph, "kept")
    held = path.read_bytes()
    save = graph.node("ScionSaveLoRA", lora=("train", 0), name="kept", existing="error")
    result = host.run(graph.training(config={**STRONG, "seed": 5}, save=save))
    assert result.error["node_id"] == "save"
    assert "is another LoRA already; choose another name, or set existing to 'add a number'" in graph.said(result)
    assert path.read_bytes() == held


def test_subfolder_in_the_name_is_made(host, graph):
    path, _ = saved(host, graph, "mine/deep.safetensors")
    assert path == host.base / "models" / "loras" / "mine" / "deep.safetensors"
    assert path.is_file()


def test_empty_name_is_the_runs(host, graph):
    path, _ = saved(host, graph, "", train={"name": "from-the-run"})
    assert path.name == "from-the-run.safetensors"


@pytest.fixture(scope="module")
def plain(host, graph):
    """The node of a LORA_MODEL that is no more than a dict of tensors, of which the base has no layer."""
    save_file({"lora_unet_nothing.lora_up.weight": torch.zeros(2, 2)}, host.base / "input" / "plain.safetensors")
    return graph.node("ProbePlainLora", file="plain.safetensors")


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/tmp/out", "a\\..\\..\\out", "C:/out", "nul\x00", "..."])
def test_name_that_leads_out_is_refused_before_anything_runs(host, graph, plain, name):
    result = host.run({"plain": plain, "save": graph.node("ScionSaveLoRA", lora=("plain", 0), name=name)})
    assert (result.status, result.prompt_id) == ("error", None)
    assert f"name: {name!r} cannot be a file's name" in graph.said(result)
    assert not list(host.base.rglob("out*.safetensors"))


def test_linked_name_that_leads_out_is_refused_too(host, graph):
    save = graph.node("ScionSaveLoRA", lora=("train", 0), name=("n", 0))
    result = host.run(graph.training(save=save, n=graph.node("ProbeName", name="../out")))
    assert result.error["node_id"] == "save"
    assert not list(host.base.rglob("out*.safetensors"))


def test_metadata_tells_of_the_training_and_hashes_fit(host, graph):
    path, _ = saved(host, graph, "described", train={"name": "described"})
    _, metadata = header(path)
    assert metadata["ss_base_model_version"] == "sd_v1"
    assert json.loads(metadata["ss_tag_frequency"])["things"]["red"] == 5
    assert (metadata["ss_network_dim"], metadata["ss_steps"]) == ("4", "3")
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert metadata["modelspec.title"] == metadata["ss_output_name"] == "described"
    assert metadata["modelspec.prediction_type"] == "epsilon"
    content = path.read_bytes()
    digest = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    assert metadata["sshs_model_hash"] == digest
    assert metadata["modelspec.hash_sha256"] == f"0x{digest}"
    assert str(host.base) not in json.dumps(metadata)


def test_dialect_of_diffusers_renames_keys_alone(host, graph):
    path, _ = saved(host, graph, "as-it-is")
    other, _ = saved(host, graph, "for-diffusers", dialect="diffusers")
    (kohya, _), (diffusers, metadata) = header(path), header(other)
    assert all(name.startswith("lora_unet_") for name in kohya)
    assert all(name.startswith("unet.") and ".lora_" in name for name in diffusers)
    content = other.read_bytes()
    digest = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    assert metadata["sshs_model_hash"] == digest

    def ups(path, ending):
        found = [tensor for name, tensor in load_file(path).items() if name.endswith(ending)]
        return sorted(float(tensor.double().square().sum()) for tensor in found)

    assert ups(path, ".lora_down.weight") == pytest.approx(ups(other, ".lora_A.weight"), rel=1e-6)


def test_dialect_needs_a_lora_of_ours(host, graph, plain):
    save = graph.node("ScionSaveLoRA", lora=("plain", 0), name="plain", dialect="diffusers")
    result = host.run({"plain": plain, "save": save})
    assert result.error["node_id"] == "save"
    assert "only a LoRA that comes from Train LoRA (Scion) can be named anew" in graph.said(result)


def test_hosts_own_loader_takes_our_lora(host, graph):
    loader = graph.node("LoraModelLoader", model=("base", 1), lora=("train", 0), strength_model=1.0, bypass=False)
    prompt = graph.training(config=STRONG, loader=loader) | graph.sampling("ours", lora=("train", 0))
    result = host.run(prompt | graph.sampling("theirs", model=("loader", 0)))
    assert (graph.drawn(host, result, "ours") == graph.drawn(host, result, "theirs")).all()


def test_hosts_own_save_and_loss_graph_take_what_we_give(host, graph):
    prompt = graph.training(config=STRONG, save=graph.node("SaveLoRA", lora=("train", 0), prefix="loras/theirs"))
    prompt["plot"] = graph.node("LossGraphNode", loss=("train", 1), filename_prefix="loss")
    result = host.run(prompt)
    run = graph.run_of(host, result)
    [file] = (host.base / "output" / "loras").glob("theirs*.safetensors")
    written = load_file(file)
    assert written.keys() == run.tensors.keys()
    assert all(torch.equal(tensor, written[name]) for name, tensor in run.tensors.items())
    assert [path.suffix for path in host.files(result) if "loss" in path.name or "ComfyUI" in path.name] == [".png"]


def test_our_nodes_take_what_the_hosts_own_node_trained(host, graph):
    encode = {
        "picture": graph.node("LoadImage", image="things/0.png"),
        "latent": graph.node("VAEEncode", pixels=("picture", 0), vae=("base", 3)),
        "text": graph.node("CLIPTextEncode", text="thing", clip=("base", 2)),
    }
    settings = {"batch_size": 1, "grad_accumulation_steps": 1, "steps": 3, "learning_rate": 0.02, "rank": 4, "seed": 0}
    settings |= {"optimizer": "AdamW", "loss_function": "MSE", "training_dtype": "fp32", "lora_dtype": "fp32"}
    settings |= {"quantized_backward": False, "algorithm": "LoRA", "gradient_checkpointing": False}
    settings |= {"checkpoint_depth": 1, "offloading": False, "existing_lora": "[None]", "bucket_mode": False}
    links = {"model": ("base", 1), "latents": ("latent", 0), "positive": ("text", 0)}
    train = graph.node("TrainLoraNode", **links, **settings, bypass_mode=False)
    prompt = {"base": graph.training()["base"], **encode, "theirs": train}
    prompt["save"] = graph.node("ScionSaveLoRA", lora=("theirs", 0), name="of-the-host")
    result = host.run(prompt | graph.sampling("with", lora=("theirs", 0)) | graph.sampling("without"))
    pictures = [graph.drawn(host, result, name).astype(int) for name in ("with", "without")]
    assert np.abs(pictures[0] - pictures[1]).max() > 2
    keys, _ = header(host.base / "models" / "loras" / "of-the-host.safetensors")
    assert keys
    log = host.log()
    assert not [mark for mark in LEFT_OUT if mark in log]


def test_lora_of_another_model_is_refused(host, graph, plain):
    result = host.run({"base": graph.training()["base"], "plain": plain, **graph.sampling(lora=("plain", 0))})
    assert result.error["node_id"] == "drawn apply"
    assert "lora: none of its 1 keys (lora_unet_nothing.lora_up.weight, …) fits this model" in graph.said(result)
