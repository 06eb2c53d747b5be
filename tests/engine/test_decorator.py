"""Decorator tokens that learn, alone and beside a LoRA: what trains, where they stand, and their way into a file."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from trainer_core.adapters.decorator_config import DecoratorConfig
from trainer_core.data.dataset import Dataset
from trainer_core.data.folders import scan_dataset
from trainer_core.engine import learning_decorator, learning_parts, metrics, objective, sampling
from trainer_core.engine.events import Finished, Previewed, Started, Steps
from trainer_core.engine.memory_estimate import TrainerMemory
from trainer_core.engine.objective_config import ObjectiveConfig
from trainer_core.engine.optimizer_config import OptimizerConfig
from trainer_core.engine.optimizers import build_optimizer
from trainer_core.engine.preview_config import PreviewConfig
from trainer_core.errors import BadInput, ScionError
from trainer_core.families import registry
from trainer_core.idle_settings import RULES
from trainer_core.lora_file.decorator import read_decorator
from trainer_core.lora_file.inspect import inspect_file
from trainer_core.lora_file.safe_io import read_header
from trainer_core.sampler import load_for_sampling

BESIDE = {"decorator.num_tokens": 3}
ALONE = {**BESIDE, "decorator.alone": True}
NAME = "decorator.weight"


def copies(parameters):
    return {name: p.detach().clone() for name, p in parameters.items()}


def changed(before, parameters):
    return {name for name, p in parameters.items() if not torch.equal(before[name], p)}


def weight_of(result):
    return load_file(result.made.decorator)["weight"]


# ---- learning


def test_the_loss_on_a_fixed_batch_falls_and_the_vectors_alone_have_changed(model, snapshot):
    before = snapshot(model.encoder.text_encoders["te"]), snapshot(model.denoiser)
    # A random base hardly listens to its captions.
    louder = [p for name, p in model.denoiser.named_parameters() if "attn2.to_v" in name or "attn2.to_out" in name]
    for parameter in louder:
        parameter.data *= 8
    learning_decorator.put(model, DecoratorConfig(num_tokens=16), 0)
    numbers = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 8, 8, generator=numbers)
    drawn = objective.Draw(torch.randn(latents.shape, generator=numbers), torch.tensor([900, 950]))
    told = model.encoder.stack(model.encoder.encode_captions(["a red thing", "blue"]))
    parameters = learning_parts.parameters(model)
    optimizer = build_optimizer(OptimizerConfig(learning_rate=0.3, weight_decay=0), list(parameters.values()))
    losses = []
    for _ in range(60):
        followed = model.decorated(told, on=True)
        losses.append(objective.losses(ObjectiveConfig(), model, model.denoiser, latents, followed, drawn).mean())
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert {name: tuple(p.shape) for name, p in parameters.items()} == {NAME: (16, 32)}
    assert losses[-1] < 0.8 * losses[0], f"from {losses[0]:.3f} to {losses[-1]:.3f}"
    learning_parts.remove(model)
    for parameter in louder:
        parameter.data /= 8  # which float32 does without a rounding
    assert (snapshot(model.encoder.text_encoders["te"]), snapshot(model.denoiser)) == before
    assert model.decorated(told, on=True) is told


def test_a_decorator_begins_as_normal_numbers_of_the_seed_and_the_asked_scale(model):
    def begun(seed, scale):
        learning_decorator.put(model, DecoratorConfig(num_tokens=64, initial_scale=scale), seed)
        return learning_decorator.extract(model)

    one = begun(7, 0.5)
    assert one.shape == (64, 32) and float(one.std()) == pytest.approx(0.5, rel=0.05)
    assert torch.equal(begun(7, 0.5), one) and not torch.equal(begun(8, 0.5), one)
    torch.testing.assert_close(begun(7, 1.0), one * 2)


def test_a_decorator_and_a_lora_learn_together_at_rates_of_their_own(make_trainer):
    trainer = make_trainer({**BESIDE, "run.steps": 2, "decorator.learning_rate": 2e-2})
    groups = trainer.optimizer.optimizer.param_groups
    assert [float(group["lr"]) for group in groups] == [1e-3, 2e-2]
    assert groups[1]["params"] == [trainer.parameters[NAME]]
    before = copies(trainer.parameters)
    trainer.go()
    assert {name for name in before if ".lora_B." in name} | {NAME} <= changed(before, trainer.parameters)
    assert all(gradients[NAME].norm() > 0 for gradients in trainer.gradients)
    same = make_trainer(BESIDE).optimizer.optimizer.param_groups
    assert [float(group["lr"]) for group in same] == [1e-3, 1e-3]


def test_zeros_stand_in_its_place_where_dropout_took_the_caption(make_trainer):
    trainer = make_trainer({**ALONE, "dataset.caption_dropout": 0.5, "dataset.workers": 0})
    taught, tails = [], []
    for index in range(6):
        batch = trainer.dataset.load(trainer.order.batch(index))
        with torch.no_grad():
            text = trainer.conditioning(batch)["text"]
        assert text.shape[1] == 77 + 3 and [bool(caption) for caption in batch.captions] == batch.taught.tolist()
        tails += list(text[:, 77:])
        taught += batch.taught.tolist()
    assert 2 < sum(taught) < len(taught) - 2
    for on, tail in zip(taught, tails, strict=True):
        assert torch.equal(tail, trainer.parameters[NAME] if on else torch.zeros(3, 32))


def test_regularisation_pictures_are_without_it_and_pictures_without_a_caption_with_it(make_recipe, pictures, base):
    config = make_recipe({"dataset.folders": [{"path": str(pictures), "regularisation": True}]}).dataset
    items = [dataclasses.replace(item, caption="") for item in scan_dataset(config).items]
    dataset = Dataset(items, config, 0, 8, 64)
    assert dataset.encode(registry.load(str(base)).encoder)
    order, seen = dataset.order(2), set()
    for index in range(order.batches_per_epoch):
        batch = dataset.load(order.batch(index))
        prior = [dataset.is_prior(next(item for item in items if item.key == key)) for key in batch.keys]
        assert batch.taught.tolist() == [not one for one in prior] and not any(batch.captions)
        seen |= set(prior)
    assert seen == {False, True}


def test_gradient_checkpointing_changes_no_bit(make_trainer):
    plain = make_trainer({**ALONE, "run.steps": 2}).go()
    trainer = make_trainer({**ALONE, "run.steps": 2, "run.gradient_checkpointing": True}).go()
    assert trainer.losses == plain.losses
    assert not changed(plain.parameters, trainer.parameters)


def test_a_decorator_alone_learns_in_bf16_with_vectors_in_float32(make_trainer):
    exact = make_trainer({**ALONE, "run.steps": 2}).go()
    trainer = make_trainer({**ALONE, "run.steps": 2}, precision="bf16")
    before = copies(trainer.parameters)
    trainer.go()
    assert {p.dtype for p in trainer.parameters.values()} == {torch.float32}
    assert list(before) == [NAME] == list(changed(before, trainer.parameters))
    for ours, theirs in zip(trainer.losses, exact.losses, strict=True):
        assert ours != theirs and ours == pytest.approx(theirs, rel=0.02)


def test_the_memory_of_a_step_counts_the_tokens(make_trainer):
    from .test_memory_estimate import SQUARE, measured

    trainer = make_trainer({**SQUARE, **ALONE, "decorator.num_tokens": 64})
    real = measured(trainer)
    assert TrainerMemory(trainer).step().total == pytest.approx(real, rel=0.1)


# ---- runs

TORTURE = {
    **BESIDE,
    "decorator.learning_rate": 2e-2,
    "run.steps": 8,
    "run.accumulation": 2,
    "run.ema_decay": 0.9,
    "adapter.dropout": 0.2,
    "dataset.caption_dropout": 0.3,
    "dataset.shuffle_tags": True,
    "dataset.holdout": 1,
}


@pytest.mark.parametrize("alone", [False, True])
def test_a_stopped_run_ends_in_the_bits_of_one_that_was_not(train, alone):
    asked = {**TORTURE, "decorator.alone": alone, "adapter.dropout": 0.0 if alone else 0.2, "dataset.workers": 0}
    straight, _ = train(asked, "straight")
    busy = {"run.preview_every": 2, "run.validate_every": 1, "run.checkpoint_every": 1}
    stopped, _ = train({**asked, **busy}, "stopped", stop_after=4)
    assert not torch.equal(weight_of(stopped), weight_of(straight))
    resumed, heard = train({**asked, **busy, "dataset.workers": 1}, "stopped")
    assert heard.of(Started)[0].step == 4 and heard.of(Started)[0].tokens == 3
    assert torch.equal(weight_of(resumed), weight_of(straight))
    losses = [
        [line["loss"] for line in metrics.read(result.folder / "metrics.jsonl") if "loss" in line]
        for result in (straight, resumed)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 8
    kept = resumed.folder / "checkpoints" / "step-00000008"
    held = load_file(kept / "adapter.safetensors")
    assert (set(held) == {NAME}) is alone
    assert torch.equal(load_file(kept / resumed.made.decorator.name)["weight"], weight_of(resumed))
    assert not torch.equal(held[NAME], weight_of(resumed)), "the file has the moving average"
    assert torch.equal(load_file(kept / "ema.safetensors")[NAME], weight_of(resumed))


def test_a_decorator_alone_leaves_its_file_and_no_lora_and_a_finished_run_is_returned_at_once(train, base, snapshot):
    model = registry.load(str(base))
    before = snapshot(model.encoder.text_encoders["te"]), snapshot(model.denoiser)
    result, heard = train(ALONE, model=model)
    assert (snapshot(model.encoder.text_encoders["te"]), snapshot(model.denoiser)) == before
    assert model.decorator is None
    file = result.folder / "things.decorator.safetensors"
    assert result.lora is None and result.made.decorator == file == heard.of(Finished)[0].made.decorator
    assert sorted(result.folder.glob("*.safetensors")) == [file]
    assert heard.of(Previewed) and (heard.of(Started)[0].modules, heard.of(Started)[0].parameters) == (0, 96)
    again, heard = train(ALONE, model=model)
    assert not heard.of(Started) and again.made == result.made
    file.unlink()
    again, heard = train(ALONE, model=model)
    assert heard.of(Started)[0].step == 3 and file.is_file()


def test_the_lora_s_file_is_what_it_would_be_and_the_decorator_s_lies_beside_it(train):
    result, heard = train(BESIDE)
    assert [path.name for path in result.made.files] == ["things.safetensors", "things.decorator.safetensors"]
    assert "weight" not in load_file(result.lora) and list(load_file(result.made.decorator)) == ["weight"]
    assert len(heard.of(Finished)[0].made.lines) == 2


def test_what_a_lora_alone_has_and_presets_set_changes_nothing_where_a_decorator_learns_alone(train):
    asked = {**ALONE, "decorator.learning_rate": 1e-3, "run.steps": 2}
    plain, _ = train(asked, "plain")
    of_a_lora = {"adapter.rank": 9, "adapter.alpha": 2.0, "adapter.targets": ["attention+ff"]}
    of_a_lora |= {"optimizer.learning_rate": 0.5}
    assert set(of_a_lora) == {rule.setting for rule in RULES if rule.idle is None and "decorator.alone" in rule.when}
    other, _ = train({**asked, **of_a_lora}, "other")
    assert torch.equal(weight_of(plain), weight_of(other))


def test_previews_and_validation_see_the_decorator_as_it_has_learned(make_trainer):
    trainer = make_trainer({**ALONE, "dataset.holdout": 1})
    model, config = trainer.model, PreviewConfig(steps=2, guidance=2.0)
    with trainer.at_rest():
        drawn = sampling.draw(model, ["a thing"], config, 64, 64)
    loss = trainer.validate()
    with torch.no_grad():
        trainer.parameters[NAME].mul_(-3)
    with trainer.at_rest():
        assert not torch.equal(sampling.draw(model, ["a thing"], config, 64, 64), drawn)
    assert trainer.validate() != loss


def test_zeros_follow_the_negative_prompt(model, monkeypatch):
    learning_decorator.put(model, DecoratorConfig(num_tokens=2), 0)
    seen, usual = [], type(model.family).predict
    monkeypatch.setattr(
        type(model.family), "predict", lambda *given: seen.append(given[-1]["text"][:, -2:]) or usual(*given)
    )
    sampling.draw(model, ["a thing", "another"], PreviewConfig(steps=1, guidance=2.0), 64, 64)
    negative, positive = seen[0].chunk(2)
    assert not negative.any() and all(torch.equal(one, model.decorator.weight) for one in positive)


def test_the_learning_rate_that_is_told_is_the_decorator_s_own_where_it_learns_alone(train, monkeypatch):
    settings = {**ALONE, "decorator.learning_rate": 0.6, "run.steps": 2}
    _, heard = train(settings, "fine")
    assert [event.learning_rate for event in heard.of(Steps)] == [0.6, 0.6]
    usual = torch.optim.AdamW.step

    def step(optimizer, *given):
        answer = usual(optimizer, *given)
        optimizer.param_groups[0]["params"][0].data.mul_(float("inf"))
        return answer

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(ScionError, match=r"Lower decorator.learning_rate \(0.6\)") as failed:
        train(settings, "diverged")
    assert "--set decorator.learning_rate=0.2" in failed.value.__notes__[0]


def test_a_decorator_and_new_words_learn_without_a_lora(train):
    asked = {"words.names": ["<my-cat>"], "dataset.trigger": "<my-cat>", "words.alone": True, **BESIDE}
    result, heard = train({**asked, "run.steps": 2})
    assert [path.name for path in result.made.files] == ["my-cat.safetensors", "things.decorator.safetensors"]
    assert set(load_file(result.folder / "checkpoints/step-00000002/adapter.safetensors")) == {
        "te.words.<my-cat>",
        NAME,
    }


# ---- files


def test_a_file_draws_what_the_run_drew_last(train, base):
    asked = {**BESIDE, "preview.prompts": ["a thing"], "preview.guidance": 2.0, "decorator.learning_rate": 0.5}
    result, heard = train({**asked, "run.steps": 2})
    model = load_for_sampling(str(base), str(result.lora), decorator=read_decorator(result.made.decorator))
    ours = sampling.draw(model, ["a thing"], PreviewConfig(steps=2, guidance=2.0), 64, 64)
    torch.testing.assert_close(ours, heard.of(Previewed)[-1].pictures, rtol=0, atol=1e-5)
    without = load_for_sampling(str(base), str(result.lora))
    assert (sampling.draw(without, ["a thing"], PreviewConfig(steps=2, guidance=2.0), 64, 64) - ours).abs().max() > 1e-4


def test_the_file_says_what_it_is(train):
    result, _ = train({**BESIDE, "output.author": "me"})
    said = read_header(result.made.decorator).metadata
    assert said["modelspec.architecture"] == "stable-diffusion-v1/decorator"
    assert said["modelspec.title"] == "things.decorator" and said["modelspec.author"] == "me"
    assert "ss_network_dim" not in said and "ss_network_module" not in said
    assert said["scion.decorator_tokens"] == "3" and said["ss_steps"] == "3"
    assert json.loads(said["scion.recipe"])["decorator"]["num_tokens"] == 3
    assert read_header(result.lora).metadata["scion.decorator"] == "things.decorator.safetensors"
    found = inspect_file(result.made.decorator)
    assert (found.kind, found.tokens) == ("decorator", (3, 32))
    assert "vectors: 3, 32 wide; dtype: float32" in found.lines()
    assert "decorator: things.decorator.safetensors" in inspect_file(result.lora).lines()


def test_the_command_line_trains_a_decorator_and_draws_with_it(scion, base, pictures, tmp_path):
    asked = {"decorator.num_tokens": 4, "decorator.learning_rate": 0.5, "run.steps": 2, "run.device": "cpu"}
    asked |= {"preview.steps": 1, "preview.count": 1}
    settings = [word for name, value in asked.items() for word in ("--set", f"{name}={value}")]
    code, told, _ = scion("train", "--base", base, "--dataset", pictures, "--out", "run", "--quiet", *settings)
    file = tmp_path / "run" / "things.decorator.safetensors"
    assert code == 0 and "Decorator: run/things.decorator.safetensors" in told.replace("\\", "/"), told
    draw = ["sample", "--base", base, "--prompt", "a thing", "--steps", 2, "--device", "cpu"]

    def drawn(name, *more):
        code, told, said = scion(*draw, "--out", name, *more)
        assert code == 0, said
        return (tmp_path / name).read_bytes(), told

    lora = tmp_path / "run" / "things.safetensors"
    bare, _ = drawn("bare.png")
    assert drawn("with.png", "--decorator", file)[0] != bare
    assert drawn("off.png", "--decorator", file, "--decorator-strength", 0)[0] == bare
    beside, told = drawn("beside.png", "--lora", lora)
    assert "Warning" not in told and drawn("named.png", "--lora", lora, "--decorator", file)[0] == beside
    file.rename(tmp_path / "elsewhere.safetensors")
    apart, told = drawn("apart.png", "--lora", lora)
    assert apart != beside and "was trained with the decorator things.decorator.safetensors" in told
    code, _, said = scion(
        "sample", "--prompt", "a thing", "--decorator", tmp_path / "elsewhere.safetensors", "--out", "other.png"
    )
    assert code == 2
    assert "the decorator elsewhere is of another model: its vectors are 32 wide, the text states of scion-tiny" in said
    assert "are 128" in said


# ---- settings


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"decorator.alone": True}, "decorator.alone: on, but there is no decorator"),
        ({"decorator.num_tokens": 65}, "decorator.num_tokens: 65"),
        ({**ALONE, "adapter.text_encoder": "on"}, "adapter.text_encoder: on, but decorator.alone is on"),
        (
            {**BESIDE, "decorator.learning_rate": 0.1, "optimizer.name": "prodigy", "optimizer.learning_rate": 1.0},
            "decorator.learning_rate: 0.1, but prodigy finds",
        ),
    ],
)
def test_settings_that_do_nothing_are_refused(make_recipe, settings, said):
    with pytest.raises(BadInput, match=said):
        make_recipe(settings)


def test_a_run_without_a_decorator_is_the_run_that_it_was(make_recipe):
    plain = make_recipe().fingerprint("model", "data", "fp32")
    assert plain == make_recipe({"decorator.num_tokens": 0}).fingerprint("model", "data", "fp32")
    assert plain != make_recipe(BESIDE).fingerprint("model", "data", "fp32")
