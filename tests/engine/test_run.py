"""A run from recipe to LoRA file: its picture is diffusers' picture; its folder and its events explain it."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from trainer_core import recipe
from trainer_core.data.scan import scan_memory
from trainer_core.engine import metrics, run, sampling
from trainer_core.engine.events import Finished, Previewed, Scanned, Started, Steps
from trainer_core.engine.preview_config import PreviewConfig
from trainer_core.engine.run_folder import RunFolder
from trainer_core.errors import BadInput
from trainer_core.families import registry
from trainer_core.sampler import load_for_sampling

PROMPTS = ["a red ring", "thing 1, big"]


# ---- what a LoRA file does elsewhere


def pictures_of(pipe, prompts, seed, guidance, negative="", steps=4, size=64):
    """What diffusers' pipeline draws: float32 [N, H, W, 3] in 0..1, a seed for each prompt."""
    drawn = []
    for number, prompt in enumerate(prompts):
        generator = torch.Generator().manual_seed(seed + number)
        drawn.append(
            pipe(
                prompt,
                negative_prompt=negative,
                guidance_scale=guidance,
                num_inference_steps=steps,
                generator=generator,
                width=size,
                height=size,
                output_type="pt",
            ).images[0]
        )
    return torch.stack(drawn).permute(0, 2, 3, 1)


@pytest.mark.parametrize("changes", [{}, {"adapter.rslora": True, "adapter.alpha": 3.0, "adapter.targets": ["all"]}])
def test_diffusers_draws_with_the_file_what_the_trainer_draws(train, pipeline, base, tmp_path, changes):
    settings = {"run.steps": 15, "optimizer.learning_rate": 2e-2, "run.preview_every": 0}
    looks = {"preview.prompts": PROMPTS, "preview.sampler": "ddim", "preview.steps": 4, "preview.seed": 11}
    result, heard = train({**settings, **looks, **changes})
    # The preview of the last step is the trainer's own picture: drawn with the modules that were trained.
    (preview,) = heard.of(Previewed)

    pipe = pipeline()
    pipe.scheduler = registry.load(str(base)).process.sampler("ddim")
    before = pictures_of(pipe, PROMPTS, 11, 5.0)
    assert (before - preview.pictures).abs().max() > 0.05
    pipe.load_lora_weights(str(result.folder), weight_name=result.lora.name, local_files_only=True)
    after = pictures_of(pipe, PROMPTS, 11, 5.0)
    torch.testing.assert_close(after, preview.pictures, rtol=0, atol=1e-4)

    # So does `scion sample`, from the file.
    config = PreviewConfig(sampler="ddim", steps=4, seed=11)
    ours = sampling.draw(load_for_sampling(str(base), str(result.lora)), PROMPTS, config, 64, 64)
    torch.testing.assert_close(ours, preview.pictures, rtol=0, atol=1e-4)


def swapped(state):
    """The halves exchanged, and transposed so that they still multiply."""
    other = {".lora_down.": ".lora_up.", ".lora_up.": ".lora_down."}
    turned = {}
    for key, value in state.items():
        for half, name in other.items():
            if half in key:
                turned[key.replace(half, name)] = value.T.contiguous()
                break
        else:
            turned[key] = value
    return turned


def test_with_a_and_b_swapped_the_file_loads_nowhere_or_draws_something_else(train, pipeline, base, tmp_path, tensors):
    looks = {"preview.prompts": PROMPTS, "preview.sampler": "ddim", "preview.steps": 4}
    result, heard = train({"run.steps": 15, "optimizer.learning_rate": 2e-2, "adapter.targets": ["attn1"], **looks})
    (preview,) = heard.of(Previewed)
    state = tensors(result)
    plain = {key: value for key, value in state.items()}
    for key in state:
        if ".lora_down." in key:
            up = key.replace(".lora_down.", ".lora_up.")
            plain[key], plain[up] = state[up], state[key]
    save_file(plain, tmp_path / "exchanged.safetensors")
    pipe = pipeline()
    with pytest.raises(RuntimeError, match="size mismatch"):
        pipe.load_lora_weights(str(tmp_path), weight_name="exchanged.safetensors", local_files_only=True)
    with pytest.raises(BadInput, match="do not fit the weight"):
        load_for_sampling(str(base), str(tmp_path / "exchanged.safetensors"))

    # Self-attention is square, so its halves fit transposed too: the file loads, and is another LoRA.
    save_file(swapped(state), tmp_path / "turned.safetensors")
    pipe = pipeline()
    pipe.scheduler = registry.load(str(base)).process.sampler("ddim")
    pipe.load_lora_weights(str(tmp_path), weight_name="turned.safetensors", local_files_only=True)
    assert (pictures_of(pipe, PROMPTS, 0, 5.0) - preview.pictures).abs().max() > 0.01


# ---- what lies in the folder


def test_the_folder_holds_all_that_repeats_and_explains_the_run(train):
    result, heard = train({"run.preview_every": 2, "dataset.holdout": 1, "output.name": "ding"})
    assert result.lora == result.folder / "ding.safetensors"
    written = recipe.read(result.folder / "recipe.json")
    assert written.run.steps == 3 and written.output.name == "ding"
    state = json.loads((result.folder / "run.json").read_text())
    assert (state["status"], state["step"], state["total"], state["lora"]) == ("finished", 3, 3, "ding.safetensors")
    with Image.open(result.folder / "loss.png") as plot:
        assert plot.format == "PNG" and plot.size == (960, 480)
        assert len(plot.convert("RGB").getcolors(2**20)) > 20
    with Image.open(heard.of(Previewed)[0].path) as strip:
        assert strip.width >= 192 and strip.height >= 192
    lines = metrics.read(result.folder / "metrics.jsonl")
    assert [line["step"] for line in lines if "preview" in line] == [2, 3]
    assert [line["step"] for line in lines if "validation" in line] == [3]
    assert all(line["learning_rate"] == 1e-3 and line["seconds"] > 0 for line in lines if "loss" in line)
    assert "5 pictures" in "\n".join(heard.of(Scanned)[0].lines)
    assert [line for line in heard.of(Finished)[0].lines if "ComfyUI" in line]


def test_the_folders_recipe_goes_on_with_the_run(train):
    first, _ = train(stop_after=1)
    result, heard = train(recipe.read(first.folder / "recipe.json"))
    assert heard.of(Started)[0].step == 1
    assert result.status == "finished"


def test_events_tell_where_the_run_is(train):
    _, heard = train({"run.steps": 5, "optimizer.schedule": "linear", "optimizer.learning_rate": 1e-2})
    steps = heard.of(Steps)
    assert [event.first for event in steps] == [1, 2, 3, 4, 5]
    assert [round(event.learning_rate, 6) for event in steps] == [0.01, 0.008, 0.006, 0.004, 0.002]
    # Five pictures in batches of at most two of one bucket: four batches an epoch.
    assert [event.epoch for event in steps] == [0, 0, 0, 0, 1]
    assert all(event.total == 5 and event.seconds_per_step > 0 and event.memory > 2**20 for event in steps)
    assert steps[-1].seconds_left == 0
    assert steps[0].seconds_left == pytest.approx(4 * steps[0].seconds_per_step)
    assert heard.of(Started)[0].precision == "fp32"


def test_epochs_are_counted_in_whole_passes(train):
    result, _ = train({"run.steps": 0, "run.epochs": 2, "run.accumulation": 3})
    assert result.total == result.step == 3  # 2 × 4 batches, three to a step, rounded up


def test_the_written_recipe_names_its_files_from_anywhere(train, base, pictures, tmp_path, monkeypatch):
    first, _ = train({"run.steps": 1}, "first")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, "here")
    shutil.copy(first.lora, "start.safetensors")
    shutil.copytree(pictures, "pictures")
    relative = {"base": "here", "dataset.path": "pictures", "adapter.start_from": "start.safetensors"}
    result, _ = train({**relative, "dataset.cache": "disk", "dataset.cache_path": "encoded"})
    written = recipe.read(result.folder / "recipe.json")
    assert (written.base, written.dataset.path) == (str(tmp_path / "here"), str(tmp_path / "pictures"))
    assert written.adapter.start_from == str(tmp_path / "start.safetensors")
    assert written.dataset.cache_path == str(tmp_path / "encoded")
    monkeypatch.chdir("/")
    _, heard = train(written)
    assert not heard.of(Steps)


def test_the_built_in_base_keeps_its_name_whatever_lies_in_the_folder(make_recipe, tmp_path, monkeypatch):
    from trainer_core.engine.events import Audience

    monkeypatch.chdir(tmp_path)
    (tmp_path / "scion-tiny").mkdir()
    asked = run._Run(make_recipe({"base": "scion-tiny"}), tmp_path / "run", Audience([]), lambda: False, None)
    asked._write_recipe(RunFolder(tmp_path / "run"))
    assert recipe.read(tmp_path / "run" / "recipe.json").base == "scion-tiny"


def test_pictures_in_memory_train_like_files(train, make_recipe, pictures):
    config = make_recipe({"dataset.path": ""}).dataset
    files = sorted(pictures.glob("*.png"))
    texts = [path.with_suffix(".txt").read_text() for path in files]
    scan = scan_memory([Image.open(path) for path in files], texts, config)
    result, heard = train({"dataset.path": "", "output.name": "wired"}, scan=scan)
    assert result.step == 3 and result.lora.name == "wired.safetensors"
    again, heard = train({"dataset.path": "", "output.name": "wired"}, scan=scan)
    assert again == result and not heard.of(Steps)
