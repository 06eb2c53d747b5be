"""The loop: what a step's gradient is, what happens to gradients that are not finite, and that a LoRA learns."""

import math

import pytest
import torch
from torch.nn import functional as F

from trainer_core.adapters import lora
from trainer_core.adapters.lora_config import LoRAConfig
from trainer_core.engine import checkpoints, objective
from trainer_core.engine.events import Finished
from trainer_core.engine.objective_config import ObjectiveConfig
from trainer_core.engine.optimizer_config import OptimizerConfig
from trainer_core.engine.optimizers import build_optimizer
from trainer_core.errors import ScionError


def test_every_item_of_a_step_counts_alike_however_short_its_batch(make_trainer):
    """Batches of two, one and one pictures, accumulated: the gradient is the mean over pictures, not over batches."""
    trainer = make_trainer({"run.steps": 1, "run.accumulation": 3, "optimizer.max_grad_norm": 0.0})
    plans = [trainer.order.batch(index) for index in range(3)]
    sizes = [len(plan.entries) for plan in plans]
    assert len(set(sizes)) > 1
    trained = [p.detach().clone() for p in trainer.parameters.values()]
    trainer.go()

    # By hand, item by item, from the definition of the loss.
    other = make_trainer({"run.steps": 1})
    parameters = list(other.parameters.values())
    assert all(torch.equal(a, b) for a, b in zip(parameters, trained, strict=True))
    scheduler, count, total = other.model.process.scheduler, 0, 0.0
    other.model.denoiser.train()
    for plan in plans:
        batch = other.dataset.load(plan)
        for position, key in enumerate(batch.keys):
            name = (plan.index, key, position)
            drawn = objective.draw(other.recipe.objective, batch.latents, 1000, 0, "training", [name])
            clean, words = batch.latents[position][None], batch.conditioning["text"][position][None]
            noisy = scheduler.add_noise(clean, drawn.noise, drawn.timesteps)
            loss = F.mse_loss(other.model.denoiser(noisy, drawn.timesteps, words).sample, drawn.noise)
            loss.backward()
            total, count = total + loss.item(), count + 1
    assert count == sum(sizes)
    assert trainer.losses[0] == pytest.approx(total / count, abs=1e-6)
    for (name, found), parameter in zip(trainer.gradients[0].items(), parameters, strict=True):
        torch.testing.assert_close(found, parameter.grad / count, rtol=1e-4, atol=1e-7, msg=name)


def test_the_loss_that_is_told_is_the_mean_over_the_items_of_the_step(make_trainer):
    one = make_trainer({"run.steps": 1, "run.batch_size": 1, "run.accumulation": 4}).go()
    single = make_trainer({"run.steps": 4, "run.batch_size": 1, "optimizer.learning_rate": 1e-30}).go()
    assert one.losses[0] == pytest.approx(sum(single.losses) / 4, abs=1e-6)


def test_gradients_are_shortened_to_their_limit(make_trainer):
    free = make_trainer({"run.steps": 1, "optimizer.max_grad_norm": 0.0}).go()
    norm = math.sqrt(sum(float(g.square().sum()) for g in free.gradients[0].values()))
    limit = norm / 2
    clipped = make_trainer({"run.steps": 1, "optimizer.max_grad_norm": limit})
    clipped.go()
    # AdamW's first moment after one step is (1 - beta1) times the gradient that it was given.
    packed = [state["exp_avg"] / 0.1 for state in clipped.optimizer.optimizer.state.values()]
    assert math.sqrt(sum(float(g.square().sum()) for g in packed)) == pytest.approx(limit, rel=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_fused_optimiser_on_the_cpu_skips_the_step_that_found_inf_marks(value):
    """What the trainer relies on, with torch alone."""
    weight = torch.nn.Parameter(torch.ones(8, 8))
    optimizer = build_optimizer(OptimizerConfig(), [weight])
    for step in range(3):
        weight.grad = torch.full_like(weight, value if step == 1 else 1.0)
        optimizer.found_inf = (~torch.isfinite(weight.grad.norm())).float()
        before = weight.detach().clone()
        moments = [state.clone() for state in optimizer.state[weight].values()]
        optimizer.step()
        assert torch.equal(weight, before) == (step == 1)
        if step == 1:
            assert all(torch.equal(a, b) for a, b in zip(optimizer.state[weight].values(), moments, strict=True))
    assert int(optimizer.state[weight]["step"]) == 2
    assert torch.isfinite(weight).all()


def poison(trainer, at, value):
    """The denoiser's answer is not finite in these calls, counted from 1."""
    calls = []

    def hook(module, inputs, output):
        calls.append(1)
        return (output[0] * value,) if len(calls) in at else None

    trainer.model.denoiser.register_forward_hook(hook)
    return trainer


@pytest.mark.parametrize(("value", "precision"), [(float("nan"), "fp32"), (float("inf"), "bf16")])
def test_a_step_whose_gradient_is_not_finite_is_skipped_and_counted(make_trainer, value, precision):
    settings = {"run.steps": 5, "run.batch_size": 1}
    before = {}
    trainer = poison(make_trainer(settings, precision), {2, 4}, value)

    def watch():
        if trainer.step in (1, 2):
            before[trainer.step] = [p.detach().clone() for p in trainer.parameters.values()]
        return False

    trainer.go(watch)
    assert trainer.step == 5 and trainer.skipped == 2
    assert all(torch.equal(a, b) for a, b in zip(before[1], before[2], strict=True))
    assert all(torch.isfinite(p).all() for p in trainer.parameters.values())
    assert [math.isfinite(loss) for loss in trainer.losses] == [True, False, True, False, True]
    steps = {int(state["step"]) for state in trainer.optimizer.optimizer.state.values()}
    assert steps == {3}


def test_five_steps_in_a_row_that_are_not_finite_end_the_run_at_the_last_finite_weights(make_trainer):
    trainer = poison(make_trainer({"run.steps": 20, "run.batch_size": 1}), range(4, 99), float("nan"))
    with pytest.raises(ScionError, match="not finite 5 times in a row.*Lower optimizer.learning_rate"):
        trainer.go()
    assert trainer.step == 8
    assert all(torch.isfinite(p).all() for p in trainer.parameters.values())


def test_four_in_a_row_do_not_and_the_count_starts_anew(make_trainer):
    bad = {2, 3, 4, 5, 7, 8, 9, 10}
    trainer = poison(make_trainer({"run.steps": 12, "run.batch_size": 1}), bad, float("nan")).go()
    assert trainer.step == 12 and trainer.skipped == 8


def test_skipped_steps_are_told_at_the_end_and_survive_a_resume(train, model):
    calls = []

    def hook(module, inputs, output):
        calls.append(1)
        return (output[0] * float("nan"),) if len(calls) == 2 and module.training else None

    model.denoiser.register_forward_hook(hook)
    settings = {"run.steps": 4, "run.batch_size": 1}
    train(settings, stop_after=3, model=model)
    result, heard = train(settings, model=model)
    assert result.step == 4
    assert any("1 of 4 steps were skipped" in line for line in heard.of(Finished)[0].lines)


def test_weights_that_are_not_finite_are_never_saved(make_trainer, tmp_path):
    trainer = make_trainer()
    checkpoint = trainer.checkpoint()
    next(iter(trainer.parameters.values())).data[0, 0] = float("inf")
    with pytest.raises(ScionError, match="1 trained tensors are not finite"):
        checkpoints.save(tmp_path, checkpoint, 3)
    assert not list(tmp_path.iterdir())


def test_gradient_checkpointing_changes_no_bit(make_trainer):
    settings = {"run.steps": 3, "adapter.dropout": 0.2}
    plain = make_trainer(settings).go()
    calls = []
    trainer = make_trainer({**settings, "run.gradient_checkpointing": True})
    trainer.model.denoiser.up_blocks[0].resnets[0].register_forward_pre_hook(lambda *_: calls.append(1))
    saved = trainer.go()
    assert len(calls) == 2 * 3  # each forward pass is done again in the backward pass
    assert saved.losses == plain.losses
    for a, b in zip(saved.parameters.values(), plain.parameters.values(), strict=True):
        assert torch.equal(a, b)


def test_dropout_is_keyed_by_the_step_not_by_what_was_drawn_before(make_trainer):
    settings = {"run.steps": 3, "adapter.dropout": 0.5}
    first = make_trainer(settings).go()
    trainer = make_trainer(settings)
    torch.rand(1000)

    def disturb():
        torch.rand(7)
        return False

    state = torch.get_rng_state()
    again = trainer.go(disturb)
    assert again.losses == first.losses
    assert not torch.equal(state, torch.get_rng_state())  # the disturbance was real
    none = make_trainer({"run.steps": 3}).go()
    assert none.losses[0] != first.losses[0]
    other = make_trainer({**settings, "run.seed": 1}).go()
    assert other.losses[0] != first.losses[0]


def test_dropout_rests_in_previews_and_validation(make_trainer):
    trainer = make_trainer({"adapter.dropout": 0.5, "dataset.holdout": 1})
    trainer.model.denoiser.train()
    assert trainer.validate() == trainer.validate()
    assert trainer.model.denoiser.training


def test_the_validation_loss_is_the_mean_over_the_held_out_pictures(make_trainer):
    two = make_trainer({"dataset.holdout": 2, "run.batch_size": 1}).validate()
    together = make_trainer({"dataset.holdout": 2, "run.batch_size": 4}).validate()
    assert two == pytest.approx(together, abs=1e-6)
    assert 0.5 < two < 3


def test_bf16_stores_the_base_in_bf16_and_trains_a_finite_fp32_lora(make_trainer):
    exact = make_trainer({"run.steps": 4}).go()
    trainer = make_trainer({"run.steps": 4}, precision="bf16")
    kinds = {
        name: parameter.dtype for name, parameter in trainer.model.denoiser.named_parameters() if "lora_" not in name
    }
    assert set(kinds.values()) == {torch.bfloat16}
    assert {parameter.dtype for parameter in trainer.parameters.values()} == {torch.float32}
    before = [p.detach().clone() for p in trainer.parameters.values()]
    trainer.go()
    assert {p.dtype for p in trainer.parameters.values()} == {torch.float32}
    assert all(torch.isfinite(p).all() for p in trainer.parameters.values())
    assert not any(torch.equal(a, b) for a, b in zip(before, trainer.parameters.values(), strict=True))
    for ours, theirs in zip(trainer.losses, exact.losses, strict=True):
        assert ours != theirs and ours == pytest.approx(theirs, rel=0.02)


def test_only_the_lora_has_gradients(make_trainer):
    trainer = make_trainer({"run.steps": 1})
    seen = set()

    def watch():
        seen.update(name for name, p in trainer.model.denoiser.named_parameters() if p.grad is not None)
        return False

    trainer.go(watch)
    assert not seen  # freed after the step
    trains = {name for name, p in trainer.model.denoiser.named_parameters() if p.requires_grad}
    assert trains == set(trainer.parameters) == set(trainer.gradients[0])


def test_the_loss_on_a_fixed_batch_and_noise_falls_by_half_within_two_hundred_steps(model):
    config = LoRAConfig(rank=16, targets=["all"])
    lora.inject(model.denoiser, config, lora.targeted_modules(model.denoiser, config, model.family.targets), seed=0)
    numbers = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 8, generator=numbers)
    drawn = objective.Draw(torch.randn(latents.shape, generator=numbers), torch.tensor([400, 700]))
    words = model.encoder.stack(model.encoder.encode_captions(["a red ring", "a blue cross"]))
    parameters = list(lora.parameters(model.denoiser).values())
    optimizer = build_optimizer(OptimizerConfig(learning_rate=3e-3), parameters)
    losses = []
    while len(losses) < 200 and (not losses or losses[-1] > losses[0] / 2):
        loss = objective.losses(ObjectiveConfig(), model, model.denoiser, latents, words, drawn).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] > 0.8
    assert losses[-1] <= losses[0] / 2, f"from {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} steps"


def test_a_checkpoint_of_other_tensors_is_refused(make_trainer):
    checkpoint = make_trainer().checkpoint()
    with pytest.raises(ScionError, match="other tensors than this recipe trains"):
        make_trainer({"adapter.rank": 8}).restore(checkpoint)


def test_a_checkpoint_comes_back_from_the_disk_as_it_went(make_trainer, tmp_path):
    trainer = make_trainer({"run.steps": 2, "optimizer.schedule": "cosine"}).go()
    path = checkpoints.save(tmp_path / "checkpoints", trainer.checkpoint(), 3)
    found = checkpoints.latest(tmp_path / "checkpoints", lambda text: pytest.fail(text))
    assert path.name == "step-00000002" and found.step == 2
    other = make_trainer({"run.steps": 2, "optimizer.schedule": "cosine"})
    other.restore(found)
    assert other.step == 2
    ours, theirs = trainer.optimizer.optimizer.state_dict(), other.optimizer.optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    for index, state in ours["state"].items():
        assert set(state) == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(value, theirs["state"][index][key]) for key, value in state.items())
    assert all(torch.equal(a, b) for a, b in zip(trainer.parameters.values(), other.parameters.values(), strict=True))


def test_leftovers_of_a_killed_writer_are_removed(make_trainer, tmp_path):
    checkpoints.save(tmp_path, make_trainer().checkpoint(), 3)
    (tmp_path / ".partial-0123").mkdir()
    (tmp_path / ".partial-0123" / "adapter.safetensors").write_bytes(b"half")
    assert checkpoints.latest(tmp_path, lambda text: pytest.fail(text)).step == 0
    assert not list(tmp_path.glob(".partial*"))
