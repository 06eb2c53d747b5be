"""A LoRA on Stable Diffusion 3: it learns, goes on exactly, and diffusers computes with its file what we compute."""

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from trainer_core.adapters import lora
from trainer_core.adapters.lora_config import LoRAConfig
from trainer_core.engine import memory_advice, objective
from trainer_core.engine.advice import CommandLine
from trainer_core.engine.events import Warned
from trainer_core.engine.objective_config import ObjectiveConfig
from trainer_core.errors import BadInput
from trainer_core.families import registry
from trainer_core.lora_file.inspect import inspect_file
from trainer_core.lora_file.lora import Target
from trainer_core.sampler import load_for_sampling

SIZE = {"preview.width": 64, "preview.height": 64, "preview.steps": 1}
STREAMS = 2 * 8 - 1
"""Attention layers of two blocks; the last one's text goes nowhere."""


@pytest.fixture
def settings(sd3_base):
    return {"base": str(sd3_base), "dataset.resolution": 64, "run.steps": 2, **SIZE}


def paths_of(denoiser, *targets):
    family = registry.FAMILIES["sd3"]
    return lora.targeted_modules(denoiser, LoRAConfig(targets=list(targets)), family.targets)


def test_presets_name_both_streams_and_diffsynths_modulation_too(sd35_base):
    denoiser = registry.load(str(sd35_base)).denoiser
    attention, wider, diffsynth, every = (
        set(paths_of(denoiser, name)) for name in ("attention", "attention+ff", "diffsynth", "all")
    )
    assert len(attention) == STREAMS + 4 and len(wider - attention) == 2 * 4 - 2 and attention < wider < diffsynth
    assert {path.split(".", 2)[2] for path in diffsynth - wider} == {"norm1.linear", "norm1_context.linear"}
    outside = {path for path in every if not path.startswith("transformer_blocks.")}
    assert diffsynth < every and "pos_embed.proj" in outside and every - outside == diffsynth
    assert set(paths_of(denoiser, "diffsynth")) == set(
        paths_of(denoiser, "attention+ff", "norm1.linear", "norm1_context.linear")
    )


def test_the_loss_on_a_fixed_batch_halves_within_200_steps(sd3_base):
    model = registry.load(str(sd3_base))
    config = LoRAConfig(rank=16, targets=["all"])
    lora.inject(model.denoiser, config, paths_of(model.denoiser, "all"), 0)
    latents, noise = torch.randn(2, 2, 16, 8, 8, generator=torch.Generator().manual_seed(4))
    told = model.encoder.stack(model.encoder.encode_captions(["a ring", "cross"]))
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


def test_min_snr_which_every_preset_has_does_nothing_to_a_flow_and_is_told(train, settings):
    plain, _ = train({**settings, "run.steps": 1}, "plain")
    weighed, watched = train({**settings, "run.steps": 1, "objective.min_snr_gamma": 5}, "weighed", warnings=True)
    told = [event.message for event in watched.of(Warned)]
    assert "objective.min_snr_gamma: 5 does nothing here: Stable Diffusion 3 is a flow" in " ".join(told)
    first, second = load_file(plain.lora), load_file(weighed.lora)
    assert all(torch.equal(first[key], second[key]) for key in first)


def drawn_by_diffusers(folder, file, predict):
    """What diffusers' pipeline with the file predicts; all of the file must be in it."""
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, local_files_only=True)
    pipe.load_lora_weights(file)
    held = sum(name.endswith(".lora_A.default_0") for name, _ in pipe.transformer.named_modules())
    assert held == len(load_file(file)) // 2
    model = registry.load(str(folder))
    model.denoiser = pipe.transformer.eval()
    return predict(model)


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_the_file_loads_whole_in_diffusers_and_gives_the_same_prediction(
    train, settings, sd3_base, predict, targets, tmp_path
):
    # An alpha other than the rank, which is folded into B.
    learned = {"optimizer.learning_rate": 0.02, "adapter.targets": [targets], "adapter.alpha": 2.0}
    result, _ = train({**settings, **learned})
    tensors = load_file(result.lora)
    assert all(key.startswith("transformer.") and ".lora_" in key for key in tensors)
    ours = predict(load_for_sampling(str(sd3_base), str(result.lora)))
    assert (ours - predict(registry.load(str(sd3_base)))).abs().max() > 0.01
    torch.testing.assert_close(drawn_by_diffusers(sd3_base, result.lora, predict), ours, rtol=0, atol=1e-4)
    if targets == "attention":
        assert len(tensors) == 2 * STREAMS
        # The same numbers with an alpha beside them do the same.
        kept, _ = train({**settings, **learned, "output.dialect": "kohya"}, "kohya")
        assert any(key.endswith(".alpha") for key in load_file(kept.lora))
        torch.testing.assert_close(predict(load_for_sampling(str(sd3_base), str(kept.lora))), ours, rtol=0, atol=1e-4)
        swapped = {key: tensors[other_half(key)].T.contiguous() for key in tensors}
        save_file(swapped, tmp_path / "swapped.safetensors")
        assert (drawn_by_diffusers(sd3_base, tmp_path / "swapped.safetensors", predict) - ours).abs().max() > 0.01


def other_half(key):
    return key.replace("lora_A", "lora_B") if "lora_A" in key else key.replace("lora_B", "lora_A")


@pytest.mark.parametrize(
    ("bases", "size", "said"),
    [
        ("sd3_base", "3", ("sd3m", "stable-diffusion-3-medium/lora")),
        ("sd35_base", "3.5 Medium", ("sd3.5m", "stable-diffusion-3.5-medium/lora")),
    ],
)
def test_the_file_says_what_it_is_for(train, settings, request, bases, size, said):
    folder = str(request.getfixturevalue(bases))
    result, _ = train({**settings, "base": folder, "run.steps": 1})
    with safe_open(result.lora, "pt") as file:
        told = file.metadata()
    assert (told["ss_base_model_version"], told["modelspec.architecture"]) == said
    found = inspect_file(result.lora, Target.of(transformer=registry.load(folder).denoiser))
    assert found.family == f"Stable Diffusion {size}" and found.components.keys() == {"transformer"}
    assert {report.reader: report.complete for report in found.readers} == {"ComfyUI": True, "diffusers": True}


@pytest.mark.parametrize("kind", ["dora", "lokr"])
def test_relatives_are_written_in_the_keys_that_comfyui_reads(train, settings, sd3_base, predict, kind):
    result, _ = train({**settings, "adapter.kind": kind, "optimizer.learning_rate": 0.02})
    assert all(key.startswith("lora_transformer_transformer_blocks_") for key in load_file(result.lora))
    found = inspect_file(result.lora, Target.of(transformer=registry.load(str(sd3_base)).denoiser))
    assert {report.reader: report.complete for report in found.readers} == {"ComfyUI": True, "diffusers": False}
    adapted = load_for_sampling(str(sd3_base), str(result.lora))
    assert (predict(adapted) - predict(registry.load(str(sd3_base)))).abs().max() > 1e-3


def test_bf16_with_checkpointing_is_near_fp32(train, settings, losses_of):
    exact, _ = train(settings, "fp32")
    rough, _ = train({**settings, "run.precision": "bf16", "run.gradient_checkpointing": True}, "bf16")
    assert losses_of(rough.folder) == pytest.approx(losses_of(exact.folder), rel=0.03)


def test_t5_computes_in_the_precision_that_is_asked_for_and_another_is_another_run(train, settings, tmp_path):
    settings |= {"run.steps": 1, "dataset.cache": "disk", "dataset.cache_path": str(tmp_path / "cache")}
    plain, _ = train(settings, "plain")
    rough, _ = train({**settings, "run.text_encoder_precision": "int8"}, "int8")
    first, second = load_file(plain.lora), load_file(rough.lora)
    assert any(not torch.equal(first[key], second[key]) for key in first)
    with pytest.raises(BadInput, match="holds another run .*text_encoder_precision"):
        train(settings, "int8")


def test_text_encoders_that_would_learn_are_refused_by_the_familys_name(train, settings):
    with pytest.raises(BadInput, match="Stable Diffusion 3"):
        train({**settings, "adapter.text_encoder": "on"})


def test_the_command_line_trains_and_draws(scion, sd3_base, pictures, tmp_path):
    sizes = [["--set", f"{name}={value}"] for name, value in {**SIZE, "dataset.resolution": 64}.items()]
    asked = [
        "--base",
        sd3_base,
        "--dataset",
        pictures,
        "--out",
        tmp_path / "run",
        "--set",
        "run.steps=1",
        *sum(sizes, []),
    ]
    code, said, told = scion("train", *asked, "--set", "run.device=cpu", "--set", "output.name=it")
    assert code == 0, told
    words = ["--base", sd3_base, "--lora", tmp_path / "run" / "it.safetensors", "--prompt", "a ring", "--steps", 1]
    code, said, told = scion("sample", *words, "--out", "a.png", "--width", 64, "--height", 64, "--device", "cpu")
    assert code == 0 and (tmp_path / "a.png").is_file(), told


@pytest.mark.parametrize("precision, named", [("auto", True), ("int8", False)])
def test_a_device_too_small_for_t5_is_told_of_eight_bits(sd3_base, make_recipe, precision, named):
    model = registry.load(str(sd3_base))
    # As heavy beside the transformer as the released one is.
    model.encoder.t5.model.shared = torch.nn.Embedding(40_000, 112)
    asked = make_recipe({"run.text_encoder_precision": precision})
    advice = memory_advice.encoding(asked, model, None, "fp32", torch.device("cuda"), CommandLine())
    assert ("run.text_encoder_precision=int8 (now auto)" in advice.text) == named
