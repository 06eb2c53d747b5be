"""A run from recipe to LoRA file: its picture is diffusers' picture; stopping, resuming, extending change no bit."""

import json
import shutil
import threading

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from trainer_core import recipe
from trainer_core.data.scan import scan_memory
from trainer_core.engine import checkpoints, metrics, run, sampling
from trainer_core.engine.events import Checkpointed, Finished, Previewed, Scanned, Started, Steps, Validated, Warned
from trainer_core.engine.preview_config import PreviewConfig
from trainer_core.engine.run_folder import RunFolder
from trainer_core.errors import BadInput, ScionError
from trainer_core.families import registry
from trainer_core.lora_file.safe_io import read_header
from trainer_core.sampler import load_for_sampling

PROMPTS = ["a red ring", "thing 1, big"]
TORTURE = {
    "run.steps": 12,
    "run.accumulation": 3,
    "adapter.dropout": 0.1,
    "dataset.caption_dropout": 0.3,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_steps": 2,
    "objective.min_snr_gamma": 5.0,
    "objective.noise_offset": 0.05,
}
LIVE = {"dataset.shuffle_tags": True, "dataset.keep_tags": 1, "dataset.crop": "random", "dataset.variants": 0}


def tensors(result):
    return load_file(result.lora)


def same(a, b):
    a, b = tensors(a), tensors(b)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def steps_in(folder):
    return [line["step"] for line in metrics.read(folder / "metrics.jsonl") if "loss" in line]


# ---- what a LoRA file does elsewhere


def pictures_of(pipe, prompts, seed, guidance, negative="", steps=4, size=64):
    """What diffusers' pipeline draws: float32 [N, H, W, 3] in 0..1, a seed for each prompt."""
    drawn = []
    for number, prompt in enumerate(prompts):
        generator = torch.Generator().manual_seed(seed + number)
        drawn.append(
            pipe(
                prompt,
                negative_prompt=negative,
                guidance_scale=guidance,
                num_inference_steps=steps,
                generator=generator,
                width=size,
                height=size,
                output_type="pt",
            ).images[0]
        )
    return torch.stack(drawn).permute(0, 2, 3, 1)


@pytest.mark.parametrize("changes", [{}, {"adapter.rslora": True, "adapter.alpha": 3.0, "adapter.targets": ["all"]}])
def test_diffusers_draws_with_the_file_what_the_trainer_draws(train, pipeline, base, tmp_path, changes):
    settings = {"run.steps": 15, "optimizer.learning_rate": 2e-2, "run.preview_every": 0}
    looks = {"preview.prompts": PROMPTS, "preview.sampler": "ddim", "preview.steps": 4, "preview.seed": 11}
    result, heard = train({**settings, **looks, **changes})
    # The preview of the last step is the trainer's own picture: drawn with the modules that were trained.
    (preview,) = heard.of(Previewed)

    pipe = pipeline()
    pipe.scheduler = registry.load(str(base)).diffusion.sampler("ddim")
    before = pictures_of(pipe, PROMPTS, 11, 5.0)
    assert (before - preview.pictures).abs().max() > 0.05
    pipe.load_lora_weights(str(result.folder), weight_name=result.lora.name, local_files_only=True)
    after = pictures_of(pipe, PROMPTS, 11, 5.0)
    torch.testing.assert_close(after, preview.pictures, rtol=0, atol=1e-4)

    # So does `scion sample`, from the file.
    config = PreviewConfig(sampler="ddim", steps=4, seed=11)
    ours = sampling.draw(load_for_sampling(str(base), str(result.lora)), PROMPTS, config, 64, 64)
    torch.testing.assert_close(ours, preview.pictures, rtol=0, atol=1e-4)


def swapped(state):
    """The halves exchanged, and transposed so that they still multiply."""
    other = {".lora_down.": ".lora_up.", ".lora_up.": ".lora_down."}
    turned = {}
    for key, value in state.items():
        for half, name in other.items():
            if half in key:
                turned[key.replace(half, name)] = value.T.contiguous()
                break
        else:
            turned[key] = value
    return turned


def test_with_a_and_b_swapped_the_file_loads_nowhere_or_draws_something_else(train, pipeline, base, tmp_path):
    looks = {"preview.prompts": PROMPTS, "preview.sampler": "ddim", "preview.steps": 4}
    result, heard = train({"run.steps": 15, "optimizer.learning_rate": 2e-2, "adapter.targets": ["attn1"], **looks})
    (preview,) = heard.of(Previewed)
    state = tensors(result)
    plain = {key: value for key, value in state.items()}
    for key in state:
        if ".lora_down." in key:
            up = key.replace(".lora_down.", ".lora_up.")
            plain[key], plain[up] = state[up], state[key]
    save_file(plain, tmp_path / "exchanged.safetensors")
    pipe = pipeline()
    with pytest.raises(RuntimeError, match="size mismatch"):
        pipe.load_lora_weights(str(tmp_path), weight_name="exchanged.safetensors", local_files_only=True)
    with pytest.raises(BadInput, match="do not fit the weight"):
        load_for_sampling(str(base), str(tmp_path / "exchanged.safetensors"))

    # Self-attention is square, so its halves fit transposed too: the file loads, and is another LoRA.
    save_file(swapped(state), tmp_path / "turned.safetensors")
    pipe = pipeline()
    pipe.scheduler = registry.load(str(base)).diffusion.sampler("ddim")
    pipe.load_lora_weights(str(tmp_path), weight_name="turned.safetensors", local_files_only=True)
    assert (pictures_of(pipe, PROMPTS, 0, 5.0) - preview.pictures).abs().max() > 0.01


# ---- stopping and going on


@pytest.mark.parametrize("live", [{}, LIVE], ids=["cached", "live"])
def test_a_run_that_stopped_ends_in_the_same_bits_as_one_that_did_not(train, live):
    straight, _ = train({**TORTURE, **live, "dataset.workers": 0}, "straight")
    stopped, heard = train({**TORTURE, **live, "dataset.workers": 3}, "stopped", stop_after=5)
    assert (stopped.status, stopped.step, stopped.total) == ("stopped", 5, 12)
    assert "scion train" in heard.of(Finished)[0].lines[-1]
    assert not same(straight, stopped)

    resumed, heard = train({**TORTURE, **live, "dataset.workers": 1}, "stopped")
    assert (resumed.status, resumed.step) == ("finished", 12)
    assert heard.of(Started)[0].step == 5
    assert same(straight, resumed)
    assert steps_in(resumed.folder) == list(range(1, 13))
    # Every loss on the way is the same number, too.
    losses = [
        [line["loss"] for line in metrics.read(result.folder / "metrics.jsonl") if "loss" in line]
        for result in (straight, resumed)
    ]
    assert losses[0] == losses[1]


def test_a_resumed_run_writes_the_same_metadata_times_aside(train):
    straight, _ = train({"run.steps": 4}, "straight")
    train({"run.steps": 4}, "stopped", stop_after=2)
    resumed, _ = train({"run.steps": 4}, "stopped")
    both = [dict(read_header(result.lora).metadata) for result in (straight, resumed)]
    differing = {key for key in both[0] | both[1] if both[0].get(key) != both[1].get(key)}
    assert all("time" in key or "date" in key or "_at" in key for key in differing), differing
    assert both[0]["ss_steps"] == "4"


def test_previews_validation_and_checkpoints_do_not_change_what_is_trained(train):
    settings = {"run.steps": 6, "adapter.dropout": 0.2, "dataset.holdout": 1, "dataset.caption_dropout": 0.2}
    quiet, heard = train({**settings, "run.checkpoint_every": 0, "run.validate_every": 100}, "quiet")
    assert len(heard.of(Previewed)) == len(heard.of(Validated)) == 1
    busy, heard = train(
        {
            **settings,
            "run.preview_every": 2,
            "run.validate_every": 1,
            "run.checkpoint_every": 1,
            "preview.sampler": "euler_ancestral",
        },
        "busy",
    )
    assert [event.step for event in heard.of(Previewed)] == [2, 4, 6]
    assert [event.step for event in heard.of(Validated)] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in heard.of(Checkpointed)] == [1, 2, 3, 4, 5, 6]
    assert same(quiet, busy)


def test_the_validation_loss_is_measured_on_the_same_draws_at_every_step(train):
    _, heard = train({"run.steps": 3, "optimizer.learning_rate": 1e-12, "run.validate_every": 1, "dataset.holdout": 2})
    losses = [event.loss for event in heard.of(Validated)]
    assert len(losses) == 3
    assert max(losses) - min(losses) < 1e-6


@pytest.mark.parametrize("damage", ["adapter.safetensors", "optimizer.safetensors", "state.json", "missing"])
def test_a_torn_checkpoint_is_passed_over_with_a_warning_and_the_run_ends_in_the_same_bits(train, damage):
    settings = {"run.steps": 4, "run.checkpoint_every": 1}
    straight, _ = train(settings, "straight")
    train(settings, "torn", stop_after=3)
    newest = straight.folder.parent / "torn" / "checkpoints" / "step-00000003"
    if damage == "missing":
        (newest / "state.json").unlink()
    else:
        whole = (newest / damage).read_bytes()
        (newest / damage).write_bytes(whole[: len(whole) // 2])
    resumed, heard = train(settings, "torn", warnings=True)
    (warning,) = heard.of(Warned)
    assert str(newest) in warning.message and "before it" in warning.message
    assert heard.of(Started)[0].step == 2
    assert same(straight, resumed)
    assert steps_in(resumed.folder) == [1, 2, 3, 4]
    # The step was done again, and this time its checkpoint is whole.
    assert checkpoints.read(newest).step == 3


def test_an_interrupt_between_two_steps_keeps_the_last_whole_one(train, make_recipe, tmp_path):
    """Ctrl-C a second time, or the host's own interruption, comes as an exception from wherever the run is."""

    class Interruption(BaseException):
        pass

    class Impatient:
        def on(self, event):
            if isinstance(event, Steps) and event.last == 3:
                raise Interruption

    straight, _ = train({"run.steps": 5}, "straight")
    with pytest.raises(Interruption) as caught:
        run.train(make_recipe({"run.steps": 5}), tmp_path / "run", [Impatient()])
    assert "step 3" in caught.value.__notes__[0] and "scion train" in caught.value.__notes__[0]
    resumed, heard = train({"run.steps": 5})
    assert heard.of(Started)[0].step == 3
    assert same(straight, resumed)
    assert steps_in(resumed.folder) == [1, 2, 3, 4, 5]


def test_a_stop_before_the_first_step_leaves_a_folder_that_can_be_used_again(train):
    result, heard = train(stop_after=0)
    assert (result.status, result.step, result.lora) == ("stopped", 0, None)
    assert heard.of(Finished)[0].status == "stopped"
    result, _ = train()
    assert (result.status, result.step) == ("finished", 3)


def test_only_the_last_checkpoints_are_kept(train):
    result, _ = train({"run.steps": 6, "run.checkpoint_every": 2, "run.keep_checkpoints": 2})
    kept = sorted(path.name for path in (result.folder / "checkpoints").iterdir())
    assert kept == ["step-00000004", "step-00000006"]


def test_checkpoints_come_by_time_too(train):
    _, heard = train({"run.steps": 3, "run.checkpoint_every": 0, "run.checkpoint_minutes": 1e-6})
    assert [event.step for event in heard.of(Checkpointed)] == [1, 2, 3]


# ---- the same run again


def test_a_finished_run_is_returned_at_once(train):
    first, _ = train()
    written = first.lora.stat().st_mtime_ns
    again, heard = train()
    assert again == first
    assert again.lora.stat().st_mtime_ns == written
    assert not heard.of(Steps) and not heard.of(Started)
    assert "nothing was left to do" in heard.of(Finished)[0].lines[0]


def test_a_finished_run_whose_lora_was_deleted_writes_it_again(train):
    first, _ = train()
    before = tensors(first)
    first.lora.unlink()
    again, heard = train()
    assert not heard.of(Steps)
    assert again.status == "finished"
    assert all(torch.equal(value, before[key]) for key, value in tensors(again).items())


def test_more_steps_extend_a_finished_run_to_the_longer_one(train):
    straight, _ = train({"run.steps": 7}, "straight")
    train({"run.steps": 4})
    longer, heard = train({"run.steps": 7})
    assert heard.of(Started)[0].step == 4
    assert [event.first for event in heard.of(Steps)] == [5, 6, 7]
    assert same(straight, longer)
    assert steps_in(longer.folder) == list(range(1, 8))


def test_fewer_steps_than_are_done_are_refused_with_both_numbers(train):
    train({"run.steps": 5})
    with pytest.raises(BadInput, match="run.steps: 3, but the run in .* has done 5 already"):
        train({"run.steps": 3})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"optimizer.learning_rate": 5e-4}, "optimizer.learning_rate was 0.001, is 0.0005"),
        ({"adapter.rank": 8}, "adapter.rank was 4, is 8"),
        ({"run.seed": 1}, "run.seed was 0, is 1"),
        ({"dataset.flip": True}, "dataset.flip was False, is True"),
    ],
)
def test_a_folder_with_another_run_is_refused_and_the_setting_named(train, changes, named):
    train()
    with pytest.raises(BadInput, match="holds another run") as caught:
        train(changes)
    assert named in str(caught.value)


def test_the_length_counts_as_another_run_only_where_the_learning_rate_depends_on_it(train):
    train({"optimizer.schedule": "linear"})
    with pytest.raises(BadInput, match="run.steps was 3, is 4"):
        train({"optimizer.schedule": "linear", "run.steps": 4})


def test_another_dataset_is_another_run(train, pictures, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(pictures, copy)
    train({"dataset.path": str(copy)})
    (copy / "0.txt").write_text("something else")
    with pytest.raises(BadInput, match="the dataset or the base model has changed"):
        train({"dataset.path": str(copy)})


def test_the_precision_counts_as_it_is_and_not_as_it_was_asked_for(train):
    first, _ = train({"run.precision": "auto"})
    again, heard = train({"run.precision": "fp32"})
    assert again == first and not heard.of(Started)
    with pytest.raises(BadInput, match="holds another run .run.precision was 'fp32', is 'bf16'.;"):
        train({"run.precision": "bf16"})


@pytest.mark.parametrize(
    ("part", "change"),
    [("scheduler/scheduler_config.json", {"beta_end": 0.02}), ("vae/config.json", {"scaling_factor": 0.2})],
)
def test_another_noise_schedule_or_vae_is_another_run(train, base, tmp_path, part, change):
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    first, _ = train({"base": str(copy)})
    assert train()[0] == first
    path = copy / part
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadInput, match="the dataset or the base model has changed"):
        train({"base": str(copy)})


def test_what_does_not_decide_the_weights_may_change(train):
    train()
    result, heard = train({"run.preview_every": 1, "run.checkpoint_every": 1, "output.dtype": "fp16"})
    assert result.step == 3 and not heard.of(Steps)


@pytest.mark.parametrize(
    ("changes", "key", "value"),
    [
        ({"output.author": "me"}, "modelspec.author", "me"),
        ({"output.license": "CC0"}, "modelspec.license", "CC0"),
        ({"output.description": "a thing"}, "modelspec.description", "a thing"),
        ({"output.name": "ding"}, "modelspec.title", "ding"),
    ],
)
def test_a_finished_run_asked_with_other_words_writes_its_file_again_without_a_step(train, changes, key, value):
    first, _ = train()
    before, numbers = read_header(first.lora).metadata, tensors(first)
    assert before.get(key) != value
    again, heard = train(changes)
    assert not heard.of(Steps)
    assert read_header(again.lora).metadata[key] == value
    assert all(torch.equal(number, numbers[name]) for name, number in tensors(again).items())
    written = again.lora.stat().st_mtime_ns
    third, heard = train(changes)
    assert third == again and third.lora.stat().st_mtime_ns == written and not heard.of(Started)


def test_a_finished_run_asked_in_another_precision_and_dialect_writes_its_file_again_without_a_step(train):
    first, _ = train()
    before = tensors(first)
    again, heard = train({"output.dtype": "bf16", "output.dialect": "comfyui"})
    assert not heard.of(Steps) and again.lora == first.lora
    now = tensors(again)
    assert {value.dtype for key, value in now.items() if "lora_" in key} == {torch.bfloat16}
    assert not now.keys() & before.keys()
    assert again.step == 3 and (again.folder / "checkpoints" / "step-00000003").is_dir()


def test_the_state_of_a_run_of_an_older_scion_is_read_and_its_file_returned(train):
    first, _ = train()
    path = first.folder / "run.json"
    state = json.loads(path.read_text())
    del state["output"]
    path.write_text(json.dumps(state))
    again, heard = train()
    assert again == first and not heard.of(Started)


def test_a_run_begun_with_existing_new_or_error_goes_on_by_its_own_recipe(train):
    for existing in ("new", "error"):
        begun, _ = train({"run.existing": existing, "run.steps": 4}, existing, stop_after=2)
        written = recipe.read(begun.folder / "recipe.json")
        assert written.run.existing == "resume"
        ended, heard = train(written, existing)
        assert (ended.folder, ended.step, heard.of(Started)[0].step) == (begun.folder, 4, 2)


def test_existing_new_starts_beside_and_error_refuses(train):
    first, _ = train()
    beside, _ = train({"run.existing": "new"})
    assert (first.folder.name, beside.folder.name) == ("run", "run-2")
    assert same(first, beside)
    with pytest.raises(BadInput, match="holds a run already .finished, step 3 of 3"):
        train({"run.existing": "error"})


def test_a_second_run_in_a_folder_that_trains_is_refused(train, tmp_path):
    with RunFolder(tmp_path / "run").locked(), pytest.raises(BadInput, match="another process trains in this folder"):
        train()
    refused = []

    def second():
        try:
            train()
        except BadInput as error:
            refused.append(str(error))

    with RunFolder(tmp_path / "run").locked():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "another process trains" in refused[0]
    assert train()[0].status == "finished"


# ---- what lies in the folder


def test_the_folder_holds_all_that_repeats_and_explains_the_run(train):
    result, heard = train({"run.preview_every": 2, "dataset.holdout": 1, "output.name": "ding"})
    assert result.lora == result.folder / "ding.safetensors"
    written = recipe.read(result.folder / "recipe.json")
    assert written.run.steps == 3 and written.output.name == "ding"
    state = json.loads((result.folder / "run.json").read_text())
    assert (state["status"], state["step"], state["total"], state["lora"]) == ("finished", 3, 3, "ding.safetensors")
    with Image.open(result.folder / "loss.png") as plot:
        assert plot.format == "PNG" and plot.size == (960, 480)
        assert len(plot.convert("RGB").getcolors(2**20)) > 20
    with Image.open(heard.of(Previewed)[0].path) as strip:
        assert strip.width >= 192 and strip.height >= 192
    lines = metrics.read(result.folder / "metrics.jsonl")
    assert [line["step"] for line in lines if "preview" in line] == [2, 3]
    assert [line["step"] for line in lines if "validation" in line] == [3]
    assert all(line["learning_rate"] == 1e-3 and line["seconds"] > 0 for line in lines if "loss" in line)
    assert "5 pictures" in "\n".join(heard.of(Scanned)[0].lines)
    assert [line for line in heard.of(Finished)[0].lines if "ComfyUI" in line]


def test_the_folders_recipe_goes_on_with_the_run(train):
    first, _ = train(stop_after=1)
    result, heard = train(recipe.read(first.folder / "recipe.json"))
    assert heard.of(Started)[0].step == 1
    assert result.status == "finished"


def test_events_tell_where_the_run_is(train):
    _, heard = train({"run.steps": 5, "optimizer.schedule": "linear", "optimizer.learning_rate": 1e-2})
    steps = heard.of(Steps)
    assert [event.first for event in steps] == [1, 2, 3, 4, 5]
    assert [round(event.learning_rate, 6) for event in steps] == [0.01, 0.008, 0.006, 0.004, 0.002]
    # Five pictures in batches of at most two of one bucket: four batches an epoch.
    assert [event.epoch for event in steps] == [0, 0, 0, 0, 1]
    assert all(event.total == 5 and event.seconds_per_step > 0 and event.memory > 2**20 for event in steps)
    assert steps[-1].seconds_left == 0
    assert steps[0].seconds_left == pytest.approx(4 * steps[0].seconds_per_step)
    assert heard.of(Started)[0].precision == "fp32"


def test_epochs_are_counted_in_whole_passes(train):
    result, _ = train({"run.steps": 0, "run.epochs": 2, "run.accumulation": 3})
    assert result.total == result.step == 3  # 2 × 4 batches, three to a step, rounded up


# ---- what must not happen


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


def test_two_runs_on_one_model_equal_two_runs_on_two(train, model):
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


def test_a_stop_while_a_resumed_run_is_still_encoding_tells_the_step_that_it_is_at(train, make_recipe, tmp_path):
    first, _ = train({"run.steps": 5}, stop_after=3)

    class Waiting:
        def __init__(self):
            self.encoding, self.ends = False, []

        def on(self, event):
            self.encoding |= getattr(event, "what", "") == "encoding"
            self.ends += [event] if isinstance(event, Finished) else []

    observer = Waiting()
    result = run.train(make_recipe({"run.steps": 5}), tmp_path / "run", [observer], lambda: observer.encoding)
    assert (result.status, result.step, result.total, result.lora) == ("stopped", 3, 5, first.lora)
    assert (observer.ends[0].step, observer.ends[0].total) == (3, 5)
    again, heard = train({"run.steps": 5})
    assert heard.of(Started)[0].step == 3 and again.step == 5


def test_the_written_recipe_names_its_files_from_anywhere(train, base, pictures, tmp_path, monkeypatch):
    first, _ = train({"run.steps": 1}, "first")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, "here")
    shutil.copy(first.lora, "start.safetensors")
    shutil.copytree(pictures, "pictures")
    relative = {"base": "here", "dataset.path": "pictures", "adapter.start_from": "start.safetensors"}
    result, _ = train({**relative, "dataset.cache": "disk", "dataset.cache_path": "encoded"})
    written = recipe.read(result.folder / "recipe.json")
    assert (written.base, written.dataset.path) == (str(tmp_path / "here"), str(tmp_path / "pictures"))
    assert written.adapter.start_from == str(tmp_path / "start.safetensors")
    assert written.dataset.cache_path == str(tmp_path / "encoded")
    monkeypatch.chdir("/")
    _, heard = train(written)
    assert not heard.of(Steps)


def test_the_built_in_base_keeps_its_name_whatever_lies_in_the_folder(make_recipe, tmp_path, monkeypatch):
    from trainer_core.engine.events import Audience

    monkeypatch.chdir(tmp_path)
    (tmp_path / "scion-tiny").mkdir()
    asked = run._Run(make_recipe({"base": "scion-tiny"}), tmp_path / "run", Audience([]), lambda: False, None)
    asked._write_recipe(RunFolder(tmp_path / "run"))
    assert recipe.read(tmp_path / "run" / "recipe.json").base == "scion-tiny"


def test_the_cache_decides_nothing_but_the_time(train, tmp_path):
    settings = {"dataset.flip": True, "dataset.crop": "random", "dataset.variants": 2, "run.steps": 4}
    kept, _ = train(settings, "memory")
    for name, more in {
        "off": {"dataset.cache": "off"},
        "disk": {"dataset.cache": "disk", "dataset.cache_path": str(tmp_path / "cache")},
        "disk again": {"dataset.cache": "disk", "dataset.cache_path": str(tmp_path / "cache"), "dataset.workers": 0},
    }.items():
        assert same(kept, train({**settings, **more}, name)[0]), name


def test_pictures_in_memory_train_like_files(train, make_recipe, pictures):
    config = make_recipe({"dataset.path": ""}).dataset
    files = sorted(pictures.glob("*.png"))
    texts = [path.with_suffix(".txt").read_text() for path in files]
    scan = scan_memory([Image.open(path) for path in files], texts, config)
    result, heard = train({"dataset.path": "", "output.name": "wired"}, scan=scan)
    assert result.step == 3 and result.lora.name == "wired.safetensors"
    again, heard = train({"dataset.path": "", "output.name": "wired"}, scan=scan)
    assert again == result and not heard.of(Steps)


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
