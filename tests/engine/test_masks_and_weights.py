"""What masks, weights and regularisation pictures do to a run: gradients, losses, files, and going on."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from trainer_core import recipe
from trainer_core.data.scan import scan_folder
from trainer_core.engine import objective, run
from trainer_core.engine.objective_config import ObjectiveConfig
from trainer_core.lora_file.metadata import parsed


@pytest.fixture
def with_alpha(pictures, tmp_path):
    """Copies of the pictures whose alpha channel is `alpha(width, height)`, with black or other pixels outside."""

    def make(alpha, folder="alpha", outside=None):
        place = tmp_path / folder
        place.mkdir()
        for path in sorted(pictures.glob("*.png")):
            rgb = np.asarray(Image.open(path).convert("RGB")).copy()
            mask = alpha(rgb.shape[1], rgb.shape[0])
            if outside is not None:
                rgb[mask == 0] = outside
            Image.fromarray(np.dstack([rgb, mask])).save(place / path.name)
            (place / f"{path.stem}.txt").write_text(path.with_suffix(".txt").read_text())
        return place

    return make


def opaque(width, height):
    return np.full((height, width), 255, np.uint8)


def left_half(width, height):
    mask = opaque(width, height)
    mask[:, width // 2 :] = 0
    return mask


@pytest.mark.parametrize("loss", ["mse", "huber", "smooth_l1"])
def test_outside_a_mask_the_gradient_is_zero_and_a_mask_of_ones_changes_no_bit(loss):
    numbers = torch.Generator().manual_seed(0)
    predicted, target = (torch.randn(2, 4, 8, 8, generator=numbers) for _ in range(2))
    config = ObjectiveConfig(loss=loss)

    def gradient(masks):
        given = predicted.clone().requires_grad_()
        found = objective.errors(config, given, target, masks)
        found.sum().backward()
        return found.detach(), given.grad

    masks = torch.ones(2, 1, 8, 8)
    assert all(torch.equal(a, b) for a, b in zip(gradient(None), gradient(masks), strict=True))
    masks[0, :, :, 4:] = 0
    masks[1] = 0
    found, grad = gradient(masks)
    assert torch.equal(grad[0, :, :, 4:], torch.zeros(4, 8, 4)) and (grad[0, :, :, :4] != 0).all()
    whole = objective.errors(config, predicted[:1, :, :, :4], target[:1, :, :, :4])
    torch.testing.assert_close(found[:1], whole)
    assert found[1] == 0 and torch.equal(grad[1], torch.zeros(4, 8, 8))


def test_the_loss_is_the_mean_weighted_by_the_mask():
    predicted, target = torch.tensor([[[[3.0, 1.0]]]]), torch.zeros(1, 1, 1, 2)
    found = objective.errors(ObjectiveConfig(), predicted, target, torch.tensor([[[[0.25, 0.75]]]]))
    assert found.item() == pytest.approx((0.25 * 9 + 0.75 * 1) / 1.0)


def test_training_under_opaque_masks_has_the_bits_of_training_without(make_trainer, with_alpha):
    folder, trained = with_alpha(opaque), []
    for mask in ("off", "alpha"):
        trainer = make_trainer({"dataset.path": str(folder), "dataset.mask": mask, "run.steps": 2})
        assert (trainer.dataset.load(trainer.order.batch(0)).masks is None) == (mask == "off")
        trained.append(trainer.go().parameters)
    assert all(torch.equal(parameter, trained[1][name]) for name, parameter in trained[0].items())


def test_the_loss_of_a_step_is_that_of_its_masked_pictures(make_trainer, with_alpha):
    changes = {"dataset.path": str(with_alpha(left_half)), "dataset.mask": "alpha", "run.steps": 1}
    trainer = make_trainer({**changes, "dataset.mask_floor": 0.5})
    batch = trainer.dataset.load(trainer.order.batch(0))
    assert (
        batch.masks.min() == 0.5 and batch.masks.max() == 1 and batch.masks.shape[1:] == (1, *batch.latents.shape[2:])
    )
    names = [(0, key, position) for position, key in enumerate(batch.keys)]
    config, diffusion = trainer.recipe.objective, trainer.model.process
    drawn = objective.draw(config, batch.latents, diffusion.steps, trainer.recipe.run.seed, "training", names)
    noisy = diffusion.add_noise(batch.latents, drawn.noise, drawn.timesteps)
    with torch.no_grad():
        predicted = trainer.model.family.predict(trainer.model.denoiser, noisy, drawn.timesteps, batch.conditioning)
    squared = (predicted - drawn.noise).square()
    wanted = (squared * batch.masks).sum((1, 2, 3)) / (4 * batch.masks.sum((1, 2, 3)))
    trainer.go()
    assert trainer.losses[0] == pytest.approx(wanted.mean().item(), rel=1e-5)


def test_validation_looks_under_the_mask(make_trainer, with_alpha, monkeypatch):
    changes = {"dataset.holdout": 2, "dataset.mask": "alpha", "run.steps": 1}
    trainer = make_trainer({**changes, "dataset.path": str(with_alpha(left_half))})
    masked, batches = trainer.validate(), list(trainer.dataset.holdout_batches(2))
    assert all(batch.masks.mean() == 0.5 for batch in batches)
    plain = [dataclasses.replace(batch, masks=None) for batch in batches]
    monkeypatch.setattr(trainer.dataset, "holdout_batches", lambda _: plain)
    assert abs(trainer.validate() - masked) > 1e-3
    trainer.go()


@pytest.fixture
def with_class(pictures, tmp_path):
    """A dataset of the pictures and of a class of seven, whose folder has these settings."""

    def make(**own):
        folder = tmp_path / "class"
        folder.mkdir(exist_ok=True)
        for n in range(7):
            Image.new("RGB", (64, 64), (30 * n, 90, 200 - 20 * n)).save(folder / f"{n}.png")
        prior = {"path": str(folder), "regularisation": True, "default_caption": "a thing", **own}
        return {"dataset.path": str(pictures), "dataset.trigger": "zorb", "dataset.folders": [prior]}

    return make


def test_a_pictures_gradient_grows_with_its_weight(make_trainer, pictures, tmp_path):
    gradients = {}
    for weight in (1.0, 0.25):
        trainer = make_trainer({"dataset.weight": weight, "run.steps": 1, "run.batch_size": 1})
        gradients[weight] = trainer.go().gradients[0]
    for name, gradient in gradients[1.0].items():
        torch.testing.assert_close(gradients[0.25][name], 0.25 * gradient)


def test_regularisation_pictures_are_told_in_the_file(train, with_class):
    result, _ = train({**with_class(), "run.steps": 1})
    with safe_open(result.lora, "pt") as file:
        said = file.metadata()
    assert (said["ss_num_train_images"], said["ss_num_reg_images"]) == ("5", "5")
    assert json.loads(said["ss_dataset_dirs"]) == {"things": {"n_repeats": 1, "img_count": 5}}
    assert json.loads(said["ss_reg_dataset_dirs"]) == {"class": {"n_repeats": 1, "img_count": 7}}
    assert json.loads(said["ss_tag_frequency"])["class"] == {"a thing": 7}
    public = parsed(said["scion.recipe"])["dataset"]
    assert (public["path"], public["folders"][0]["path"]) == ("things", "class")


def test_a_run_with_a_class_and_wildcards_that_is_stopped_goes_on_to_the_same_bits(train, with_class, with_alpha, same):
    own = with_alpha(left_half)
    (own / "1.txt").write_text("{one|two|three} thing, {red|blue}")
    changes = {**with_class(mask="off"), "dataset.path": str(own), "dataset.mask": "alpha", "dataset.wildcards": True}
    changes |= {"run.steps": 5, "dataset.flip": True, "dataset.caption_dropout": 0.2}
    whole, _ = train(changes, "whole")
    stopped, _ = train(changes, "parts", stop_after=2)
    assert stopped.status == "stopped" and stopped.step == 2
    again, _ = train(changes, "parts")
    assert again.status == "finished" and same(whole, again)


def test_the_recipe_of_a_run_repeats_it_from_anywhere(train, with_class, same, tmp_path, monkeypatch):
    changes = {**with_class(mask="off"), "run.steps": 1}
    monkeypatch.chdir(tmp_path)
    changes["dataset.folders"][0]["path"] = "class"
    first, _ = train(changes, "first")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    written = recipe.read(first.folder / "recipe.json")
    assert written.dataset.folders[0].path == str(tmp_path / "class")
    assert run.train(written, first.folder).status == "finished"
    again, _ = train(written, "again")
    assert same(first, again)


PLAIN = "78cba9b076027579c9e7d6a01d1d78302d66d5b99d984d700c575ba6465bd899"
"""Of the tests' short run on model "model" and data "data", as it was before there were masks, weights and folders."""


def test_the_fingerprint_of_a_plain_run_is_what_it_was_and_each_new_setting_changes_it(make_recipe):
    plain = make_recipe()
    assert plain.fingerprint("model", "data", "fp32") == PLAIN
    items = scan_folder(plain.dataset).items
    said = json.dumps([(item.key, item.digest, item.caption, item.repeats) for item in items])
    assert scan_folder(plain.dataset).fingerprint == hashlib.sha256(said.encode()).hexdigest()
    for name, value in {
        "dataset.mask": "alpha",
        "dataset.weight": 2.0,
        "dataset.prior_weight": 2.0,
        "dataset.caption_prefix": "x",
        "dataset.folders": [{"path": "x", "flip": True}],
    }.items():
        assert make_recipe({name: value}).fingerprint("model", "data", "fp32") != PLAIN, name
