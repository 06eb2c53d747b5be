"""The command line: exit codes 0, 1, 2 and 130, messages for a person, and Ctrl-C that loses nothing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from trainer_core import commands, recipe
from trainer_core.data.dataset import Dataset
from trainer_core.data.scan import scan_folder
from trainer_core.engine import checkpoints, metrics, sampling
from trainer_core.engine.preview_config import PreviewConfig
from trainer_core.families.registry import load
from trainer_core.families.sd15 import StableDiffusion1
from trainer_core.sampler import load_for_sampling

ROOT = Path(__file__).parent.parent


@pytest.fixture
def words(base, pictures):
    """What a short training is asked with."""
    return [
        *("train", "--base", base, "--dataset", pictures, "--quiet"),
        *("--set", "run.steps=3", "--set", "adapter.rank=2", "--set", "preview.steps=2", "--set", "run.device=cpu"),
        *("--set", "preview.count=1", "--set", "output.dtype=fp32"),
    ]


# ---- train


def test_train_writes_a_lora_and_says_where_and_again_it_is_done_at_once(scion, words, tmp_path):
    code, said, errors = scion(*words, "--out", "mine")
    assert code == 0, errors
    assert (tmp_path / "mine" / "things.safetensors").is_file()
    assert "5 pictures, 5 with a caption" in said
    assert "Training 3 steps: " in said and "fp32 on cpu" in said
    assert f"LoRA: {Path('mine') / 'things.safetensors'}" in said
    assert "56 of 56 modules load in ComfyUI" in said and "56 of 56 modules load in diffusers" in said
    code, said, _ = scion(*words, "--out", "mine")
    assert code == 0
    assert "nothing was left to do" in said and "Training" not in said


def test_without_out_a_run_lies_under_scion_runs_by_the_datasets_name(scion, words, tmp_path):
    assert scion(*words)[0] == 0
    assert (tmp_path / "scion-runs" / "things" / "things.safetensors").is_file()


def test_a_run_folders_recipe_goes_on_in_that_folder_from_anywhere(scion, words, tmp_path, monkeypatch):
    assert scion(*words, "--out", "mine")[0] == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, said, errors = scion("train", tmp_path / "mine" / "recipe.json", "--set", "run.steps=5", "--quiet")
    assert code == 0, errors
    assert "Going on at step 3 of 5" in said
    assert not list((tmp_path / "elsewhere").iterdir())


def test_what_the_command_line_says_counts_more_than_the_recipe(scion, base, pictures, tmp_path):
    path = tmp_path / "my.toml"
    text = f'base = "nowhere"\n[dataset]\npath = {json.dumps(str(pictures))}\n[run]\nsteps = 2\ndevice = "cpu"\n'
    path.write_text(text + "[preview]\nsteps = 1\n[adapter]\nrank = 2\n")
    code, _, errors = scion("train", path, "--base", base, "--out", "mine", "--set", "adapter.rank=3", "--quiet")
    assert code == 0, errors
    written = recipe.read(tmp_path / "mine" / "recipe.json")
    assert (written.adapter.rank, written.run.steps) == (3, 2)
    assert Path(written.base) == base


def test_all_wrong_settings_are_told_at_once_with_exit_code_2(scion, tmp_path):
    wrong = ("adapter.rnk=2", "run.steps=x", "run.batch_size", "no.such=1")
    code, said, errors = scion("train", "--dataset", "x", *(word for name in wrong for word in ("--set", name)))
    assert code == 2 and not said
    assert errors.splitlines() == [
        "scion: adapter.rnk: unknown setting; did you mean 'adapter.rank'?",
        "scion: run.steps: expected a whole number, got 'x'",
        "scion: --set run.batch_size: expected PART.FIELD=VALUE, such as adapter.rank=8",
        "scion: no.such: unknown setting",
    ]
    code, _, errors = scion("train", "--dataset", "x", "--set", "adapter.rank=0", "--set", "run.steps=-1")
    assert code == 2
    assert "adapter.rank: 0 is out of range: 1 to 1024" in errors and "run.steps: -1 is out of range" in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["train"], "dataset.path: is empty; name the folder of pictures with --dataset"),
        (["train", "none.json"], "none.json: cannot be read as a recipe"),
        (["train", "--dataset", "nowhere", "--base", "BASE"], "nowhere"),
        (["train", "--dataset", "PICTURES", "--base", "nowhere"], "base: nothing at 'nowhere'"),
        (["inspect", "none.safetensors"], "none.safetensors"),
        (["dataset", "nowhere", "--base", "BASE"], "nowhere"),
        (["sample", "--base", "nowhere", "--prompt", "x"], "base: nothing at 'nowhere'"),
        (["sample", "--base", "BASE", "--prompt", "x", "--lora", "none.safetensors"], "none.safetensors"),
        (["sample", "--base", "BASE", "--prompt", "x", "--sampler", "ddimm"], "--sampler: 'ddimm' is not one of"),
        (["sample", "--base", "BASE", "--prompt", "x", "--steps", "0"], "--steps: 0 is out of range: 1 to 1000"),
        (["sample", "--base", "BASE", "--prompt", "x", "--out", "a.jpg"], "--out: a.jpg does not end in .png"),
        (["sample", "--base", "BASE", "--prompt", "x", "--width", "60"], "--width: 60 is no multiple of 8"),
        (["sample", "--base", "BASE", "--prompt", "x", "--device", "gpu"], "--device: 'gpu' cannot be used here"),
        (["sample", "--base", "BASE", "--prompt", "x", "--precision", "f8"], "--precision: 'f8'"),
    ],
    ids=lambda given: " ".join(given)[:50] if isinstance(given, list) else "",
)
def test_bad_input_is_exit_code_2_with_the_setting_and_no_traceback(scion, base, pictures, tmp_path, given, said):
    put = {"BASE": base, "PICTURES": pictures}
    code, _, errors = scion(*(put.get(word, word) for word in given))
    assert code == 2
    assert said in errors and errors.startswith("scion: ") and "Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_is_exit_code_1_and_says_what_to_change(scion, words, monkeypatch):
    predict = StableDiffusion1.predict

    def failing(self, denoiser, *given):
        return predict(self, denoiser, *given) * (float("nan") if denoiser.training else 1)

    monkeypatch.setattr(StableDiffusion1, "predict", failing)
    code, _, errors = scion(*words, "--out", "mine", "--set", "run.steps=9")
    assert code == 1
    assert "not finite 5 times in a row" in errors and "Lower optimizer.learning_rate (0.0001)" in errors
    assert "Kept: step 5" in errors
    assert "Traceback" not in errors


def test_a_bug_keeps_its_traceback_and_an_interrupt_is_exit_code_130(scion, monkeypatch):
    def failing(given):
        raise ValueError("something unforeseen")

    monkeypatch.setattr(commands, "inspect", failing)
    code, _, errors = scion("inspect", "x")
    assert code == 1 and "Traceback" in errors and "something unforeseen" in errors

    def interrupted(given):
        error = KeyboardInterrupt()
        error.add_note("Kept: step 7.")
        raise error

    monkeypatch.setattr(commands, "inspect", interrupted)
    code, _, errors = scion("inspect", "x")
    assert code == 130 and "Kept: step 7." in errors


def test_a_stop_before_anything_is_loaded_is_exit_code_130(scion, words, monkeypatch):
    monkeypatch.setattr(commands, "stop_on_interrupt", lambda: lambda: True)
    code, said, _ = scion(*words, "--out", "mine")
    assert code == 130
    assert "Stopped before the first step" in said


# ---- Ctrl-C and worse


@pytest.fixture
def started(base, pictures):
    """Starts a training in a process of its own and waits for its third step; ends it after the test."""
    processes = []

    def start(out, *settings):
        command = [sys.executable, "-m", "trainer_core", "train", "--base", base, "--dataset", pictures, "--out", out]
        chosen = ("run.device=cpu", "adapter.rank=2", "preview.steps=1", "preview.count=1", "output.dtype=fp32")
        for setting in (*chosen, *settings):
            command += ["--set", setting]
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        processes.append(process)
        history, deadline = Path(out) / "metrics.jsonl", time.monotonic() + 120
        while not any(line["step"] >= 3 for line in metrics.read(history)):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"no third step: {process.communicate()[0]}")
            time.sleep(0.02)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.skipif(os.name == "nt", reason="a console's Ctrl-C cannot be sent to one process there")
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(scion, started, tmp_path):
    out = tmp_path / "mine"
    process = started(out, "run.steps=100000", "run.checkpoint_every=0", "run.keep_checkpoints=1")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Stopping after this step" in said and "Stopped and kept: step " in said
    assert "Traceback" not in said
    (kept,) = (out / "checkpoints").iterdir()
    step = checkpoints.read(kept).step
    assert step == metrics.read(out / "metrics.jsonl")[-1]["step"] >= 3
    assert (out / "things.safetensors").is_file() and (out / "loss.png").is_file()
    # The very words that it said go on.
    line = re.search(r'scion train "(.+)"', said).group(1)
    code, said, errors = scion("train", line, "--set", f"run.steps={step + 2}", "--quiet")
    assert code == 0, errors
    assert f"Going on at step {step} of {step + 2}" in said


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_killed_run_goes_on_to_the_same_bits(scion, started, base, pictures, tmp_path):
    settings = ("run.batch_size=2", "run.accumulation=2", "adapter.dropout=0.1", "run.checkpoint_every=1")
    out = tmp_path / "killed"
    process = started(out, *settings, "run.steps=100000")
    process.kill()
    process.communicate()
    steps = max(int(path.name[5:]) for path in (out / "checkpoints").glob("step-*")) + 2
    same = [word for name in settings for word in ("--set", name)]
    words = ["train", "--base", base, "--dataset", pictures, "--quiet", *same, "--set", f"run.steps={steps}"]
    for setting in ("run.device=cpu", "adapter.rank=2", "preview.steps=1", "preview.count=1", "output.dtype=fp32"):
        words += ["--set", setting]
    code, said, errors = scion(*words, "--out", out)
    assert code == 0, errors
    assert f"of {steps}:" in said and "Going on at step" in said
    assert scion(*words, "--set", "run.checkpoint_every=0", "--out", tmp_path / "straight")[0] == 0
    ours, theirs = (load_file(tmp_path / name / "things.safetensors") for name in ("killed", "straight"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    done = [line["step"] for line in metrics.read(out / "metrics.jsonl") if "loss" in line]
    assert done == list(range(1, steps + 1))


# ---- sample


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def test_sample_draws_with_a_lora_what_the_engine_draws(scion, words, base, tmp_path):
    scion(*words, "--out", "mine", "--set", "optimizer.learning_rate=0.05", "--set", "run.steps=6")
    said = ["sample", "--base", base, "--prompt", "a red ring", "--seed", "7", "--steps", "3", "--device", "cpu"]
    assert scion(*said, "--out", "plain.png")[0] == 0
    lora = tmp_path / "mine" / "things.safetensors"
    code, told, errors = scion(*said, "--lora", lora, "--out", "with.png", "--sampler", "ddim")
    assert code == 0, errors
    assert "with.png  seed 7  a red ring" in told
    config = PreviewConfig(sampler="ddim", steps=3, seed=7)
    expected = sampling.draw(load_for_sampling(str(base), str(lora)), ["a red ring"], config, 64, 64)[0]
    assert np.abs(pixels("with.png") - expected.numpy() * 255).max() <= 1
    assert np.abs(pixels("with.png") - pixels("plain.png")).max() > 20
    assert scion(*said, "--lora", lora, "--sampler", "ddim", "--out", "half.png", "--precision", "bf16")[0] == 0
    assert 0 < np.abs(pixels("half.png") - pixels("with.png")).mean() < 10
    assert scion(*said, "--lora", lora, "--strength", "0", "--out", "none.png")[0] == 0
    assert np.abs(pixels("none.png") - pixels("plain.png")).max() <= 1


def test_several_prompts_become_several_pictures(scion, base, tmp_path):
    said = ["sample", "--base", base, "--steps", "1", "--prompt", "a/b: c", "--prompt", "a/b: c", "--device", "cpu"]
    assert scion(*said, "--width", "48", "--height", "40")[0] == 0
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["a-b-c-0.png", "a-b-c-1.png"]
    assert pixels(tmp_path / "samples" / "a-b-c-0.png").shape == (40, 48, 3)
    assert scion(*said, "--out", "x.png")[0] == 0
    assert (tmp_path / "x-1.png").is_file() and (tmp_path / "x-2.png").is_file()


# ---- the others


def test_inspect_tells_a_person_and_a_program(scion, words, tmp_path):
    scion(*words, "--out", "mine", "--set", "adapter.alpha=3", "--set", "dataset.trigger=dingsda")
    file = tmp_path / "mine" / "things.safetensors"
    code, said, _ = scion("inspect", file)
    assert code == 0
    assert "rank: 2; alpha: 3" in said and "56 in unet" in said
    code, said, _ = scion("inspect", file, "--json")
    found = json.loads(said)
    assert (code, found["ranks"], found["alphas"], found["broken"]) == (0, {"2": 56}, {"3": 56}, [])
    assert found["metadata"]["ss_network_dim"] in (2, "2")
    assert "dingsda" in said
    assert str(tmp_path) not in said.replace(json.dumps(str(file)), "")  # no paths of this machine in the metadata


def test_dataset_reports_counts_and_every_problem(scion, base, pictures, tmp_path):
    code, said, _ = scion("dataset", pictures, "--base", base)
    assert code == 0
    config = recipe.from_dict({"dataset": {"path": str(pictures)}}).dataset
    split = Dataset(scan_folder(config).items, config, 0, 8, load(str(base)).resolution)
    for bucket, (count, _) in split.bucket_counts.items():
        assert re.search(rf"{bucket} +{count} +{count}\n", said)
    code, said, _ = scion("dataset", pictures, "--base", base, "--set", "dataset.repeats=3")
    assert code == 0 and "15 showings an epoch" in said

    bad = tmp_path / "bad"
    shutil.copytree(pictures, bad)
    (bad / "0.txt").unlink()
    (bad / "1.png").write_bytes(b"no picture")
    code, said, errors = scion("dataset", bad, "--base", base)
    assert code == 2
    assert "0.png: has no caption" in said and "1.png: " in said and "2 problems" in said
    assert "2 problems to mend, listed above" in errors


def test_several_folders_and_a_class_are_trained_and_kept_in_the_recipe(scion, words, pictures, tmp_path):
    for name in ("more", "class"):
        shutil.copytree(pictures, tmp_path / name)
    given = ["--dataset", tmp_path / "more", "--regularisation", tmp_path / "class"]
    changed = ["--set", "dataset.folders[0].repeats=2", "--set", "dataset.folders[1].default_caption=a thing"]
    code, _, errors = scion(*words, *given, *changed, "--save-recipe", "mine.toml")
    assert code == 0, errors
    assert recipe.read(tmp_path / "mine.toml").as_dict()["dataset"]["folders"] == [
        {"path": str(tmp_path / "more"), "repeats": 2},
        {"path": str(tmp_path / "class"), "regularisation": True, "default_caption": "a thing"},
    ]
    code, said, _ = scion("dataset", tmp_path / "mine.toml")
    assert code == 0
    assert "15 pictures, 15 with a caption, 15 showings an epoch and as many of 5 regularisation pictures" in said
    assert "folder more: 5 pictures, repeats 2, weight 1" in said and "class/0.png: thing 0, red, big, old" in said
    code, said, _ = scion("dataset", pictures, tmp_path / "more", "--set", "dataset.caption_prefix=photo of")
    assert code == 0 and "folder more: 5 pictures" in said and ": photo of thing 0, red, big, old" in said
    code, _, errors = scion(*words, "--set", "dataset.folders[3].repeats=2")
    assert code == 2 and "dataset.folders[3].repeats: dataset.folders has no entry 3; there is none" in errors
    assert "The first folder is dataset.path" in errors


def test_a_dataset_with_problems_keeps_training_from_starting_and_names_them_all(scion, words, pictures, tmp_path):
    bad = tmp_path / "bad"
    shutil.copytree(pictures, bad)
    (bad / "0.txt").unlink()
    (bad / "1.png").write_bytes(b"no picture")
    words[words.index(pictures)] = bad
    code, _, errors = scion(*words, "--out", "mine")
    assert code == 2
    assert "0.png: has no caption" in errors and "1.png: " in errors
    assert not (tmp_path / "mine").exists()


def test_cache_tells_its_size_and_is_pruned(scion, words, tmp_path):
    folder = tmp_path / "encoded"
    kept = ["--set", "dataset.cache=disk", "--set", f"dataset.cache_path={folder}"]
    assert scion(*words, *kept, "--out", "mine")[0] == 0
    code, said, _ = scion("cache", "--path", folder)
    assert code == 0
    assert re.search(r"GB in 11 entries", said)  # five pictures, five captions, the empty caption
    scion("cache", "--path", folder, "--prune", "--limit-gb", 1)
    assert (folder / "scan.sqlite").exists() and "11 entries" in scion("cache", "--path", folder)[1]
    code, said, _ = scion("cache", "--path", folder, "--prune")
    assert code == 0 and "freed" in said and "in 11 entries" in said and "0.000 GB in 0 entries" in said
    assert not (folder / "scan.sqlite").exists()
    assert scion("cache", "--path", tmp_path / "nowhere")[0] == 0


def test_help_names_every_setting_with_its_default_and_range(scion):
    code, said, _ = scion("train", "--help")
    assert code == 0
    for name, described in recipe.settings().items():
        assert f" {name} " in said, name
        assert described.range in " ".join(said.split()), name
    flat = " ".join(said.split())
    assert all(" ".join(described.help.split()) in flat for described in recipe.settings().values())


def test_words_that_are_no_command_are_exit_code_2_and_the_version_is_told(scion):
    assert scion("tarin")[0] == 2
    assert scion()[0] == 2
    assert scion("sample")[0] == 2
    code, said, _ = scion("--version")
    assert code == 0 and re.fullmatch(r"scion \d+\.\d+\.\d+\n", said)


def test_help_comes_without_loading_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "trainer_core", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "train a LoRA" in done.stdout
    assert " torch\n" not in done.stderr and " diffusers\n" not in done.stderr


def test_libraries_say_nothing_on_the_terminal(base, pictures):
    done = subprocess.run(
        [sys.executable, "-m", "trainer_core", "dataset", str(pictures), "--base", str(base)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("5 pictures") and done.stderr == ""
