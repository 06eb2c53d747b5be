"""What must not happen: a run that changes its base, depends on its cache, or loses what is done when it fails."""

import shutil

import pytest
import torch

from trainer_core.engine import checkpoints, run
from trainer_core.engine.events import Steps
from trainer_core.engine.trainer import Trainer
from trainer_core.errors import BadInput, ScionError
from trainer_core.families import registry


@pytest.mark.parametrize(
    "changes", [{"adapter.targets": ["all"], "adapter.dropout": 0.1}, {"run.precision": "bf16"}], ids=["fp32", "bf16"]
)
def test_the_base_comes_out_as_it_went_in(train, base, snapshot, changes):
    model = registry.load(str(base), torch.bfloat16 if changes.get("run.precision") else torch.float32)
    before = snapshot(model.denoiser)
    train(changes, model=model)
    assert snapshot(model.denoiser) == before
    assert not any(part.training for part in model.denoiser.modules())


def test_the_base_comes_out_as_it_went_in_when_the_run_fails(make_recipe, model, snapshot, tmp_path):
    class Broken:
        def on(self, event):
            if isinstance(event, Steps):
                raise KeyboardInterrupt

    before = snapshot(model.denoiser)
    with pytest.raises(KeyboardInterrupt):
        run.train(make_recipe(), tmp_path / "run", [Broken()], model=model)
    assert snapshot(model.denoiser) == before


def test_the_base_comes_out_as_it_went_in_when_its_checkpoint_cannot_be_used(train, base, snapshot, monkeypatch):
    def refuse(self, checkpoint):
        raise BadInput("of another run")

    changes = {"run.steps": 2, "run.precision": "bf16"}
    model = registry.load(str(base), torch.bfloat16)
    train(changes, stop_after=1, model=model)
    before = snapshot(model.denoiser)
    monkeypatch.setattr(Trainer, "restore", refuse)
    with pytest.raises(BadInput, match="of another run"):
        train(changes, model=model)
    assert snapshot(model.denoiser) == before


def test_two_runs_on_one_model_equal_two_runs_on_two(train, model, same):
    """The graph keeps a model loaded from one run to the next."""
    fresh, _ = train({"run.seed": 1}, "fresh")
    train({"run.seed": 0}, "first", model=model)
    second, _ = train({"run.seed": 1}, "second", model=model)
    assert same(fresh, second)


@pytest.mark.parametrize("problem", [{"run.precision": "fp16"}, {"run.device": "cuda:9"}])
def test_what_the_machine_lacks_is_refused_with_the_way_out(train, tmp_path, problem):
    with pytest.raises(BadInput, match="choose bf16 or fp32|try auto or cpu"):
        train(problem)
    assert not (tmp_path / "run").exists()


def test_a_failing_step_is_a_scion_error_that_says_what_is_kept(train, model):
    """A base whose answers turn to NaN at a certain step: five steps in a row are skipped, then the run ends."""
    calls = []

    def poison(module, inputs, output):
        calls.append(1)
        return (output[0] * float("nan"),) if module.training and len(calls) > 3 else None

    model.denoiser.register_forward_hook(poison)
    with pytest.raises(ScionError, match=r"optimizer.learning_rate \(0.001\)") as caught:
        train({"run.steps": 30, "run.batch_size": 1}, model=model)
    assert "not finite 5 times in a row" in str(caught.value)
    assert "Kept: step 8" in caught.value.__notes__[0]


def test_the_cache_decides_nothing_but_the_time(train, tmp_path, same):
    settings = {"dataset.flip": True, "dataset.crop": "random", "dataset.variants": 2, "run.steps": 4}
    kept, _ = train(settings, "memory")
    for name, more in {
        "off": {"dataset.cache": "off"},
        "disk": {"dataset.cache": "disk", "dataset.cache_path": str(tmp_path / "cache")},
        "disk again": {"dataset.cache": "disk", "dataset.cache_path": str(tmp_path / "cache"), "dataset.workers": 0},
    }.items():
        assert same(kept, train({**settings, **more}, name)[0]), name


def test_a_picture_that_disappears_in_training_is_named_and_what_is_done_is_kept(make_recipe, pictures, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(pictures, copy)

    class Thief:
        def on(self, event):
            if isinstance(event, Steps) and event.last == 2:
                for path in copy.glob("*.png"):
                    path.unlink()

    asked = make_recipe({"dataset.path": str(copy), "dataset.cache": "off", "run.steps": 50})
    with pytest.raises(ScionError, match=r"\d\.png") as caught:
        run.train(asked, tmp_path / "run", [Thief()])
    kept = checkpoints.latest(tmp_path / "run" / "checkpoints", pytest.fail)
    assert kept.step >= 2
    assert f"Kept: step {kept.step}" in caught.value.__notes__[0]


def test_a_preview_size_that_the_base_cannot_draw_is_refused_before_training(train, tmp_path):
    with pytest.raises(BadInput, match="preview.height: 100 is no multiple of 8; 96 is the nearest below"):
        train({"preview.height": 100})
    assert not (tmp_path / "run").exists()
