"""A LoRA on the sized families: it learns, goes on exactly, and diffusers computes with its file what we compute."""

import pytest
import torch
from diffusers import KolorsPipeline, StableDiffusionXLPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from trainer_core.adapters import lora
from trainer_core.adapters.lora_config import LoRAConfig
from trainer_core.engine import objective, sampling
from trainer_core.engine.objective_config import ObjectiveConfig
from trainer_core.engine.preview_config import PreviewConfig
from trainer_core.errors import BadInput
from trainer_core.families import registry
from trainer_core.lora_file.inspect import inspect_file
from trainer_core.lora_file.lora import Target
from trainer_core.sampler import load_for_sampling, load_with_prompts

PIPELINES = {"sdxl": StableDiffusionXLPipeline, "kolors": KolorsPipeline}
BLOCKS = {
    "sdxl": ("input_blocks", "middle_block", "output_blocks"),
    "kolors": ("down_blocks", "mid_block", "up_blocks"),
}
SAID = {
    "sdxl": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
    "kolors": ("kolors", "kolors-v1/lora"),
}


@pytest.fixture(params=["sdxl", "kolors"])
def family(request):
    return request.param


@pytest.fixture
def folder(family, request):
    return request.getfixturevalue(f"{family}_base")


@pytest.fixture
def settings(folder):
    size = {"preview.width": 64, "preview.height": 64, "preview.steps": 1}
    return {"base": str(folder), "dataset.resolution": 64, "run.steps": 2, **size}


def test_the_loss_on_a_fixed_batch_halves_within_200_steps(folder):
    model = registry.load(str(folder))
    config = LoRAConfig(rank=16, targets=["all"])
    lora.inject(model.denoiser, config, lora.targeted_modules(model.denoiser, config, model.family.targets), 0)
    numbers = torch.Generator().manual_seed(4)
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=numbers)
    told = model.encoder.stack(model.encoder.encode_captions(["a ring", "cross"]))
    told["time_ids"] = torch.tensor([[96, 64, 0, 8, 64, 64]] * 2)
    drawn, losses = objective.Draw(noise, torch.tensor([300, 700])), []
    optimizer = torch.optim.AdamW(lora.parameters(model.denoiser).values(), lr=5e-3)
    while not losses or (len(losses) < 200 and losses[-1] > 0.5 * losses[0]):
        loss = objective.losses(ObjectiveConfig(), model, model.denoiser, latents, told, drawn).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] <= 0.5 * losses[0]


def test_a_stopped_run_ends_in_the_bits_of_one_that_was_not(train, settings):
    asked = {**settings, "run.steps": 4, "dataset.flip": True, "dataset.caption_dropout": 0.3}
    whole, _ = train(asked, "whole")
    stopped, _ = train(asked, "resumed", stop_after=2)
    assert (stopped.status, stopped.step) == ("stopped", 2)
    resumed, _ = train(asked, "resumed")
    first, second = load_file(whole.lora), load_file(resumed.lora)
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def drawn_by_diffusers(family, folder, file, predict, count):
    """What diffusers' pipeline with the file predicts; all of the file must be in it."""
    pipe = PIPELINES[family].from_pretrained(folder, local_files_only=True)
    pipe.load_lora_weights(file)
    assert sum(name.endswith(".lora_A.default_0") for name, _ in pipe.unet.named_modules()) == count
    model = registry.load(str(folder))
    model.denoiser = pipe.unet.eval()
    return predict(model)


@pytest.mark.parametrize(("targets", "count"), [("attention", 64), ("all", None)])
def test_the_file_loads_whole_in_diffusers_and_gives_the_same_prediction(
    train, settings, family, folder, predict, targets, count, tmp_path
):
    result, _ = train({**settings, "optimizer.learning_rate": 0.02, "adapter.targets": [targets]})
    tensors = load_file(result.lora)
    count = count or len(tensors) // 3
    assert len(tensors) == 3 * count >= 3 * 64
    assert all(any(key.startswith(f"lora_unet_{name}") for name in BLOCKS[family]) for key in tensors if "attn1" in key)
    with safe_open(result.lora, "pt") as file:
        said = file.metadata()
    assert (said["ss_base_model_version"], said["modelspec.architecture"]) == SAID[family]
    ours = predict(load_for_sampling(str(folder), str(result.lora)))
    assert (ours - predict(registry.load(str(folder)))).abs().max() > 0.01
    theirs = drawn_by_diffusers(family, folder, result.lora, predict, count)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
    if targets == "attention":
        save_file(with_halves_swapped(tensors), tmp_path / "swapped.safetensors")
        swapped = drawn_by_diffusers(family, folder, tmp_path / "swapped.safetensors", predict, count)
        assert (swapped - ours).abs().max() > 0.01


def with_halves_swapped(tensors):
    """A and B of square weights in each other's place, which is another product."""
    swapped = dict(tensors)
    for key, down in tensors.items():
        up = key.replace("lora_down", "lora_up")
        if up != key and tensors[up].T.shape == down.shape:
            swapped[key], swapped[up] = tensors[up].T.contiguous(), down.T.contiguous()
    return swapped


OTHERS = [("sdxl", "dora"), ("sdxl", "loha"), ("sdxl", "lokr"), ("sdxl", "oft"), ("kolors", "lokr")]


@pytest.mark.parametrize(("family", "kind"), OTHERS, indirect=["family"])
def test_the_other_kinds_train_and_are_read_back(train, settings, family, folder, predict, kind):
    result, _ = train({**settings, "adapter.kind": kind, "optimizer.learning_rate": 0.02})
    adapted = load_for_sampling(str(folder), str(result.lora))
    found = inspect_file(result.lora, Target.of(unet=registry.load(str(folder)).denoiser))
    readers = {report.reader: report.complete for report in found.readers}
    # No other program knows Kolors, and of these kinds.
    assert readers == (
        {"ComfyUI": True, "diffusers": False, "sd-scripts": False} if family == "sdxl" else {"diffusers": False}
    )
    assert (predict(adapted) - predict(registry.load(str(folder)))).abs().max() > 1e-3


def test_bf16_with_checkpointing_is_near_fp32(train, settings, losses_of):
    exact, _ = train(settings, "fp32")
    rough, _ = train({**settings, "run.precision": "bf16", "run.gradient_checkpointing": True}, "bf16")
    assert losses_of(rough.folder) == pytest.approx(losses_of(exact.folder), rel=0.03)


def test_text_encoders_are_gone_once_captions_are_cached(train, settings, monkeypatch):
    from trainer_core.engine.trainer import Trainer

    held = []
    step = Trainer._step

    def watched(self, micros):
        encoder = self.model.encoder
        held.append(len(encoder.modules))
        return step(self, micros)

    monkeypatch.setattr(Trainer, "_step", watched)
    train(settings, "cached")
    assert held == [1, 1]  # the VAE alone
    held.clear()
    train({**settings, "dataset.cache": "off"}, "live")
    assert len(held) == 2 and all(count > 1 for count in held)


def test_the_command_line_draws_with_it(train, settings, scion, folder, tmp_path):
    result, _ = train({**settings, "run.steps": 1})
    words = ["--base", folder, "--lora", result.lora, "--prompt", "a ring", "--steps", 1, "--out", tmp_path / "a.png"]
    code, said, _ = scion("sample", *words, "--width", 64, "--height", 64, "--device", "cpu")
    assert code == 0 and (tmp_path / "a.png").is_file(), said


def test_text_encoders_are_gone_before_it_draws(folder):
    model, (told, negative) = load_with_prompts(str(folder), None, ["a ring", "cross"], "blurry", device="cpu")
    assert len(model.encoder.modules) == 1 and len(told) == 2
    config = PreviewConfig(steps=1, negative="blurry")
    drawn = sampling.draw(model, ["a ring", "cross"], config, 64, 64, entries=(told, negative))
    whole = sampling.draw(load_for_sampling(str(folder), None, device="cpu"), ["a ring", "cross"], config, 64, 64)
    assert torch.equal(drawn, whole)


@pytest.mark.parametrize("family", ["sdxl"], indirect=True)
def test_keys_that_diffusers_would_leave_out_are_refused_before_the_training(train, settings, tmp_path):
    asked = {**settings, "output.dialect": "kohya", "adapter.targets": ["all"]}
    with pytest.raises(BadInput, match=r"output.dialect: 'kohya', .*load in diffusers; not: lora_unet_add_embedding"):
        train(asked)
    assert not list((tmp_path / "run").glob("*"))
    result, _ = train({**asked, "adapter.targets": ["attention"]})
    assert result.status == "finished"
