"""Which MODELs train, and what those that do not are told; prediction types; what captions mean to the host's CLIP."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer_core import recipe
from trainer_core.engine import run as engine
from trainer_core.lora_file.safe_io import read_tensors

CHECKPOINT = "random-sd15.safetensors"
UNET = "model.diffusion_model."


def refused(host, graph, prompt):
    """What TrainLoRA says; no run is begun."""
    before = graph.runs(host)
    result = host.run(prompt)
    assert result.status == "error"
    assert result.error["node_id"] == "train", graph.said(result)
    assert graph.runs(host) == before
    return graph.said(result)


@pytest.fixture(scope="module")
def lora(host, graph):
    """A LoRA in the host's folder, by its listed name."""
    name = "front.safetensors"
    prompt = graph.training(config={"learning_rate": 0.02}, save=graph.node("ScionSaveLoRA", lora=("train", 0)))
    prompt["save"]["inputs"]["name"] = name
    graph.run_of(host, host.run(prompt))
    return name


def behind_a_lora(graph, lora, **train):
    loader = graph.node("LoraLoader", model=("base", 1), clip=("base", 2), lora_name=lora)
    loader["inputs"] |= {"strength_model": 1.0, "strength_clip": 1.0}
    return graph.training(model=("loader", 0), train=train, loader=loader)


def test_model_with_a_lora_is_refused(host, graph, lora):
    said = refused(host, graph, behind_a_lora(graph, lora))
    assert "of its weights are patched (a LoRA is loaded in front of the training)" in said
    assert "Wire the MODEL from before the LoRA loader" in said
    assert "set patched_model to 'bake'" in said


def test_baked_lora_is_part_of_the_base_that_trains(host, graph, lora):
    bare = graph.run_of(host, host.run(graph.training()))
    baked = graph.run_of(host, host.run(behind_a_lora(graph, lora, patched_model="bake")))
    assert baked.state["fingerprint"] != bare.state["fingerprint"]
    # The same noise and pictures; the loss of the first step tells of the base alone.
    assert abs(baked.losses[0] - bare.losses[0]) > 1e-4
    # A strength of nothing bakes nothing.
    prompt = behind_a_lora(graph, lora, patched_model="bake")
    prompt["loader"]["inputs"]["strength_model"] = 1e-9
    assert graph.run_of(host, host.run(prompt)).losses[0] == pytest.approx(bare.losses[0], abs=1e-6)


def test_other_architecture_is_refused_by_name(host, graph):
    bent = graph.node("ProbeBent", model=("base", 1), how="architecture")
    said = refused(host, graph, graph.training(model=("bent", 0), bent=bent))
    assert "model: is of the architecture SDXLRefiner; this version trains SD15" in said
    assert "Load a checkpoint of that family" in said


def test_model_whose_parts_are_replaced_is_refused(host, graph):
    bent = graph.node("ProbeBent", model=("base", 1), how="replaced")
    said = refused(host, graph, graph.training(model=("bent", 0), bent=bent))
    assert "a node has replaced parts of it (diffusion_model.out)" in said


@pytest.fixture(scope="module")
def unet_file(host, sd15_checkpoint):
    """The checkpoint's UNet alone, as `UNETLoader` lists it."""
    folder = host.base / "models" / "diffusion_models"
    folder.mkdir(exist_ok=True)
    state = {name: tensor for name, tensor in load_file(sd15_checkpoint).items() if name.startswith(UNET)}
    save_file({name.removeprefix(UNET): tensor for name, tensor in state.items()}, folder / "unet.safetensors")
    yield "unet.safetensors"
    (folder / "unet.safetensors").unlink()


def test_diffusion_model_loaded_as_fp8_is_refused(host, graph, unet_file):
    loader = graph.node("UNETLoader", unet_name=unet_file, weight_dtype="fp8_e4m3fn")
    said = refused(host, graph, graph.training(CHECKPOINT, model=("unet", 0), unet=loader))
    assert "model: is quantised" in said
    assert "float8_e4m3fn" in said
    assert "Load it in full: the fp16, bf16 or fp32 file, with weight_dtype 'default'" in said


def test_diffusion_model_loaded_alone_trains_as_the_checkpoint_does(host, graph, unet_file):
    loader = graph.node("UNETLoader", unet_name=unet_file, weight_dtype="default")
    alone = graph.run_of(host, host.run(graph.training(CHECKPOINT, model=("unet", 0), unet=loader)))
    whole = graph.run_of(host, host.run(graph.training(CHECKPOINT)))
    assert alone.state["fingerprint"] == whole.state["fingerprint"]


@pytest.mark.parametrize("missing", [("clip",), ("vae",), ("clip", "vae")], ids="+".join)
def test_missing_encoder_is_named(host, graph, missing):
    prompt = graph.training()
    for name in missing:
        del prompt["train"]["inputs"][name]
    said = refused(host, graph, prompt)
    assert f"{' and '.join(missing)}: not wired" in said
    assert "wire them to Train LoRA" in said


def test_clip_of_another_model_is_refused(host, graph):
    tiny = graph.node("ScionLoadTrainingModel", base="scion-tiny")
    said = refused(host, graph, graph.training(CHECKPOINT, clip=("tiny", 2), tiny=tiny))
    assert "clip: gives text states of width" in said
    assert "the model takes 768; wire the CLIP of its checkpoint" in said


def test_vae_of_another_model_is_refused(host, graph):
    wide = graph.node("ProbeWideVae", vae=("base", 3))
    said = refused(host, graph, graph.training(vae=("wide", 0), wide=wide))
    assert "vae: gives 16 channels, the model takes 4; wire the VAE of its checkpoint" in said


def resampled(graph, base, sampling, zsnr=False, **more):
    first = 1 if base == "scion-tiny" else 0
    patch = graph.node("ModelSamplingDiscrete", model=("base", first), sampling=sampling, zsnr=zsnr)
    return graph.training(base, model=("patch", 0), patch=patch, **more)


@pytest.mark.parametrize("sampling, name", [("lcm", "LCM"), ("x0", "X0")])
def test_way_of_sampling_without_a_training_is_refused(host, graph, sampling, name):
    said = refused(host, graph, resampled(graph, "scion-tiny", sampling))
    assert "model: samples by" in said
    assert name in said
    assert "Wire the MODEL from before the ModelSampling node" in said


def test_epsilon_by_a_node_is_the_same_run_as_without_it(host, graph):
    bare = graph.run_of(host, host.run(graph.training()))
    patched = graph.run_of(host, host.run(resampled(graph, "scion-tiny", "eps")))
    assert patched.folder == bare.folder
    assert bare.metadata["modelspec.prediction_type"] == "epsilon"


def test_zero_terminal_snr_alone_is_another_run(host, graph):
    runs = [graph.run_of(host, host.run(resampled(graph, "scion-tiny", "v_prediction", zsnr))) for zsnr in (0, 1)]
    assert runs[0].state["fingerprint"] != runs[1].state["fingerprint"]
    assert [run.metadata["modelspec.prediction_type"] for run in runs] == ["v", "v"]


def test_v_prediction_by_a_node_is_the_engines_on_a_file_that_is_marked_so(host, graph, write_checkpoint, tmp_path):
    # The same weights; the host itself does not obey these marks for Stable Diffusion 1.
    marked = write_checkpoint(tmp_path / "marked.safetensors", v_pred=True, ztsnr=True)
    try:
        written = recipe.from_dict(
            {
                "base": str(marked),
                "dataset": {"path": str(host.base / "input" / "things"), "resolution": 64},
                "adapter": {"rank": 4},
                "optimizer": {"learning_rate": 1e-3},
                "run": {"steps": 3, "batch_size": 2, "device": "cpu"},
                "preview": {"count": 1, "steps": 1},
                "output": {"dtype": "fp32"},
            }
        )
        by_engine = graph.Run(engine.train(written, tmp_path / "run").folder)
    finally:
        marked.unlink()
    patched = graph.run_of(host, host.run(resampled(graph, CHECKPOINT, "v_prediction", True)))
    epsilon = graph.run_of(host, host.run(graph.training(CHECKPOINT)))
    assert patched.metadata["modelspec.prediction_type"] == "v"
    assert patched.folder != epsilon.folder
    # Up to rounding: the engine has encoded with its own CLIP and VAE.
    assert patched.losses == pytest.approx(by_engine.losses, rel=1e-4)
    assert abs(patched.losses[0] - epsilon.losses[0]) > 0.01


@pytest.fixture
def captioned(host, pictures):
    """Puts a dataset with these captions into the host's input folder; returns its name."""
    made = []

    def put(name, *captions):
        folder = host.base / "input" / name
        folder.mkdir()
        made.append(folder)
        for place, caption in enumerate(captions):
            shutil.copyfile(pictures / f"{place}.png", folder / f"{place}.png")
            (folder / f"{place}.txt").write_text(caption, encoding="utf-8")
        return name

    yield put
    for folder in made:
        shutil.rmtree(folder)


def test_long_captions_train_to_their_last_word(host, graph, captioned):
    start = " ".join(["a small red ring on a blue background and"] * 20)
    losses = []
    for place, end in enumerate(("a large green star", "nothing")):
        folder = captioned(f"long{place}", *[f"{start} {end}"] * 2)
        losses.append(graph.run_of(host, host.run(graph.training(folder=folder))).losses)
    assert losses[0] != losses[1]


def test_parentheses_in_captions_are_literal(host, graph, captioned):
    told = {"plain": "a (red) ball", "weighted": "a (red:1.5) ball"}
    folder = captioned("parentheses", *told.values())
    graph.run_of(host, host.run(graph.training(folder=folder, dataset={"cache": "disk", "caption_weights": "literal"})))
    tensors = [read_tensors(path)[0] for path in (host.base / "user" / "scion" / "encoded").rglob("*.safetensors")]
    kept = [entry["text"] for entry in tensors if "text" in entry]
    assert kept

    def encoded(text):
        prompt = {"base": graph.training()["base"], "text": graph.node("CLIPTextEncode", text=text, clip=("base", 2))}
        prompt["probe"] = graph.node("ProbeConditioning", conditioning=("text", 0), file="text.safetensors")
        assert host.run(prompt).status == "success"
        return load_file(host.base / "output" / "text.safetensors")["text"][0]

    def is_kept(text):
        return any(entry.shape == text.shape and torch.allclose(entry, text, atol=1e-4) for entry in kept)

    for caption in told.values():
        assert is_kept(encoded(caption.replace("(", r"\(").replace(")", r"\)"))), caption
        # What the host makes of the same characters in a prompt.
        assert not is_kept(encoded(caption)), caption


def base_in_recipe(run):
    return json.loads((run.folder / "recipe.json").read_text(encoding="utf-8"))["base"]


def test_recipe_names_the_checkpoint_and_says_what_its_name_does_not_give(host, graph, lora):
    plain = graph.run_of(host, host.run(graph.training()))
    baked = graph.run_of(host, host.run(behind_a_lora(graph, lora, patched_model="bake")))
    assert base_in_recipe(plain) == "scion-tiny"
    assert base_in_recipe(baked) == "scion-tiny with its LoRAs baked in"


def test_textual_inversion_in_a_caption_is_refused(host, graph, tmp_path, pictures):
    folder = host.base / "input" / "inverted"
    shutil.copytree(pictures, folder)
    (folder / "0.txt").write_text("a thing, embedding:style of a thing", encoding="utf-8")
    said = refused(host, graph, graph.training(folder="inverted"))
    assert "holds 'embedding:'" in said and "leave it out" in said


def test_weights_that_a_sampled_lora_was_written_into_are_read_without_it(host, graph, lora):
    """The patch stays in the host's weights after sampling; who reads them must take what is kept aside."""
    free = graph.run_of(host, host.run(graph.training(config={"seed": 77})))
    sampled = behind_a_lora(graph, lora, patched_model="bake")
    assert host.run(sampled).status == "success"
    host.free(unload=False)
    again = graph.run_of(host, host.run(graph.training(config={"seed": 77})))
    assert again.folder == free.folder
