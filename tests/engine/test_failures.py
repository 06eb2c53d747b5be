"""A run that fails says what to do, keeps the last whole step, and the line that it gives works."""

import re
import shlex
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer_core import cli, commands, recipe
from trainer_core.engine import checkpoints, memory_advice, run
from trainer_core.engine.events import Started, Steps, Warned
from trainer_core.engine.run_folder import RunFolder
from trainer_core.errors import BadInput, ScionError
from trainer_core.families.clip_vae import ClipVaeEncoder


class Failing:
    """Makes a base's denoiser raise from its `after`th answer in training on."""

    def __init__(self, model, error, after):
        self.error, self.after, self.answers = error, after, 0
        self.hook = model.denoiser.register_forward_hook(self)

    def __call__(self, module, inputs, output):
        self.answers += module.training
        if module.training and self.answers > self.after:
            raise self.error


# ---- input that fails while a run is on


class Thief:
    """Takes the pictures away after the second step."""

    def __init__(self, folder):
        self.folder = folder

    def on(self, event):
        if isinstance(event, Steps) and event.last == 2:
            for path in self.folder.glob("*.png"):
                path.unlink()


@pytest.fixture
def vanishing(make_recipe, pictures, tmp_path):
    """A run's recipe and the observer that takes its pictures away."""
    copy = tmp_path / "copy"
    shutil.copytree(pictures, copy)
    return make_recipe({"dataset.path": str(copy), "dataset.cache": "off", "run.steps": 50}), Thief(copy)


def test_bad_input_in_the_middle_of_training_is_a_failure_because_things_were_written(vanishing, tmp_path):
    asked, thief = vanishing
    with pytest.raises(ScionError, match=r"\d\.png") as caught:
        run.train(asked, tmp_path / "run", [thief])
    assert not isinstance(caught.value, BadInput)
    assert "Kept: step" in caught.value.__notes__[0]


def test_a_run_remembers_what_it_failed_of_until_it_goes_on(vanishing, pictures, tmp_path):
    asked, thief = vanishing
    with pytest.raises(ScionError) as caught:
        run.train(asked, tmp_path / "run", [thief])
    folder = RunFolder(tmp_path / "run")
    assert folder.state().failure == "\n".join([str(caught.value), *caught.value.__notes__])
    for path in pictures.iterdir():
        shutil.copy2(path, thief.folder)
    run.train(asked, tmp_path / "run")
    assert (folder.state().status, folder.state().failure) == ("finished", "")


def test_the_command_line_tells_it_with_what_was_kept_and_exit_code_1(vanishing, tmp_path, monkeypatch, capsys):
    asked, thief = vanishing
    monkeypatch.setattr(commands, "train", lambda given: run.train(asked, tmp_path / "run", [thief]))
    assert cli.main(["train"]) == 1
    told = capsys.readouterr().err
    assert ".png" in told and "Kept: step" in told and "Go on with: scion train" in told


def test_the_command_line_prints_the_notes_of_bad_input_too(monkeypatch, capsys):
    def refusing(given):
        error = BadInput("dataset.path: is empty")
        error.add_note("Kept: step 7.")
        raise error

    monkeypatch.setattr(commands, "train", refusing)
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err.splitlines() == ["scion: dataset.path: is empty", "Kept: step 7."]


# ---- memory


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("[enforce fail] data. DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
]


@pytest.fixture
def unestimated(monkeypatch):
    """A model that cannot be rehearsed; these tests are about what is said and kept, and rehearsing takes its time."""

    def refuse(trainer):
        raise NotImplementedError("this kernel has no shapes")

    monkeypatch.setattr(memory_advice, "TrainerMemory", refuse)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: f"{type(error).__name__} {str(error)[-20:]}")
def test_too_little_memory_names_what_to_lower_with_its_present_value_and_keeps_the_last_step(
    train, model, unestimated, error
):
    failing = Failing(model, error, after=3)
    with pytest.raises(ScionError) as caught:
        train({"run.steps": 9, "run.batch_size": 2}, model=model)
    assert str(caught.value) == (
        "step 4: out of memory. Set run.gradient_checkpointing=true (now false): a step takes about a third longer, "
        "and the same run goes on. Or set run.batch_size=1 with run.accumulation=2 (now 2): the training is almost the "
        "same, and it makes another run, which run.existing=new begins"
    )
    (note,) = caught.value.__notes__
    assert note.startswith("Kept: step 3. ") and note.endswith(" --set run.gradient_checkpointing=true")
    # The first remedy goes on with the same run.
    failing.hook.remove()
    result, heard = train({"run.steps": 5, "run.gradient_checkpointing": True}, model=model)
    assert (heard.of(Started)[0].step, result.step) == (3, 5)


def test_what_is_named_is_what_is_not_low_already(train, model, unestimated):
    Failing(model, MemoryError(), after=0)
    changes = {"run.gradient_checkpointing": True, "run.batch_size": 4}
    with pytest.raises(ScionError, match="Set run.batch_size=2 with run.accumulation=2 .*run.precision=bf16"):
        train(changes, "four", model=model)
    with pytest.raises(ScionError, match=r"memory. Set run.precision=bf16 \(now fp32\)"):
        train({**changes, "run.batch_size": 1}, "one", model=model)
    low = {**changes, "run.batch_size": 1, "run.precision": "bf16", "optimizer.name": "adafactor"}
    with pytest.raises(ScionError, match=r"memory. Set dataset.resolution=48 \(now 64\)"):
        train(low, "bf16", model=model)


def test_gradients_are_freed_before_the_last_step_is_saved(train, model, unestimated, monkeypatch):
    """Of an accumulated step the first gradients are there when the second batch finds no memory."""
    Failing(model, MemoryError(), after=4)
    held, save = [], checkpoints.save

    def watching(*given):
        held.append([p.grad is None for p in model.denoiser.parameters()])
        return save(*given)

    monkeypatch.setattr(checkpoints, "save", watching)
    with pytest.raises(ScionError, match="out of memory"):
        train({"run.accumulation": 3, "run.checkpoint_minutes": 0.0}, model=model)
    assert len(held) == 1 and all(held[0])


def test_too_little_memory_while_encoding_is_told_in_the_same_way(train, model, snapshot, monkeypatch):
    def encode(self, pixels):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    before = snapshot(model.denoiser)
    monkeypatch.setattr(ClipVaeEncoder, "encode_pictures", encode)
    with pytest.raises(ScionError, match="out of memory: encoding a picture takes about .* MB") as caught:
        train(model=model)
    assert "dataset.resolution=48 (now 64): saves about " in str(caught.value)
    assert snapshot(model.denoiser) == before


def test_another_runtime_error_stays_the_bug_that_it_is(train, model):
    Failing(model, RuntimeError("mat1 and mat2 shapes cannot be multiplied"), after=1)
    with pytest.raises(RuntimeError, match="mat1") as caught:
        train(model=model)
    assert "Kept: step 1" in caught.value.__notes__[0]


# ---- gradients that are not finite


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"adapter.alpha": 2.0, "output.dialect": "diffusers", "output.dtype": "fp16"},
        {"adapter.rslora": True, "adapter.alpha": 3.0, "output.dialect": "diffusers"},
        {"adapter.rslora": True, "adapter.alpha": 3.0},
    ],
    ids=["kohya", "diffusers", "diffusers rslora", "kohya rslora"],
)
def test_the_line_given_for_gradients_that_are_not_finite_works(train, model, tmp_path, capsys, settings):
    calls = []

    def poison(module, inputs, output):
        calls.append(1)
        return (output[0] * float("nan"),) if module.training and len(calls) > 3 else None

    model.denoiser.register_forward_hook(poison)
    with pytest.raises(ScionError, match="not finite 5 times") as caught:
        train({"run.steps": 9, "run.batch_size": 1, "output.name": "a thing", **settings}, model=model)
    (note,) = caught.value.__notes__
    assert "Kept: step 8." in note
    line = re.search(r"scion (train .*)", note).group(1)
    words = shlex.split(line)
    assert "optimizer.learning_rate=0.00033" in words and "run.existing=new" in words
    assert cli.main([*words, "--quiet", "--set", "run.steps=2"]) == 0, capsys.readouterr().err
    written = recipe.read(tmp_path / "run-2" / "recipe.json")
    assert written.optimizer.learning_rate == 0.00033
    start = tmp_path / "run" / "checkpoints" / "step-00000008" / "a thing.safetensors"
    assert written.adapter.start_from == str(start) and start.is_file()


def test_without_a_checkpoint_the_line_begins_anew_with_the_lower_rate(train, model, tmp_path, monkeypatch):
    model.denoiser.register_forward_hook(lambda module, inputs, output: (output[0] * float("nan"),))

    def refuse(*given):
        raise ScionError("the disk is full")

    monkeypatch.setattr(checkpoints, "save", refuse)
    with pytest.raises(ScionError, match="not finite") as caught:
        train({"run.steps": 9}, warnings=True, model=model)
    (note,) = caught.value.__notes__
    assert "optimizer.learning_rate=0.00033" in note and "Kept" not in note and "start_from" not in note


# ---- going on from a file of more than what trains


def with_text_encoder(file, to):
    """A kohya file whose text encoder was trained too."""
    name = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    more = {
        f"{name}.lora_down.weight": torch.ones(4, 32),
        f"{name}.lora_up.weight": torch.ones(64, 4),
        f"{name}.alpha": torch.tensor(4.0),
    }
    save_file({**load_file(file), **more}, to)
    return str(to)


def test_a_start_with_a_text_encoders_part_goes_on_with_the_rest_and_says_so(train, tmp_path):
    first, _ = train({"run.steps": 2}, "first")
    both = with_text_encoder(first.lora, tmp_path / "both.safetensors")
    settings = {"run.steps": 1, "optimizer.learning_rate": 1e-12}
    result, heard = train({**settings, "adapter.start_from": both}, "second", warnings=True)
    (warning,) = heard.of(Warned)
    assert "text encoder" in warning.message and "both.safetensors" in warning.message
    a, b = load_file(first.lora), load_file(result.lora)
    assert a.keys() == b.keys() and all(torch.allclose(a[key], b[key], atol=1e-7) for key in a)


def test_a_start_of_a_text_encoder_alone_is_refused(train, tmp_path):
    first, _ = train({"run.steps": 1}, "first")
    alone = tmp_path / "alone.safetensors"
    both = load_file(with_text_encoder(first.lora, alone))
    save_file({key: value for key, value in both.items() if key.startswith("lora_te_")}, alone)
    with pytest.raises(BadInput, match="adapter.start_from: .* holds nothing for the unet"):
        train({"adapter.start_from": str(alone)}, "second")


@pytest.mark.parametrize("changes", [{"adapter.rank": 8}, {"adapter.alpha": 1.0}, {"adapter.targets": ["attn1"]}])
def test_a_start_that_does_not_fit_is_refused_before_anything_is_encoded(train, model, tmp_path, monkeypatch, changes):
    first, _ = train({"run.steps": 1}, "first")
    monkeypatch.setattr(ClipVaeEncoder, "encode_pictures", lambda *given: pytest.fail("encoded"))
    with pytest.raises(BadInput, match="does not fit these settings"):
        train({**changes, "adapter.start_from": str(first.lora)}, "second", model=model)
    assert not (tmp_path / "second").exists()
