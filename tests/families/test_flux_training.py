"""A LoRA on FLUX.1: it learns, goes on exactly, and diffusers computes with its file what we compute."""

import dataclasses

import pytest
import torch
from diffusers import FluxPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from trainer_core.adapters import lora
from trainer_core.adapters.lora_config import LoRAConfig
from trainer_core.engine import objective
from trainer_core.engine.memory_estimate import Rehearsal
from trainer_core.engine.objective_config import ObjectiveConfig
from trainer_core.families import registry
from trainer_core.lora_file.dialects import read_lora
from trainer_core.lora_file.inspect import inspect_file
from trainer_core.lora_file.lora import Target

COUNTS = {"attention": 19, "attention+ff": 29, "diffsynth": 34, "all": None}
"""Linear layers of two double blocks and a single one: 8 and 3 of attention, 4 and 2 of the feed-forward, 2 and 1 of
the modulation."""


@pytest.fixture(scope="module")
def dev(flux_base):
    """Loaded once, as its vocabularies take longer than a run; each test leaves it as it was."""
    return registry.load(str(flux_base))


@pytest.fixture(scope="module")
def schnell(schnell_base):
    return registry.load(str(schnell_base))


@pytest.fixture(scope="module")
def pipe(flux_base):
    return FluxPipeline.from_pretrained(flux_base, local_files_only=True)


@pytest.fixture
def go(train, one_picture):
    """Trains on a single picture, two steps if nothing else is said."""
    size = {"preview.width": 64, "preview.height": 64, "preview.steps": 1, "preview.sampler": "euler"}
    settings = {"dataset.path": str(one_picture), "dataset.resolution": 64, "run.steps": 2, "run.batch_size": 1, **size}
    return lambda model, folder="run", changes=(), **given: train(
        {**settings, **dict(changes)}, folder, model=model, **given
    )[0]


@torch.no_grad()
def predicted(model):
    noisy = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(3))
    told = model.encoder.stack(model.encoder.encode_captions(["a ring", "cross"]))
    return model.family.predict(model.denoiser, noisy, torch.tensor([10.0, 900.0]), model.told_guidance(told, 1.0))


def test_the_loss_on_a_fixed_batch_halves_within_200_steps(dev):
    config = LoRAConfig(rank=16, targets=["all"])
    lora.inject(dev.denoiser, config, lora.targeted_modules(dev.denoiser, config, dev.family.targets), 0)
    latents, noise = torch.randn(2, 2, 16, 8, 8, generator=torch.Generator().manual_seed(4))
    told = dev.encoder.stack(dev.encoder.encode_captions(["a ring", "cross"]))
    told["text"] = told["text"][:, :32]  # the rest is padding
    drawn, losses = objective.Draw(noise, torch.tensor([300, 700])), []
    optimizer = torch.optim.AdamW(lora.parameters(dev.denoiser).values(), lr=5e-3)
    while not losses or (len(losses) < 200 and losses[-1] > 0.5 * losses[0]):
        loss = objective.losses(ObjectiveConfig(), dev, dev.denoiser, latents, told, drawn).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    lora.remove(dev.denoiser)
    assert losses[-1] <= 0.5 * losses[0]


def test_a_stopped_run_ends_in_the_bits_of_one_that_was_not(go, dev):
    asked = {"dataset.flip": True, "dataset.caption_dropout": 0.3, "adapter.targets": ["to_q"]}
    whole = go(dev, "whole", asked)
    stopped = go(dev, "resumed", asked, stop_after=1)
    assert (stopped.status, stopped.step) == ("stopped", 1)
    first, second = load_file(whole.lora), load_file(go(dev, "resumed", asked).lora)
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def by_diffusers(pipe, dev, file, count):
    """What diffusers' pipeline with the file predicts; all of the file must be in it."""
    pipe.load_lora_weights(file)
    assert sum(name.endswith(".lora_A.default_0") for name, _ in pipe.transformer.named_modules()) == count
    found = predicted(dataclasses.replace(dev, denoiser=pipe.transformer.eval()))
    pipe.unload_lora_weights()
    return found


def with_lora(model, file):
    """What the model predicts with a file in it."""
    lora.apply(model.denoiser, of_file(model, file))
    found = predicted(model)
    lora.remove(model.denoiser)
    return found


def of_file(model, file):
    return read_lora(file, Target.of(transformer=model.denoiser))[0]["transformer"]


@pytest.mark.parametrize("targets", COUNTS)
def test_the_file_loads_whole_in_diffusers_and_gives_the_same_prediction(go, dev, pipe, targets, tmp_path):
    strong = {"optimizer.learning_rate": 0.02, "adapter.alpha": 8.0}
    result = go(dev, changes={**strong, "adapter.targets": [targets]})
    tensors = load_file(result.lora)
    count = COUNTS[targets] or len(tensors) // 2
    assert len(tensors) == 2 * count >= 2 * 19
    assert all(key.startswith("transformer.") and key.endswith(("lora_A.weight", "lora_B.weight")) for key in tensors)
    with safe_open(result.lora, "pt") as file:
        said = file.metadata()
    assert (said["ss_base_model_version"], said["modelspec.architecture"]) == ("flux1", "flux-1-dev/lora")
    ours = with_lora(dev, result.lora)
    assert (ours - predicted(dev)).abs().max() > 0.01
    torch.testing.assert_close(by_diffusers(pipe, dev, result.lora, count), ours, rtol=0, atol=1e-4)
    if targets == "attention":
        save_file(with_halves_swapped(tensors), tmp_path / "swapped.safetensors")
        swapped = by_diffusers(pipe, dev, tmp_path / "swapped.safetensors", count)
        assert (swapped - ours).abs().max() > 0.01


def with_halves_swapped(tensors):
    """A and B of square weights in each other's place, which is another product."""
    swapped = dict(tensors)
    for key, down in tensors.items():
        up = key.replace("lora_A", "lora_B")
        if up != key and tensors[up].T.shape == down.shape:
            swapped[key], swapped[up] = tensors[up].T.contiguous(), down.T.contiguous()
    return swapped


def test_blocks_are_chosen_by_a_pattern(go, dev):
    result = go(dev, changes={"adapter.targets": [r"re:transformer_blocks\.1\.attn\.to_[qk]"], "run.steps": 1})
    assert {key.rpartition(".lora_")[0] for key in load_file(result.lora)} == {
        "transformer.transformer_blocks.1.attn.to_q",
        "transformer.transformer_blocks.1.attn.to_k",
    }


@pytest.mark.parametrize("kind", ["dora", "lokr"])
def test_relatives_train_and_are_read_back_and_load_in_comfyui(go, dev, kind):
    asked = {"adapter.kind": kind, "optimizer.learning_rate": 0.02, "adapter.targets": ["to_q"], "run.steps": 1}
    result = go(dev, changes={"output.dialect": "kohya", **asked})
    found = inspect_file(result.lora, Target.of(transformer=dev.denoiser))
    assert {report.reader: report.complete for report in found.readers} == {"ComfyUI": True, "diffusers": False}
    assert (with_lora(dev, result.lora) - predicted(dev)).abs().max() > 1e-4


def test_bf16_with_checkpointing_is_near_fp32(go, dev, flux_base, losses_of):
    exact = go(dev, "fp32")
    other = {"base": str(flux_base), "run.precision": "bf16", "run.gradient_checkpointing": True}
    assert losses_of(go(None, "bf16", other).folder) == pytest.approx(losses_of(exact.folder), rel=0.03)


def test_an_assistant_helps_schnell(go, schnell, losses_of):
    """On as if it were in the weights, and in no file."""
    asked = {"optimizer.learning_rate": 0.02}
    first = go(schnell, "first", asked)
    helped = go(schnell, "helped", {**asked, "adapter.assistant": str(first.lora)})
    before = {path: schnell.denoiser.get_submodule(path).weight.clone() for path in of_file(schnell, first.lora)}
    for path, pair in of_file(schnell, first.lora).items():
        schnell.denoiser.get_submodule(path).weight.data.add_(pair.delta())
    merged = go(schnell, "merged", asked)
    for path, weight in before.items():
        schnell.denoiser.get_submodule(path).weight.data.copy_(weight)
    assert losses_of(helped.folder) == pytest.approx(losses_of(merged.folder), rel=1e-4)
    assert abs(losses_of(helped.folder)[0] - losses_of(first.folder)[0]) > 1e-3
    assert load_file(helped.lora).keys() == load_file(first.lora).keys()


def test_the_command_line_draws_with_it(go, dev, scion, flux_base, tmp_path):
    result = go(dev, changes={"run.steps": 1})
    words = [
        "--base",
        flux_base,
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


def test_the_memory_of_a_step_is_rehearsed(dev, schnell):
    for model in (dev, schnell):
        config = LoRAConfig(rank=4)
        lora.inject(model.denoiser, config, lora.targeted_modules(model.denoiser, config, model.family.targets), 0)
        told = model.encoder.stack(model.encoder.encode_captions(["a ring"]))
        rehearsal = Rehearsal(model, ObjectiveConfig(), torch.device("cpu"))
        whole, saved = (rehearsal.step((1, 16, 8, 8), told, torch.float32, on).passing for on in (False, True))
        lora.remove(model.denoiser)
        assert 0 < saved < 0.7 * whole
