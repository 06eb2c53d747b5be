"""A LoRA on HunyuanDiT: it learns, goes on exactly, and its file does to fused weights what it has learnt."""

import json

import peft
import pytest
import torch
from diffusers import HunyuanDiTPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from trainer_core.adapters import lora
from trainer_core.adapters.lora_config import LoRAConfig
from trainer_core.engine import objective
from trainer_core.engine.events import Finished
from trainer_core.engine.objective_config import ObjectiveConfig
from trainer_core.errors import BadInput
from trainer_core.families import registry
from trainer_core.families.hunyuan_checkpoint import transformer_of
from trainer_core.lora_file.inspect import inspect_file
from trainer_core.lora_file.lora import Target
from trainer_core.sampler import load_for_sampling

CHINESE = "一只红色的猫在蓝色的背景上"
OUT = r"re:.*\.to_out\.0"


@pytest.fixture
def settings(older_hunyuan_base):
    size = {"preview.width": 64, "preview.height": 64, "preview.steps": 1}
    return {"base": str(older_hunyuan_base), "dataset.resolution": 64, "run.steps": 2, **size}


@pytest.mark.parametrize("version", ["hunyuan_base", "older_hunyuan_base"])
def test_the_loss_on_a_fixed_batch_halves_within_200_steps(request, version):
    model = registry.load(str(request.getfixturevalue(version)))
    config = LoRAConfig(rank=16, targets=["all"])
    lora.inject(model.denoiser, config, lora.targeted_modules(model.denoiser, config, model.family.targets), 0)
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    told = model.encoder.stack(model.encoder.encode_captions([CHINESE, "cross"]))
    told["time_ids"] = torch.tensor([[96, 64, 0, 8, 64, 64]] * 2)
    drawn, losses = objective.Draw(noise, torch.tensor([300, 700])), []
    optimizer = torch.optim.AdamW(lora.parameters(model.denoiser).values(), lr=5e-3)
    while not losses or (len(losses) < 200 and losses[-1] > 0.5 * losses[0]):
        loss = objective.losses(ObjectiveConfig(), model, model.denoiser, latents, told, drawn).mean()
        loss.backward()
        assert all(parameter.grad is not None for parameter in lora.parameters(model.denoiser).values())
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


def with_file(folder, tensors, in_hunyuan_names):
    """The base with a file's pairs added to its original weights, as ComfyUI adds them."""
    model = registry.load(str(folder))
    config = model.denoiser.config
    weights = {key: tensor.clone() for key, tensor in in_hunyuan_names(model.denoiser.state_dict(), config).items()}
    names = {"lora_unet_" + key.removesuffix(".weight").replace(".", "_"): key for key in weights}
    for key, down in tensors.items():
        if key.endswith(".lora_down.weight"):
            name = key.removesuffix(".lora_down.weight")
            weight, up = weights[names[name]], tensors[f"{name}.lora_up.weight"]
            scale = tensors[f"{name}.alpha"] / down.shape[0]
            weight += scale * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    model.denoiser.load_state_dict(transformer_of(weights, "the sum")[1])
    return model


@pytest.mark.parametrize("targets", ["attention", "attention+ff", "all"])
def test_the_file_does_to_the_original_weights_what_was_learnt(
    train, settings, older_hunyuan_base, predict, in_hunyuan_names, targets
):
    asked = {**settings, "optimizer.learning_rate": 0.02, "adapter.targets": [targets], "adapter.alpha": 3.0}
    result, _ = train(asked)
    tensors = load_file(result.lora)
    assert all(key.startswith("lora_unet_") and "attn1_to_" not in key for key in tensors)
    down, up = (tensors[f"lora_unet_blocks_1_attn1_Wqkv.lora_{half}.weight"] for half in ("down", "up"))
    assert down.shape == (12, 32) and up.shape == (96, 12) and up[:32, 4:].abs().max() == 0
    assert tensors["lora_unet_blocks_1_attn1_Wqkv.alpha"] == 9
    ours = predict(load_for_sampling(str(older_hunyuan_base), str(result.lora)))
    assert (ours - predict(registry.load(str(older_hunyuan_base)))).abs().max() > 0.01
    theirs = predict(with_file(older_hunyuan_base, tensors, in_hunyuan_names))
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
    found = inspect_file(result.lora, result.target)
    assert found.family == "HunyuanDiT" and found.dialects == ["kohya-ldm"]
    assert [(report.reader, report.complete) for report in found.readers] == [("ComfyUI", True)]
    with safe_open(result.lora, "pt") as file:
        said = file.metadata()
    assert (said["ss_base_model_version"], said["modelspec.architecture"]) == ("hunyuan_dit", "hunyuan-dit/lora")
    if targets == "attention":
        swapped = predict(with_file(older_hunyuan_base, with_halves_swapped(tensors), in_hunyuan_names))
        assert (swapped - ours).abs().max() > 0.01


def with_halves_swapped(tensors):
    """A and B of square weights in each other's place, which is another product."""
    swapped = dict(tensors)
    for key, down in tensors.items():
        up = key.replace("lora_down", "lora_up")
        if up != key and tensors[up].T.shape == down.shape:
            swapped[key], swapped[up] = tensors[up].T.contiguous(), down.T.contiguous()
    return swapped


def by_peft(folder, adapter, predict):
    """What diffusers' pipeline predicts once peft has put its folder in."""
    pipe = HunyuanDiTPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None)
    pipe.transformer = peft.PeftModel.from_pretrained(pipe.transformer, str(adapter)).eval()
    model = registry.load(str(folder))
    model.denoiser = pipe.transformer
    assert (
        pipe("a ring", num_inference_steps=1, output_type="latent", use_resolution_binning=False)
        .images.isfinite()
        .all()
    )
    return predict(model)


def test_peft_puts_the_folder_beside_it_into_diffusers_pipeline(train, settings, older_hunyuan_base, predict):
    asked = {**settings, "optimizer.learning_rate": 0.02, "adapter.targets": ["all"], "adapter.rslora": True}
    result, heard = train(asked)
    beside = result.folder / "things-peft"
    told = json.loads((beside / "adapter_config.json").read_text())
    assert told["r"] == 4 and told["lora_alpha"] == pytest.approx(8)
    ours = predict(load_for_sampling(str(older_hunyuan_base), str(result.lora)))
    torch.testing.assert_close(by_peft(older_hunyuan_base, beside, predict), ours, rtol=0, atol=1e-4)
    again = predict(load_for_sampling(str(older_hunyuan_base), str(beside / "adapter_model.safetensors")))
    torch.testing.assert_close(again, ours, rtol=0, atol=1e-4)
    weights = load_file(beside / "adapter_model.safetensors")
    name = "base_model.model.blocks.0.attn1.to_q.lora_{}.weight"
    down, up = weights[name.format("A")], weights[name.format("B")]
    save_file(weights | {name.format("A"): up.T.contiguous(), name.format("B"): down.T.contiguous()},
              beside / "adapter_model.safetensors")  # fmt: skip
    assert (by_peft(older_hunyuan_base, beside, predict) - ours).abs().max() > 1e-3
    (finished,) = heard.of(Finished)
    assert "54 of 54 modules load in peft, from things-peft" in finished.lines


def test_a_run_begins_with_what_another_has_learnt(train, settings):
    """A file's pairs come apart as they were put together: the second run's first loss is the first's next."""
    result, _ = train({**settings, "optimizer.learning_rate": 0.02, "adapter.targets": [r"re:.*\.(to_q|to_v)"]})
    begun, _ = train(
        {**settings, "adapter.targets": [r"re:.*\.(to_q|to_v)"], "adapter.start_from": str(result.lora),
         "optimizer.learning_rate": 1e-12}, "second",
    )  # fmt: skip
    first, second = load_file(result.lora), load_file(begun.lora)
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[key], second[key], atol=1e-6) for key in first)


def test_the_makers_own_files_are_read(hunyuan_base, predict, tmp_path):
    """peft's names of the original model, with pairs on the fused weights, as Tencent's HYDiT-LoRA has them."""
    draw = torch.Generator().manual_seed(0)
    name = "base_model.model.blocks.1.attn1.Wqkv.lora_{}.weight"
    down, up = torch.randn(2, 32, generator=draw), torch.randn(96, 2, generator=draw)
    save_file({name.format("A"): down, name.format("B"): up}, tmp_path / "jade.safetensors")
    model, plain = (
        load_for_sampling(str(hunyuan_base), str(tmp_path / "jade.safetensors")),
        registry.load(str(hunyuan_base)),
    )
    attention = plain.denoiser.blocks[1].attn1
    for part, rows in zip((attention.to_q, attention.to_k, attention.to_v), (up @ down).chunk(3), strict=True):
        part.weight.data += rows
    torch.testing.assert_close(predict(model), predict(plain), rtol=0, atol=1e-5)
    assert inspect_file(tmp_path / "jade.safetensors", Target.of(transformer=plain.denoiser)).readers[0].complete


def test_relatives_of_lora_are_refused_where_weights_are_stacked_and_train_elsewhere(train, settings, tmp_path):
    with pytest.raises(
        BadInput, match=r"adapter.kind: lokr, but the dialect 'kohya-ldm' has one weight for transformer"
    ):
        train({**settings, "adapter.kind": "lokr"})
    assert not list((tmp_path / "run").glob("*"))
    result, _ = train({**settings, "adapter.kind": "lokr", "adapter.targets": [OUT]})
    assert [(report.reader, report.complete) for report in inspect_file(result.lora, result.target).readers] == [
        ("ComfyUI", True)
    ]
    assert not (result.folder / "things-peft").exists()


def test_bf16_with_checkpointing_is_near_fp32(train, settings, losses_of):
    exact, _ = train(settings, "fp32")
    rough, _ = train({**settings, "run.precision": "bf16", "run.gradient_checkpointing": True}, "bf16")
    assert losses_of(rough.folder) == pytest.approx(losses_of(exact.folder), rel=0.03)


def test_the_command_line_trains_and_draws_with_it(scion, settings, pictures, tmp_path):
    words = [
        ("--set", f"{name}={value}") for name, value in {**settings, "run.device": "cpu"}.items() if name != "base"
    ]
    base = ("--base", settings["base"], "--dataset", pictures, "--out", tmp_path / "run")
    code, said, errors = scion("train", *base, *(word for pair in words for word in pair))
    assert code == 0 and "load in ComfyUI" in said and "load in peft, from things-peft" in said, said + errors
    given = ["--base", settings["base"], "--lora", tmp_path / "run" / "things.safetensors", "--prompt", CHINESE]
    size = ["--width", 64, "--height", 96, "--device", "cpu"]
    code, said, _ = scion("sample", *given, "--steps", 1, "--out", tmp_path / "a.png", *size)
    assert code == 0 and (tmp_path / "a.png").is_file(), said
