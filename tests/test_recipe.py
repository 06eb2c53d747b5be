"""Recipes: written and read as JSON and TOML without loss, and every mistake told at once."""

import json
import re
import tomllib

import pytest

from trainer_core import recipe, settings_page
from trainer_core.errors import BadInput
from trainer_core.recipe import Recipe

OTHERS_RELY_ON = (
    "base",
    "dataset.path",
    "adapter.rank",
    "adapter.alpha",
    "optimizer.learning_rate",
    "run.steps",
    "run.batch_size",
    "run.seed",
    "run.precision",
    "run.checkpoint_every",
    "run.preview_every",
)

UNUSUAL = {
    "base": 'C:\\models\\"quoted" 一只狗',
    "dataset": {
        "path": "a\nb\tc\u0085",
        "trigger": "sks 狗",
        "colour_jitter": 1,
        "holdout": 0,
        "caption_replace": ["a => b, c"],
        "folders": [{"path": "x]", "repeats": 2}, {}, {"path": "y", "regularisation": True, "caption_replace": []}],
    },
    "adapter": {"alpha": 1e-8, "targets": ["to_q", r"re:mid_block\..*\d{1,2}"], "exclude": []},
    "optimizer": {"learning_rate": 2.5e-05, "schedule": "cosine"},
    "run": {"seed": 2**53 - 1, "steps": 0, "epochs": 7},
    "preview": {"prompts": ["a, b", 'c = "d"', "# e", "\x7f"]},
}


def test_the_names_that_other_work_relies_on_are_there():
    assert set(OTHERS_RELY_ON) <= recipe.settings().keys()


def test_every_setting_has_help_a_default_within_its_range_and_a_type_that_text_can_give():
    for name, described in recipe.settings().items():
        assert len(described.help) > 8 and not described.help.endswith("."), name
        assert described.default is None or described.complaint(described.default) is None, name
        if described.default is not None and not isinstance(described.default, list):
            text = str(described.default)
            assert recipe.options.from_text(text, described) == described.default, name
    assert recipe.Recipe(base="x").validate() == []


def test_a_recipe_survives_json(tmp_path):
    written = recipe.from_dict(UNUSUAL)
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(written.as_dict()), encoding="utf-8")
    assert recipe.read(path) == written
    assert written.run.seed == 2**53 - 1 and written.adapter.targets[1] == r"re:mid_block\..*\d{1,2}"


def test_a_recipe_survives_toml(tmp_path):
    written = recipe.from_dict(UNUSUAL)
    text = recipe.to_toml(written)
    path = tmp_path / "recipe.TOML"
    path.write_text(text, encoding="utf-8", newline="")
    assert recipe.read(path) == written
    assert tomllib.loads(text)["version"] == 1
    empty = tmp_path / "default.toml"
    empty.write_text(recipe.to_toml(Recipe()), encoding="utf-8")
    assert recipe.read(empty) == Recipe()
    assert recipe.read(empty).adapter.alpha is None


def test_an_empty_recipe_is_the_default_one_and_a_byte_order_mark_is_no_obstacle(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_bytes(b"\xef\xbb\xbf{}")
    assert recipe.read(path) == Recipe()


def test_all_problems_come_at_once_each_with_file_path_value_and_remedy(tmp_path):
    path = tmp_path / "bad.json"
    values = {
        "base": "",
        "adapter": {"rnak": 4, "alpha": "much"},
        "optimizer": {"learning_rate": 0, "schedule": "cosin"},
        "run": {"steps": 10, "epochs": 2, "batch_size": 0},
        "objective": {"timestep_min": 600, "timestep_max": 400},
        "training": {},
    }
    path.write_text(json.dumps(values))
    with pytest.raises(BadInput) as caught:
        recipe.read(path)
    found = caught.value.problems
    assert all(problem.startswith(f"{path}: ") for problem in found)
    said = "\n".join(found)
    for part in (
        "adapter.rnak: unknown setting; did you mean 'rank'?",
        "adapter.alpha: expected a number, got text ('much')",
        "training: unknown setting",
        "optimizer.learning_rate: 0 is out of range: above 0, at most 1",
        "optimizer.schedule: 'cosin' is not one of",
        "did you mean 'cosine'?",
        "run.batch_size: 0 is out of range: 1 to 4096 pictures",
        "run.steps, run.epochs: both are set",
        "objective.timestep_min: 600 is above timestep_max (400)",
        "base: is empty",
    ):
        assert part in said
    assert len(found) == 9


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"run": {"steps": 0}}, "run.steps, run.epochs: neither is set"),
        ({"optimizer": {"warmup_steps": 5}}, "optimizer.warmup_steps: 5, but the schedule 'constant' has no warm-up"),
        ({"adapter": {"targets": []}}, "adapter.targets: is empty"),
        ({"output": {"name": "a/b"}}, "output.name: 'a/b' cannot be a file's name"),
        ({"output": {"name": "a."}}, "output.name: 'a.' begins or ends with a dot"),
        ({"output": {"name": ".."}}, "output.name: '..' begins or ends with a dot"),
        ({"dataset": {"width": 64}}, "dataset.width, dataset.height: 64 and 0"),
        ({"dataset": {"missing_captions": "trigger"}}, "dataset.missing_captions: 'trigger' needs a trigger word"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values, said):
    with pytest.raises(BadInput, match=re.escape(said)):
        recipe.from_dict(values)


def test_a_newer_version_is_refused_and_nonsense_too():
    assert recipe.from_dict({"version": 1}) == Recipe()
    with pytest.raises(BadInput, match=r"version: 2 is newer than this Scion reads \(1\); update Scion"):
        recipe.from_dict({"version": 2, "unheard_of": 1})
    for version in (0, "1", True, None, 1.0):
        with pytest.raises(BadInput, match="is no recipe version; expected 1"):
            recipe.from_dict({"version": version})


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "{" * 100_000, "\x00", "NaN"])
def test_files_that_are_no_recipes_are_refused_by_name(tmp_path, text):
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=re.escape(str(path))):
        recipe.read(path)


def test_missing_folders_and_giants_are_refused(tmp_path):
    with pytest.raises(BadInput, match="none.json: cannot be read as a recipe"):
        recipe.read(tmp_path / "none.json")
    with pytest.raises(BadInput, match="cannot be read as a recipe"):
        recipe.read(tmp_path)
    path = tmp_path / "giant.json"
    path.write_bytes(b" " * (recipe.LONGEST + 1))
    with pytest.raises(BadInput, match="a recipe has at most 4,194,304"):
        recipe.read(path)


def test_one_setting_is_changed_by_its_dotted_name():
    changed = recipe.with_setting(Recipe(), "adapter.rank", "8")
    changed = recipe.with_setting(changed, "base", "other")
    changed = recipe.with_setting(changed, "adapter.targets", "to_q, to_v")
    assert (changed.adapter.rank, changed.base, changed.adapter.targets) == (8, "other", ["to_q", "to_v"])
    assert Recipe().adapter.rank == 16
    with pytest.raises(BadInput, match="adapter.rnk: unknown setting; did you mean 'adapter.rank'?"):
        recipe.with_setting(Recipe(), "adapter.rnk", "8")
    with pytest.raises(BadInput, match="adapter.rank: expected a whole number, got 'x'"):
        recipe.with_setting(Recipe(), "adapter.rank", "x")
    with pytest.raises(BadInput, match="dataset: unknown setting"):
        recipe.with_setting(Recipe(), "dataset", "x")


def test_the_fingerprint_changes_with_what_decides_the_weights_and_with_nothing_else():
    def fingerprint(name=None, text=""):
        changed = recipe.with_setting(Recipe(), name, text) if name else Recipe()
        return changed.fingerprint("model", "dataset", "fp32")

    plain = fingerprint()
    same = ("run.preview_every=7", "run.steps=9", "dataset.path=x", "output.dtype=bf16", "dataset.workers=9", "base=y")
    for setting in same:
        assert fingerprint(*setting.split("=")) == plain, setting
    for setting in ("adapter.rank=8", "run.seed=1", "run.batch_size=2", "dataset.flip=true", "objective.loss=huber"):
        assert fingerprint(*setting.split("=")) != plain, setting
    for other in (("other", "dataset", "fp32"), ("model", "other", "fp32"), ("model", "dataset", "bf16")):
        assert Recipe().fingerprint(*other) != plain, other


def test_the_precision_that_a_run_computes_in_decides_and_not_how_it_was_asked_for():
    asked = recipe.with_setting(Recipe(), "run.precision", "fp32")
    assert asked.decisive("fp32") == Recipe().decisive("fp32")
    assert Recipe().decisive("bf16")["run.precision"] == "bf16"


def test_the_page_of_settings_is_the_one_that_the_code_would_write():
    assert settings_page.PAGE.read_text(encoding="utf-8") == settings_page.for_page()


def test_commas_belong_to_prompts_and_patterns_and_separate_other_lists():
    changed = recipe.Recipe()
    for name, text, expected in (
        ("preview.prompts", "1girl, red hair, solo", ["1girl, red hair, solo"]),
        ("preview.prompts", '["a ring", "a cross, red"]', ["a ring", "a cross, red"]),
        ("adapter.targets", r"re:.*blocks\.\d{1,2}\..*to_q", [r"re:.*blocks\.\d{1,2}\..*to_q"]),
        ("adapter.targets", "to_q, to_k", ["to_q", "to_k"]),
    ):
        changed = recipe.with_setting(changed, name, text)
        part, _, key = name.partition(".")
        assert getattr(getattr(changed, part), key) == expected


@pytest.mark.parametrize("ending", ["json", "toml"])
def test_a_recipe_is_written_and_read_back_after_its_ending(tmp_path, ending):
    made = recipe.from_dict({"adapter": {"rank": 3, "alpha": 1.5}, "preview": {"prompts": ['a "ring", red']}})
    recipe.write(made, tmp_path / f"mine.{ending}")
    assert recipe.read(tmp_path / f"mine.{ending}") == made
    with pytest.raises(BadInput, match="json or .toml"):
        recipe.write(made, tmp_path / "mine.yaml")


def test_a_setting_that_is_new_does_not_make_another_run_of_those_before_it(monkeypatch):
    before = recipe.Recipe().fingerprint("model", "data", "fp32")
    known = recipe.Recipe.decisive

    def with_one_more(self, precision):
        return {**known(self, precision), "adapter.future": 0.0}

    more = recipe.settings()["adapter.dropout"]
    settings = recipe.settings()
    monkeypatch.setattr(recipe, "settings", lambda: settings | {"adapter.future": more})
    monkeypatch.setattr(recipe.Recipe, "decisive", with_one_more)
    assert recipe.Recipe().fingerprint("model", "data", "fp32") == before
