"""Text encoders that learn: captions encoded in the step, adapters in both parts, and their way into the file."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer_core.adapters import lora
from trainer_core.adapters.lora_config import LoRAConfig
from trainer_core.engine import learning_parts, memory_advice, metrics, objective
from trainer_core.engine.events import Previewed, Started, Warned
from trainer_core.engine.memory_estimate import TrainerMemory
from trainer_core.engine.objective_config import ObjectiveConfig
from trainer_core.engine.optimizer_config import OptimizerConfig
from trainer_core.engine.optimizers import build_optimizer
from trainer_core.errors import BadInput
from trainer_core.families import registry
from trainer_core.lora_file.inspect import inspect_file
from trainer_core.lora_file.save import save_lora
from trainer_core.recipe import Recipe, with_setting
from trainer_core.sampler import load_for_sampling

BOTH = {"adapter.text_encoder": "on"}
ONLY = {"adapter.text_encoder": "only"}
LONG = " ".join(["ring"] * 160)


def text_parameters(trainer):
    return {name: p for name, p in trainer.parameters.items() if name.startswith("te.")}


def copies(parameters):
    return {name: p.detach().clone() for name, p in parameters.items()}


def changed(before, parameters):
    return {name for name, p in parameters.items() if not torch.equal(before[name], p)}


@torch.no_grad()
def test_tokens_encoded_as_a_batch_are_what_captions_are_encoded_to_one_by_one(model):
    encoder, captions = model.encoder, ["a red ring", LONG, ""]
    told = encoder.encode_tokens(encoder.stack_tokens(encoder.tokens(captions)))
    expected = encoder.stack(encoder.encode_captions(captions))
    assert told["text"].shape == expected["text"].shape == (3, 77 * 3, 32)
    torch.testing.assert_close(told["text"], expected["text"], rtol=0, atol=1e-5)
    # One alone has the very bits, so that what older versions have cached stays true.
    alone = encoder.encode_tokens(encoder.stack_tokens(encoder.tokens([LONG])))["text"]
    assert torch.equal(alone[0], encoder.encode_captions([LONG])[0]["text"])
    assert torch.equal(alone[0][:77], encoder.text_encoders["te"](encoder.tokens([LONG])[0]["te"].view(-1, 77))[0][0])


def test_a_run_begins_as_one_whose_text_encoder_is_frozen_and_both_parts_learn(make_trainer):
    settings = {"run.steps": 2, "dataset.shuffle_tags": True, "dataset.caption_dropout": 0.3}
    frozen = make_trainer(settings, fill=0).go()
    trainer = make_trainer({**settings, **BOTH}, fill=0)
    assert trainer.dataset.tokenised and not trainer.dataset.needs_encoder
    assert len(trainer.dataset._cache._entries) == 5  # the pictures, and no caption
    before = copies(trainer.parameters)
    trainer.go()
    # Each caption is shuffled and dropped by the same dice.
    assert trainer.losses[0] == pytest.approx(frozen.losses[0], abs=1e-6)
    assert trainer.batch.captions == frozen.batch.captions
    assert {name for name in before if not name.startswith("te.")} == set(frozen.parameters)
    assert len(text_parameters(trainer)) == 2 * 6 * 2  # two layers, six modules, A and B
    assert {name for name in before if ".lora_B." in name} <= changed(before, trainer.parameters)
    for gradients in trainer.gradients:
        assert all(gradients[name].norm() > 0 for name in before if ".lora_B." in name)


def test_the_loss_on_a_fixed_batch_falls_when_only_the_text_encoder_learns(model):
    config = LoRAConfig(rank=16, text_encoder="only")
    # A random base hardly listens to its captions.
    for name, parameter in model.denoiser.named_parameters():
        parameter.data *= 6 if "attn2.to_v" in name or "attn2.to_out" in name else 1
    learning_parts.put(learning_parts.planned(model, config), 0, {})
    numbers = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 8, generator=numbers)
    drawn = objective.Draw(torch.randn(latents.shape, generator=numbers), torch.tensor([900, 950]))
    tokens = model.encoder.stack_tokens(model.encoder.tokens(["a red ring", "a blue cross"]))
    parameters = learning_parts.parameters(model)
    optimizer = build_optimizer(OptimizerConfig(learning_rate=1e-2), list(parameters.values()))
    losses = []
    for _ in range(60):
        told = model.encoder.encode_tokens(tokens)
        losses.append(objective.losses(ObjectiveConfig(), model, model.denoiser, latents, told, drawn).mean())
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(name.startswith("te.") for name in parameters)
    assert not any(p.requires_grad for p in model.denoiser.parameters())
    assert losses[-1] < 0.65 * losses[0], f"from {losses[0]:.3f} to {losses[-1]:.3f}"


TORTURE = {
    **BOTH,
    "run.steps": 8,
    "run.accumulation": 2,
    "run.ema_decay": 0.9,
    "adapter.dropout": 0.2,
    "adapter.text_encoder_rank": 3,
    "adapter.text_encoder_stop_step": 6,
    "optimizer.text_encoder_learning_rate": 3e-3,
    "dataset.caption_dropout": 0.3,
    "dataset.shuffle_tags": True,
    "dataset.holdout": 1,
}


def test_a_stopped_run_with_a_learning_text_encoder_ends_in_the_same_bits(train, same):
    straight, _ = train({**TORTURE, "dataset.workers": 0}, "straight")
    busy = {"run.preview_every": 2, "run.validate_every": 1, "run.checkpoint_every": 1}
    stopped, _ = train({**TORTURE, **busy, "dataset.workers": 2}, "stopped", stop_after=4)
    assert not same(straight, stopped)
    resumed, heard = train({**TORTURE, **busy, "dataset.workers": 1}, "stopped")
    assert heard.of(Started)[0].step == 4
    assert same(straight, resumed)
    losses = [
        [line["loss"] for line in metrics.read(result.folder / "metrics.jsonl") if "loss" in line]
        for result in (straight, resumed)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 8
    names = set(load_file(resumed.folder / "checkpoints" / "step-00000008" / "adapter.safetensors"))
    assert any(name.startswith("te.encoder.layers.0.self_attn.q_proj.lora_A") for name in names)
    assert any(name.startswith("down_blocks.") for name in names)


def test_after_its_last_step_the_text_encoder_stays_and_the_denoiser_learns_on(make_trainer):
    settings = {**BOTH, "run.steps": 4, "adapter.text_encoder_stop_step": 2, "adapter.dropout": 0.5}
    trainer = make_trainer(settings)
    trainer._update = super(type(trainer), trainer)._update  # without what the test's keeps of gradients
    seen = []

    def watch():
        seen.append(copies(trainer.parameters))
        return False

    trainer.go(watch)
    assert len(seen) == 5
    text = set(text_parameters(trainer))
    for before, after, learns in zip(seen[:-1], seen[1:], [True, True, False, False], strict=True):
        moved = changed(before, after)
        assert (text <= moved) is learns and (text & moved == set()) is not learns
        assert set(after) - text <= moved


def test_text_encoders_have_a_learning_rate_of_their_own_and_parts_of_them_too(make_trainer):
    rates = {"optimizer.text_encoder_learning_rate": 5e-5, "optimizer.part_rates": ["fc1=7e-5", "attn1=2e-4"]}
    trainer = make_trainer({**BOTH, **rates})
    found = {}
    names = {parameter: name for name, parameter in trainer.parameters.items()}
    for group in trainer.optimizer.optimizer.param_groups:
        found |= {names[parameter]: float(group["lr"]) for parameter in group["params"]}
    for name, rate in found.items():
        expected = 1e-3
        if name.startswith("te."):
            expected = 7e-5 if ".fc1." in name else 5e-5
        elif ".attn1." in name:
            expected = 2e-4
        assert rate == expected, name


def test_gradient_checkpointing_reaches_the_text_encoder_and_changes_no_bit(make_trainer):
    settings = {**BOTH, "run.steps": 2, "adapter.dropout": 0.2}
    plain, calls = make_trainer(settings).go(), []
    trainer = make_trainer({**settings, "run.gradient_checkpointing": True})
    (module,) = learning_parts.learning(trainer.model).values()
    module.encoder.layers[0].layer_norm1.register_forward_pre_hook(lambda *_: calls.append(1))
    trainer.go()
    assert len(calls) == 2 * 2
    assert trainer.losses == plain.losses
    assert not changed(plain.parameters, trainer.parameters)


def test_both_parts_learn_in_bf16(make_trainer):
    exact = make_trainer({**BOTH, "run.steps": 2}).go()
    trainer = make_trainer({**BOTH, "run.steps": 2}, precision="bf16")
    before = copies(trainer.parameters)
    trainer.go()
    (module,) = learning_parts.learning(trainer.model).values()
    assert {p.dtype for name, p in module.named_parameters() if "lora_" not in name} == {torch.bfloat16}
    assert {p.dtype for p in trainer.parameters.values()} == {torch.float32}
    assert set(before) == changed(before, trainer.parameters)
    for ours, theirs in zip(trainer.losses, exact.losses, strict=True):
        assert ours != theirs and ours == pytest.approx(theirs, rel=0.02)


def test_previews_and_validation_use_the_encoder_as_it_has_learned(make_trainer):
    trainer = make_trainer({**ONLY, "dataset.holdout": 1}, fill=0)
    (module,) = learning_parts.learning(trainer.model).values()
    entry, loss = trainer.modules.entries(["a red ring", LONG])[0]["text"], trainer.validate()
    assert entry.shape == (77 * 3, 32)
    torch.testing.assert_close(entry[:77], trainer.model.encoder.encode_captions(["a red ring"])[0]["text"])
    with torch.no_grad():
        for name, parameter in lora.parameters(module).items():
            parameter.add_(0.2 if ".lora_B." in name else 0)
    learned = trainer.modules.entries(["a red ring", LONG])[0]["text"]
    assert (learned - entry)[:77].abs().max() > 0.01 and (learned - entry)[77:].abs().max() > 0.01
    assert trainer.validate() != loss


def test_the_memory_of_a_step_counts_the_text_encoder(make_trainer):
    from .test_memory_estimate import SQUARE, measured

    plain, trainer = make_trainer(SQUARE), make_trainer({**SQUARE, **BOTH})
    without = measured(plain)
    (module,) = learning_parts.learning(trainer.model).values()
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    real = measured(trainer) + weights
    memory = TrainerMemory(trainer)
    assert memory.step().total == pytest.approx(real, rel=0.1)
    assert real - without > weights
    off, usual = memory.step(text=False), TrainerMemory(plain).step()
    assert off.total == pytest.approx(without, rel=0.1)
    assert (off.weights, off.trained) == (usual.weights, pytest.approx(usual.trained, rel=1e-3))


def test_whoever_has_no_memory_for_it_is_told_what_its_learning_takes(make_trainer):
    own = {"adapter.text_encoder_rank": 2, "adapter.text_encoder_stop_step": 5}
    trainer = make_trainer({**BOTH, **own, "optimizer.text_encoder_learning_rate": 1e-4, "run.steps": 1}).go()
    remedies = memory_advice._step_remedies(trainer)
    (off,) = [remedy for remedy in remedies if "adapter.text_encoder" in remedy.settings]
    assert off.settings == {
        "adapter.text_encoder": "off",
        "adapter.text_encoder_rank": "0",
        "adapter.text_encoder_stop_step": "0",
        "optimizer.text_encoder_learning_rate": "none",
    }
    changed = trainer.recipe
    for name, text in off.settings.items():
        changed = with_setting(changed, name, text)
    assert changed.validate() == []
    memory = TrainerMemory(trainer)
    assert memory.step().total > 1.05 * memory.step(**off.rehearsed).total


# ---- files


def trained(train, folder="run", **more):
    settings = {**BOTH, "run.steps": 4, "optimizer.learning_rate": 2e-2, "adapter.text_encoder_rank": 2, **more}
    return train(settings, folder)


@torch.no_grad()
def embedding(text_encoder, ids):
    return text_encoder(ids).last_hidden_state


def swapped(tensors):
    """A file in which A and B of the text encoder's square modules have changed places."""
    made = dict(tensors)
    for key in tensors:
        if key.startswith("lora_te_") and "_attn_" in key and key.endswith("lora_down.weight"):
            other = key.replace("lora_down", "lora_up")
            made[key], made[other] = tensors[other].T.contiguous(), tensors[key].T.contiguous()
    return made


@pytest.mark.parametrize("dialect", ["kohya", "diffusers"])
def test_the_file_gives_diffusers_pipeline_the_embeddings_that_were_trained(train, base, pipeline, tmp_path, dialect):
    result, heard = trained(train, **{"output.dialect": dialect})
    assert heard.of(Previewed)
    tensors = load_file(result.lora)
    begin = (
        "lora_te_text_model_encoder_layers_0_" if dialect == "kohya" else "text_encoder.text_model.encoder.layers.0."
    )
    assert any(key.startswith(begin) for key in tensors)
    model = load_for_sampling(str(base), str(result.lora))
    ids = model.encoder.tokens(["a red ring"])[0]["te"][None]
    ours, pipe = embedding(model.encoder.text_encoders["te"], ids), pipeline()
    before = embedding(pipe.text_encoder, ids)
    pipe.load_lora_weights(str(result.lora.parent), weight_name=result.lora.name)
    assert len(lora.layers(pipe.text_encoder)) == 12 and len(lora.layers(pipe.unet)) == 56
    torch.testing.assert_close(embedding(pipe.text_encoder, ids), ours, rtol=0, atol=1e-4)
    assert (ours - before).abs().max() > 1e-2
    report = inspect_file(result.lora, result.target)
    assert report.components == {"unet": 56, "text_encoder": 12} and report.ranks == {4: 56, 2: 12}
    assert float(report.metadata["ss_text_encoder_lr"]) == float(report.metadata["ss_unet_lr"]) == 2e-2
    assert all(reader.complete for reader in report.readers if reader.reader == "diffusers")
    if dialect == "kohya":
        save_file(swapped(tensors), tmp_path / "swapped.safetensors")
        wrong = load_for_sampling(str(base), str(tmp_path / "swapped.safetensors"))
        assert (embedding(wrong.encoder.text_encoders["te"], ids) - ours).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["dora", "loha", "lokr", "oft"])
def test_the_relatives_of_lora_learn_in_the_text_encoder_too(make_trainer, kind, tmp_path, base):
    trainer = make_trainer({**ONLY, "run.steps": 3, "adapter.kind": kind, "optimizer.learning_rate": 2e-2}).go()
    assert trainer.step == 3 and all(name.startswith("te.") for name in trainer.parameters)
    ours = trainer.modules.entries(["a red ring"])[0]["text"]
    parts, target = (
        learning_parts.extract(trainer.model),
        learning_parts.target_of(trainer.model, trainer.recipe.adapter),
    )
    reports = save_lora(tmp_path / "file.safetensors", parts, "kohya", "float32", {}, target)
    assert [report.complete for report in reports if report.reader == "ComfyUI"] == [True]
    model = load_for_sampling(str(base), str(tmp_path / "file.safetensors"))
    told = model.encoder.encode_captions(["a red ring"])[0]["text"]
    torch.testing.assert_close(told, ours, rtol=0, atol=1e-4)
    assert (told - registry.load(str(base)).encoder.encode_captions(["a red ring"])[0]["text"]).abs().max() > 1e-2


def test_a_run_starts_from_a_file_with_both_parts_and_says_what_a_file_lacks(train, same):
    first, _ = trained(train)
    settings = {"adapter.text_encoder_rank": 2, "adapter.start_from": str(first.lora), "optimizer.learning_rate": 1e-12}
    again, _ = train({**BOTH, **settings, "run.steps": 1}, "again")
    ours, theirs = load_file(first.lora), load_file(again.lora)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[key], theirs[key], rtol=0, atol=1e-6) for key in ours)
    with pytest.raises(BadInput, match="adapter.text_encoder_rank and adapter.text_encoder_targets to the file's"):
        train({**BOTH, **settings, "adapter.text_encoder_rank": 3}, "other")
    plain, _ = train({"run.steps": 1}, "plain")
    _, heard = train({**BOTH, "run.steps": 1, "adapter.start_from": str(plain.lora)}, "without", warnings=True)
    assert [event.message for event in heard.of(Warned)] == [
        f"{plain.lora} has no part for the text_encoder, which begins with nothing"
    ]
    with pytest.raises(BadInput, match="holds nothing for the text_encoder, which is what trains"):
        train({**ONLY, "run.steps": 1, "adapter.start_from": str(plain.lora)}, "only")


def test_a_run_leaves_base_and_encoder_as_they_were(train, base, snapshot):
    model = registry.load(str(base))
    text = snapshot(model.encoder.text_encoders["te"]), snapshot(model.denoiser)
    train({**BOTH, "run.steps": 1}, model=model)
    assert (snapshot(model.encoder.text_encoders["te"]), snapshot(model.denoiser)) == text


# ---- settings


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"adapter.text_encoder_rank": 4}, "adapter.text_encoder_rank: 4, but no text encoder learns"),
        ({"adapter.text_encoder_targets": ["fc1"]}, "adapter.text_encoder_targets: fc1, but no text encoder learns"),
        ({"optimizer.text_encoder_learning_rate": 1e-5}, "text_encoder_learning_rate: 1e-05, but no text encoder"),
        ({**ONLY, "adapter.text_encoder_stop_step": 9}, "nothing would learn after it"),
        ({**ONLY, "adapter.targets": ["to_q"]}, "adapter.targets: to_q, but the text encoders alone learn"),
        ({**BOTH, "adapter.text_encoder_targets": []}, "adapter.text_encoder_targets: is empty"),
        ({**BOTH, "adapter.text_encoder_targets": ["re:("]}, "is no regular expression"),
    ],
)
def test_settings_of_text_encoders_that_do_nothing_are_refused(make_recipe, settings, said):
    with pytest.raises(BadInput, match=said):
        make_recipe(settings)


def test_targets_and_rank_that_do_not_fit_the_text_encoder_are_named_by_its_settings(train):
    with pytest.raises(BadInput, match="adapter.text_encoder_targets: 'to_q' matches no module of this base"):
        train({**BOTH, "adapter.text_encoder_targets": ["to_q"]})
    with pytest.raises(BadInput, match="adapter.text_encoder_rank: 33 is above the width of every targeted module"):
        train({**BOTH, "adapter.text_encoder_rank": 33})


def test_a_run_without_a_learning_text_encoder_is_the_run_that_it_was(make_recipe):
    assert "adapter.text_encoder" in make_recipe(BOTH).decisive("fp32")
    plain = make_recipe().fingerprint("model", "data", "fp32")
    assert plain == make_recipe({"adapter.text_encoder": "off"}).fingerprint("model", "data", "fp32")
    assert plain != make_recipe(BOTH).fingerprint("model", "data", "fp32")
    assert Recipe().adapter.text_encoder == "off"
