"""Presets: what they fill, what counts more, and what they train."""

import json

import pytest

from trainer_core import presets_page, recipe
from trainer_core.engine.events import Started
from trainer_core.errors import BadInput
from trainer_core.presets import PACES, PRESETS, SUBJECTS


def test_every_preset_says_the_same_settings_and_is_a_recipe_without_problems(base):
    assert len(PRESETS) == len(SUBJECTS) * len(PACES) == 9
    assert len({tuple(values) for values in PRESETS.values()}) == 1
    for where in ("scion-tiny", str(base)):
        for name, values in PRESETS.items():
            filled = recipe.from_dict({"base": where, "preset": name}).as_dict()
            for setting, value in values.items():
                part, _, key = setting.partition(".")
                assert filled[part][key] == value, (name, setting)
            assert "preset" not in filled


def test_haste_trains_fewer_steps_than_care_and_a_style_more_of_the_base_than_an_object(train, make_recipe):
    for subject in SUBJECTS:
        steps = [PRESETS[f"{subject}/{pace}"]["run.steps"] for pace in ("fast", "balanced", "careful")]
        assert steps[1] == 2 * steps[0] and steps[2] == 2 * steps[1]
    trained = {}
    for subject in SUBJECTS:
        made = recipe.from_dict({**short(make_recipe), "preset": f"{subject}/fast"})
        result, heard = train(made, subject)
        assert result.step == 2
        [trained[subject]] = [event.parameters for event in heard.of(Started)]
    assert trained["object"] * 2 == trained["person"] < trained["style"] / 2


def short(make_recipe):
    """A recipe of two steps as plain values, without what a preset says."""
    values = make_recipe({"run.steps": 2}).as_dict()
    for setting in PRESETS["person/fast"]:
        part, _, key = setting.partition(".")
        if setting != "run.steps":
            del values[part][key]
    return values


def test_what_a_recipe_says_itself_counts_more_than_its_preset(tmp_path):
    written = tmp_path / "my.toml"
    written.write_text('preset = "style/careful"\n[adapter]\nrank = 3\n')
    made = recipe.read(written)
    assert (made.adapter.rank, made.adapter.targets, made.run.steps) == (3, ["attention+ff"], 4000)
    assert recipe.read(written, "object/fast").run.steps == 250


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("person/Fast", "did you mean 'person/fast'?"),
        ("sculpture", "preset: 'sculpture' is none of person/fast, person/balanced"),
        (["person/fast"], "is none of"),
        ("person/fast", "changes nothing, for all of its settings are set"),
    ],
)
def test_a_preset_that_cannot_be_taken_is_refused(said, message):
    values = {"preset": said} | (recipe.Recipe().as_dict() if "nothing" in message else {})
    with pytest.raises(BadInput, match="^preset: ") as refused:
        recipe.from_dict(values)
    assert message in str(refused.value)


def test_the_command_line_takes_a_preset_and_keeps_what_became_of_it(scion, pictures, tmp_path):
    words = ["train", "--dataset", pictures, "--preset", "person/balanced", "--set", "adapter.rank=5"]
    code, _, errors = scion(*words, "--save-recipe", "mine.json")
    assert code == 0, errors
    kept = json.loads((tmp_path / "mine.json").read_text())
    assert (kept["adapter"]["rank"], kept["run"]["steps"], kept["objective"]["min_snr_gamma"]) == (5, 1000, 5.0)
    assert "preset" not in kept
    code, _, errors = scion("train", "--dataset", pictures, "--preset", "persn/fast")
    assert code == 2 and "did you mean 'person/fast'?" in errors


def test_the_page_of_presets_is_the_one_that_the_code_would_write():
    assert presets_page.PAGE.read_text(encoding="utf-8") == presets_page.for_page()
