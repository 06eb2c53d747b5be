"""docs/diffsynth.md is true: its settings, defaults and translations are the code's, and its dataset layout trains."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from trainer_core import recipe
from trainer_core.adapters.lora import targeted_modules
from trainer_core.adapters.lora_config import LoRAConfig
from trainer_core.engine.optimizer_config import OptimizerConfig
from trainer_core.families import registry
from trainer_core.lora_file.safe_io import read_header

PAGE = (Path(__file__).parent.parent / "docs" / "diffsynth.md").read_text(encoding="utf-8")
DEFAULTS = {
    "pretrained_path": "required",
    "pretrained_unet_path": "required",
    "pretrained_text_encoder_path": "required",
    "pretrained_fp16_vae_path": "required",
    "lora_target_modules": "to_q,to_k,to_v,to_out",
    "dataset_path": "required",
    "output_path": "./",
    "steps_per_epoch": "500",
    "height": "1024",
    "width": "1024",
    "center_crop": "off",
    "random_flip": "off",
    "batch_size": "1",
    "dataloader_num_workers": "0",
    "precision": "16-mixed",
    "learning_rate": "1e-4",
    "lora_rank": "4",
    "lora_alpha": "4.0",
    "init_lora_weights": "kaiming",
    "use_gradient_checkpointing": "off",
    "accumulate_grad_batches": "1",
    "training_strategy": "auto",
    "max_epochs": "1",
    "modelscope_model_id": "none",
    "modelscope_access_token": "none",
    "pretrained_lora_path": "none",
    "use_swanlab": "off",
}
"""DiffSynth's, of add_general_parsers in its diffsynth/trainers/text_to_image.py and of the three scripts."""
LATER = {"training_strategy", "modelscope_model_id", "modelscope_access_token"}
"""What needs several GPUs or a network."""


def rows():
    """The table's cells by DiffSynth's option."""
    lines = re.findall(r"^\| `--.*\|$", PAGE, re.M)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {re.match(r"`--(\w+)", first)[1]: rest for first, *rest in cells}


ROWS = rows()
SETTINGS = recipe.settings()
WITH_A_SETTING = [option for option, cells in ROWS.items() if cells[1].strip("`") in SETTINGS]


def pairs(option):
    """DiffSynth's values of an option, and the setting that each becomes; under "" what every other becomes."""
    found = re.findall(r"(?:`(\S+?)` |(on|off) |: )→ `([\w.]+=[^`]+)`", ROWS[option][4])
    return {literal or word: setting for literal, word, setting in found}


def translated(theirs):
    """A recipe from DiffSynth's options, as the table says: settings by name."""
    epochs, per_epoch = int(theirs.pop("max_epochs", 1)), int(theirs.pop("steps_per_epoch", 500))
    settings = {"run.steps": str(epochs * -(-per_epoch // int(theirs.get("accumulate_grad_batches", 1))))}
    for option in ("center_crop", "random_flip"):
        theirs.setdefault(option, "off")
    for option, value in theirs.items():
        setting = ROWS[option][1].strip("`")
        if setting in SETTINGS and not (option == "random_flip" and value == "off"):
            known = pairs(option)
            settings[setting] = known.get(value, known.get("", f"{setting}={value}")).partition("=")[2]
    return settings


def options_of(command):
    """The options of DiffSynth's command line, those without a value as "on"."""
    words = shlex.split(command.replace("\\\n", " "))[2:]
    return {
        word.removeprefix("--"): "on" if after.startswith("--") else after
        for word, after in zip(words, [*words[1:], "--"], strict=True)
        if word.startswith("--")
    }


def block(title):
    return re.search(rf"^{title}:\n\n```\n(.*?)```", PAGE, re.M | re.S)[1]


def test_every_option_of_the_scripts_has_a_row_with_its_default():
    told = {option: cells[0].strip("`") for option, cells in ROWS.items()}
    assert told == DEFAULTS


@pytest.mark.parametrize("option", WITH_A_SETTING)
def test_a_rows_setting_has_the_default_that_it_says(option):
    setting, said = (ROWS[option][cell].strip("`") for cell in (1, 2))
    default = SETTINGS[setting].default
    words = {"None": "empty", "": "empty", "True": "true", "False": "false"}
    text = ", ".join(default) if isinstance(default, list) else str(default)
    assert said == words.get(text, text)


def test_only_what_needs_several_gpus_or_a_network_comes_later_and_what_has_no_setting_is_known():
    assert {option for option in ROWS if "**Later.**" in ROWS[option][4]} == LATER
    assert set(ROWS) - set(WITH_A_SETTING) == {*LATER, "output_path", "init_lora_weights", "use_swanlab"}


def test_the_widgets_that_rows_name_stand_for_their_settings():
    """Read as text: the nodes' own tests have the host's classes."""
    nodes = Path(__file__).parent.parent / "nodes"
    for node, file in (("config", "train_config.py"), ("dataset", "load_dataset.py")):
        widgets = dict(re.findall(r'Widget\("(\w+)", "([\w.]+)"', (nodes / file).read_text(encoding="utf-8")))
        widgets |= {"folder": "dataset.path"}
        named = {option: re.match(rf"`(\w+)` of \*{node}\*", cells[3]) for option, cells in ROWS.items()}
        shown = {option: widgets[match[1]] for option, match in named.items() if match}
        assert shown == {option: ROWS[option][1].strip("`") for option in shown} and len(shown) >= 6


def test_every_setting_that_the_page_writes_can_be_set():
    made, written = recipe.Recipe(), re.findall(r"[` ](?:--set )?([a-z]+\.[a-z_]+)=([^\s`]+)", PAGE)
    for name, value in written:
        made = recipe.with_setting(made, name, value)
    assert len(written) > 20 and made.validate() == []


def test_the_precisions_are_all_translated():
    assert pairs("precision").keys() == {"32", "16", "16-mixed", "bf16"}
    assert SETTINGS["run.precision"].choices[1:] == ("fp32", "fp16", "bf16")


def test_the_optimiser_is_theirs():
    usual, ours = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]).defaults, OptimizerConfig()
    assert (ours.name, ours.schedule) == ("adamw", "constant")
    assert (ours.weight_decay, ours.beta1, ours.beta2) == (usual["weight_decay"], *usual["betas"])
    assert ours.max_grad_norm == 1.0


def test_what_the_page_says_of_checkpoints_views_and_the_files_numbers():
    usual = recipe.Recipe()
    assert (usual.run.checkpoint_every, usual.run.checkpoint_minutes, usual.run.keep_checkpoints) == (250, 5.0, 3)
    assert (usual.dataset.variants, usual.output.dtype) == (4, "fp16")


@pytest.mark.parametrize("folder", ["base", "kolors_base"])
def test_their_targets_are_the_preset(request, folder):
    model = registry.load(str(request.getfixturevalue(folder)))
    theirs = LoRAConfig(targets=DEFAULTS["lora_target_modules"].split(","))
    chosen = [targeted_modules(model.denoiser, how, model.family.targets) for how in (theirs, LoRAConfig())]
    assert chosen[0] == chosen[1]


def test_the_worked_example_asks_for_what_theirs_asks(scion, tmp_path):
    words = shlex.split(block("Scion's").replace("\\\n", " "))[1:]
    code, _, errors = scion(*words, "--save-recipe", "dog.json")
    assert code == 0, errors
    asked = recipe.read(tmp_path / "dog.json")
    theirs = recipe.Recipe()
    for name, value in translated(options_of(block("DiffSynth's"))).items():
        theirs = recipe.with_setting(theirs, name, value)
    assert asked == theirs and asked.validate() == []
    assert (asked.run.steps, asked.adapter.rank, asked.adapter.strength) == (500, 4, 4.0)


THEIR_COMMAND = """python train_sd_lora.py --pretrained_path scion-tiny --dataset_path dog --output_path models
    --max_epochs 1 --steps_per_epoch 3 --height 64 --width 96 --random_flip --batch_size 2 --accumulate_grad_batches 2
    --dataloader_num_workers 0 --precision 32 --learning_rate 1e-3 --lora_rank 2 --lora_alpha 3
    --use_gradient_checkpointing --lora_target_modules to_q,to_k,to_v,to_out"""


def test_their_dataset_trains_as_it_is_with_their_options(scion, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "dog" / "train", ignore=shutil.ignore_patterns("*.txt"))
    captions = ["0.png,a dog", "1.png,一只小狗", '3.png,"a dog, lying"']
    table = "\n".join(["file_name,text", *captions])
    (tmp_path / "dog" / "train" / "metadata.csv").write_text(table, encoding="utf-8")
    settings = [*translated(options_of(THEIR_COMMAND)).items(), ("preview.steps", 1), ("preview.count", 1)]
    asked = [word for name, value in settings for word in ("--set", f"{name}={value}")]
    code, said, errors = scion("train", "--out", "models", "--set", "run.device=cpu", "--quiet", *asked)
    assert code == 0, errors
    assert "3 pictures, 3 with a caption" in said
    file = read_header(tmp_path / "models" / "dog.safetensors")
    trained = {re.search(r"attn\d_(to_[a-z]+)", key)[1] for key in file.tensors}
    assert trained == {"to_q", "to_k", "to_v", "to_out"}
    assert {min(entry.shape) for key, entry in file.tensors.items() if not key.endswith(".alpha")} == {2}
    told = file.metadata
    assert (told["ss_network_dim"], float(told["ss_network_alpha"]), told["ss_steps"]) == ("2", 3.0, "2")
    assert [bucket["resolution"] for bucket in json.loads(told["ss_bucket_info"])["buckets"].values()] == [[96, 64]]
    made = recipe.read(tmp_path / "models" / "recipe.json")
    assert (made.dataset.crop, made.dataset.flip, made.dataset.workers) == ("random", True, 0)
    assert (made.run.accumulation, made.run.precision, made.run.gradient_checkpointing) == (2, "fp32", True)
    assert made.optimizer.learning_rate == 1e-3
