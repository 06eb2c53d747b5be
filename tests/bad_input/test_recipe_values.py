"""Settings out of range, of the wrong type, unknown, or at odds with one another."""

import json

import pytest

from trainer_core import recipe

RANGES = [
    ("adapter.rank", 0, "adapter.rank: 0 is out of range: 1 to 1024"),
    ("adapter.rank", -4, "adapter.rank: -4 is out of range: 1 to 1024"),
    ("adapter.rank", 1025, "adapter.rank: 1025 is out of range: 1 to 1024"),
    ("adapter.rank", 512, "adapter.rank: 512 is above the width of every targeted module; the widest, down_blocks.1"),
    (
        "adapter.rank",
        65,
        "has 64 (the smaller of its inputs and outputs), and more can learn nothing more. Set at most 64",
    ),
    ("adapter.alpha", 0.0, "adapter.alpha: 0 is out of range: above 0, at most 100000"),
    ("adapter.dropout", 1.0, "adapter.dropout: 1 is out of range: 0 to 0.99"),
    ("adapter.targets", ["no_such"], "adapter.targets: 'no_such' matches no module of this base; presets are"),
    ("adapter.targets", ["re:("], "adapter.targets: 're:(' is no regular expression"),
    ("optimizer.learning_rate", -1e-4, "optimizer.learning_rate: -0.0001 is out of range: above 0, at most 1"),
    ("optimizer.learning_rate", 0.0, "optimizer.learning_rate: 0 is out of range: above 0, at most 1"),
    ("optimizer.learning_rate", 1e9, "optimizer.learning_rate: 1e+09 is out of range: above 0, at most 1"),
    ("optimizer.learning_rate", float("nan"), "optimizer.learning_rate: nan is not a finite number (above 0"),
    ("optimizer.learning_rate", float("inf"), "optimizer.learning_rate: inf is not a finite number (above 0"),
    ("optimizer.name", "adamv", "optimizer.name: 'adamv' is not one of"),
    ("run.steps", 0, "run.steps, run.epochs: neither is set; set one of them"),
    ("run.steps", -1, "run.steps: -1 is out of range: 0 to 1e+08 steps"),
    ("run.epochs", 2, "run.steps, run.epochs: both are set; set one of them"),
    ("run.batch_size", 0, "run.batch_size: 0 is out of range: 1 to 4096 pictures"),
    ("run.device", "cuda:99", "run.device: 'cuda:99' cannot be used here"),
    ("run.precision", "fp8", "run.precision: 'fp8' is not one of auto, fp32, fp16, bf16"),
    ("dataset.resolution", 3, "dataset.resolution: 3 is out of range: 0 (off), or 16 to 8192 pixels"),
    ("dataset.width", 64, "dataset.width, dataset.height: 64 and 0; a fixed size needs both"),
    ("dataset.holdout", 5, "dataset.holdout: 5 of 5 pictures leaves none to train on; hold out at most 4"),
    ("dataset.missing_captions", "trigger", "dataset.missing_captions: 'trigger' needs a trigger word"),
    ("dataset.trigger", "a\nb", "dataset.trigger: 'a\\nb' has a line break or control character"),
    ("run.ema_decay", 1.0, "run.ema_decay: 1 is out of range: 0 to 0.99999"),
    ("run.ema_decay", -0.1, "run.ema_decay: -0.1 is out of range: 0 to 0.99999"),
    ("run.early_stop", -1, "run.early_stop: -1 is out of range: 0 to 1e+06 validations"),
    ("run.early_stop", 3, "run.early_stop: 3, but no picture is held out to measure the validation loss on; set"),
    ("run.keep_best", True, "run.keep_best: true, but no picture is held out to measure the validation loss on; set"),
    ("preview.weights", "ema", "preview.weights: 'ema', but no moving average is kept; set run.ema_decay"),
    ("output.weights", "ema", "output.weights: 'ema', but no moving average is kept; set run.ema_decay"),
    ("output.weights", "averaged", "output.weights: 'averaged' is not one of auto, trained, ema"),
    ("output.checkpoint", "best", "output.checkpoint: 'best', but the best checkpoint is not kept; set run.keep_best"),
    ("output.name", "ema", "output.name: 'ema' is what a checkpoint calls its own file; choose another"),
    ("preview.width", 60, "preview.width: 60 is no multiple of 8"),
    ("base", " ", "base: is empty; name a model, such as scion-tiny"),
]


def written(path, name, value, base, pictures):
    values = {
        "base": str(base),
        "dataset": {"path": str(pictures)},
        "run": {"steps": 1, "device": "cpu"},
        "adapter": {"rank": 2},
    }
    part, _, key = name.rpartition(".")
    (values.setdefault(part, {}) if part else values)[key] = value
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize(("name", "value", "said"), [pytest.param(*row, id=f"{row[0]}={row[1]!r}") for row in RANGES])
def test_a_value_that_cannot_be_used_is_refused_with_its_range(refused, base, pictures, tmp_path, name, value, said):
    refused(["train", written(tmp_path / "my.json", name, value, base, pictures), "--out", "mine"], said)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        pytest.param("adapter.rnk", 2, "adapter.rnk: unknown setting; did you mean 'rank'?", id="a misspelt key"),
        pytest.param("nothing.such", 2, "nothing: unknown setting", id="an unknown part"),
        pytest.param("adapter.rank", "2", "adapter.rank: expected a whole number, got text ('2')", id="text"),
        pytest.param("adapter.rank", 2.5, "adapter.rank: expected a whole number, got a number (2.5)", id="a fraction"),
        pytest.param("adapter.rank", True, "adapter.rank: expected a whole number, got true or false", id="a truth"),
        pytest.param("adapter.rank", None, "adapter.rank: expected a whole number, got nothing", id="null"),
        pytest.param("adapter.targets", "to_q", "adapter.targets: expected a list, got text ('to_q')", id="no list"),
        pytest.param("adapter.targets", [1], "adapter.targets: expected text, got a whole number (1)", id="numbers"),
        pytest.param("adapter", [], "adapter: expected settings, got a list", id="a list for a part"),
        pytest.param("dataset.flip", 1, "dataset.flip: expected true or false, got a whole number (1)", id="a number"),
        pytest.param("version", 99, "version: 99 is newer than this Scion reads (1); update Scion", id="newer"),
    ],
)
def test_a_recipe_of_the_wrong_form_is_refused_by_its_name(refused, base, pictures, tmp_path, name, value, said):
    path = written(tmp_path / "my.json", name, value, base, pictures)
    refused(["train", path, "--out", "mine"], [str(path), said])


@pytest.mark.parametrize(
    ("kind", "name", "value", "said"),
    [
        (
            "loha",
            "adapter.dropout",
            "0.1",
            "adapter.dropout: 0.1, but adapter.kind is loha, which zeroes no inputs",
        ),
        (
            "lokr",
            "adapter.rslora",
            "true",
            "adapter.rslora: is on, but adapter.kind is lokr, whose scale is alpha",
        ),
        (
            "oft",
            "adapter.alpha",
            "4",
            "adapter.alpha: 4, but adapter.kind is oft, and a rotation has no strength",
        ),
        ("oft", "adapter.rank", "1", "adapter.rank: 1, but adapter.kind is oft, whose blocks need a side of 2 or more"),
        ("dora", "adapter.factor", "4", "adapter.factor: 4, but adapter.kind is dora, and only lokr has factors; set"),
        ("loha", "output.dialect", "diffusers", "output.dialect: 'diffusers', but adapter.kind is loha, of which"),
        ("oft", "optimizer.lora_plus_ratio", "16", "optimizer.lora_plus_ratio: 16, but adapter.kind is oft, which has"),
        ("lycoris", "adapter.rank", "4", "adapter.kind: 'lycoris' is not one of lora, dora, loha, lokr, oft"),
    ],
)
def test_settings_that_say_nothing_of_a_kind_of_adapter_are_refused(refused, words, pictures, kind, name, value, said):
    refused(words(pictures, **{"adapter.kind": kind, name: value}), said)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        pytest.param("my.json", b"", "cannot be read as a recipe", id="empty"),
        pytest.param("my.json", b'{"base": ', "cannot be read as a recipe", id="torn JSON"),
        pytest.param("my.toml", b"base = ", "cannot be read as a recipe", id="torn TOML"),
        pytest.param("my.json", "{}".encode("utf-16"), "cannot be read as a recipe", id="UTF-16"),
        pytest.param("my.json", b"[" * 100_000, "cannot be read as a recipe", id="nested without end"),
        pytest.param(
            "my.json", b" " * (4 * 2**20 + 1), "is 4,194,305 bytes long; a recipe has at most 4,194,304", id="too long"
        ),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_by_its_name(refused, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    refused(["train", tmp_path / name, "--out", "mine"], [f"{tmp_path / name}: ", said])


def test_every_problem_is_told_at_once(refused, words, pictures):
    given = words(pictures, **{"adapter.rank": 0, "run.steps": -1, "optimizer.learning_rate": "nan"})
    refused(given, ["adapter.rank: 0 ", "run.steps: -1 ", "optimizer.learning_rate: nan "])


def test_a_rank_above_the_width_of_some_modules_is_a_warning(scion, words, pictures):
    code, out, errors = scion(*words(pictures, **{"adapter.rank": 33}))
    assert code == 0, errors
    # 24 in the narrower blocks, and 8 that read captions, which are as narrow.
    assert "Warning: adapter.rank: 33 is above the width of 32 of 56 targeted modules (such as down_blocks.0." in out, (
        out
    )


def test_a_batch_larger_than_the_dataset_is_as_large_as_its_bucket(scion, words, pictures, tmp_path):
    code, _, errors = scion(*words(pictures, **{"run.batch_size": 64}))
    assert code == 0, errors
    assert recipe.read(tmp_path / "here" / "mine" / "recipe.json").run.batch_size == 64
