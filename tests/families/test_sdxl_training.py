"""A LoRA on Stable Diffusion XL: it learns, goes on exactly, and diffusers computes with its file what we compute."""

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from trainer_core.lora_file.inspect import inspect_file
from trainer_core.lora_file.lora import Target
from trainer_core.sampler import load_for_sampling

TARGETS = {"attention": 40, "attention+ff": 52}


@pytest.fixture(scope="module")
def settings(sdxl_base):
    return {"base": str(sdxl_base), "dataset.resolution": 64, "preview.width": 64, "preview.height": 64}


def test_the_loss_on_a_fixed_batch_halves(train, settings, one_picture, losses_of):
    given = {"dataset.path": str(one_picture), "run.batch_size": 1, "run.steps": 120, "optimizer.learning_rate": 5e-3}
    fixed = {"objective.timestep_min": 300, "objective.timestep_max": 300, "adapter.rank": 16}
    result, _ = train({**settings, **given, **fixed, "run.preview_every": 0})
    losses = losses_of(result.folder)
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_a_stopped_run_ends_in_the_bits_of_one_that_was_not(train, settings):
    asked = {**settings, "run.steps": 4, "dataset.flip": True, "dataset.caption_dropout": 0.3}
    whole, _ = train(asked, "whole")
    stopped, _ = train(asked, "resumed", stop_after=2)
    assert (stopped.status, stopped.step) == ("stopped", 2)
    resumed, _ = train(asked, "resumed")
    first, second = load_file(whole.lora), load_file(resumed.lora)
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("targets", TARGETS)
def test_the_file_loads_whole_in_diffusers_and_gives_the_same_prediction(
    train, settings, sdxl_base, predict, targets, tmp_path
):
    strong = {"optimizer.learning_rate": 0.02, "adapter.targets": [targets], "preview.count": 1}
    result, _ = train({**settings, **strong})
    tensors = load_file(result.lora)
    assert len(tensors) == 3 * TARGETS[targets]
    assert all(key.startswith(("lora_unet_input_", "lora_unet_middle_", "lora_unet_output_")) for key in tensors)
    with safe_open(result.lora, "pt") as file:
        said = file.metadata()
    assert said["ss_base_model_version"] == "sdxl_base_v1-0"
    assert said["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    ours = predict(load_for_sampling(str(sdxl_base), str(result.lora)))
    bare = predict(load_for_sampling(str(sdxl_base), None))
    assert (ours - bare).abs().max() > 0.01

    def theirs(path):
        pipe = StableDiffusionXLPipeline.from_pretrained(sdxl_base, local_files_only=True, add_watermarker=False)
        pipe.load_lora_weights(path)
        loaded = {name for name, _ in pipe.unet.named_modules() if name.endswith(".lora_A.default_0")}
        assert len(loaded) == TARGETS[targets]
        model = load_for_sampling(str(sdxl_base), None)
        model.denoiser = pipe.unet.eval()
        return predict(model)

    torch.testing.assert_close(theirs(result.lora), ours, rtol=0, atol=1e-4)
    if targets == "attention":
        swapped = {
            key.replace("lora_down", "x").replace("lora_up", "lora_down").replace("x", "lora_up"): tensor
            if key.endswith("alpha")
            else tensor.T.contiguous()
            for key, tensor in tensors.items()
        }
        square = {key for key, tensor in swapped.items() if tensor.shape == tensors.get(key, tensor).shape}
        save_file(
            {key: swapped[key] if key in square else tensors[key] for key in tensors}, tmp_path / "ab.safetensors"
        )
        assert (theirs(tmp_path / "ab.safetensors") - ours).abs().max() > 0.01


def test_the_kinds_of_adapters_train_and_are_read_back(train, settings, sdxl_base, predict):
    bare = predict(load_for_sampling(str(sdxl_base), None))
    for kind in ("dora", "loha", "lokr", "oft"):
        changes = {"adapter.kind": kind, "optimizer.learning_rate": 0.02, "run.steps": 2, "preview.count": 0}
        result, _ = train({**settings, **changes}, kind)
        found = inspect_file(result.lora, Target.of(unet=load_for_sampling(str(sdxl_base), None).denoiser))
        by_comfyui = next(report for report in found.readers if report.reader == "ComfyUI")
        assert by_comfyui.complete, by_comfyui
        assert (predict(load_for_sampling(str(sdxl_base), str(result.lora))) - bare).abs().max() > 1e-3


def test_it_trains_in_half_precisions_with_checkpointing(train, settings, losses_of):
    exact, _ = train({**settings, "run.steps": 2}, "fp32")
    for precision in ("bf16", "fp16"):
        changes = {"run.precision": precision, "run.gradient_checkpointing": True, "run.steps": 2}
        rough, _ = train({**settings, **changes}, precision)
        assert losses_of(rough.folder) == pytest.approx(losses_of(exact.folder), rel=0.02)


def test_the_command_line_draws_with_it(train, settings, scion, sdxl_base, tmp_path):
    result, _ = train({**settings, "run.steps": 1})
    words = [
        "--base",
        sdxl_base,
        "--lora",
        result.lora,
        "--prompt",
        "a ring",
        "--steps",
        1,
        "--out",
        tmp_path / "a.png",
    ]
    code, said, _ = scion("sample", *words, "--width", 64, "--height", 64, "--device", "cpu")
    assert code == 0 and (tmp_path / "a.png").is_file(), said
