"""A setting's value goes into its widget and comes out of it unchanged."""

import pytest


def widget(pack, setting):
    [found] = [one for widgets in pack.widgets().values() for one in widgets if one.setting == setting][:1]
    return found


def test_defaults_are_the_recipes_and_come_back_from_what_is_shown(pack):
    settings, different = pack.settings(), {}
    for name, widgets in pack.widgets().items():
        told = {one["name"]: one["told"] for one in pack.described()[name]["inputs"]}
        for one in widgets:
            back = one.value(told[one.id]["default"])
            if back != settings[one.setting].default:
                different[name, one.id] = back
    # A cancelled run in the graph is queued again, and should not encode everything again.
    assert different == {("ScionLoadImageCaptionDataset", "cache"): "disk"}


def test_what_is_not_said_has_the_nodes_default(pack):
    dataset = pack("nodes.load_dataset")
    assert pack("nodes.widgets").values_of(dataset.WIDGETS, {"flip": True}) == {
        "dataset.flip": True,
        "dataset.cache": "disk",
    }


@pytest.mark.parametrize(
    ("setting", "held", "value"),
    [
        ("adapter.alpha", 0.0, None),
        ("adapter.alpha", 0, None),
        ("adapter.alpha", 8.0, 8.0),
        ("adapter.dropout", 0.0, 0.0),
        ("adapter.targets", "attention", ["attention"]),
        ("adapter.targets", "attention, to_q,", ["attention", "to_q"]),
        ("adapter.targets", "re:to_[qk],mid", ["re:to_[qk],mid"]),
        ("adapter.targets", '["re:a,b", "to_q"]', ["re:a,b", "to_q"]),
        ("adapter.exclude", "", []),
        ("preview.prompts", "", []),
        ("preview.prompts", "a cat, red\n\n  a dog  \n", ["a cat, red", "a dog"]),
        ("preview.prompts", '["no list"]', ['["no list"]']),
        ("preview.negative", "blurry, dark", "blurry, dark"),
    ],
)
def test_what_a_widget_holds_is_this_value(pack, setting, held, value):
    found = widget(pack, setting).value(held)
    assert (found, type(found)) == (value, type(value))


def test_a_list_that_other_nodes_give_is_taken_as_it_is(pack):
    assert widget(pack, "preview.prompts").value(["one,\ntwo"]) == ["one,\ntwo"]


def test_prompts_have_a_widget_of_several_lines_and_targets_of_one(pack):
    told = {one["name"]: one["told"] for one in pack.described()["ScionLoRATrainConfig"]["inputs"]}
    assert told["preview_prompts"]["multiline"] is True
    assert "multiline" not in told["targets"]


@pytest.mark.parametrize(
    ("setting", "step"),
    [
        ("optimizer.learning_rate", 1e-7),
        ("optimizer.epsilon", 1e-11),
        ("optimizer.beta2", 1e-4),
        ("preview.guidance", 0.01),
    ],
)
def test_arrows_change_a_number_by_less_than_its_last_decimal(pack, setting, step):
    told = {one["name"]: one["told"] for one in pack.described()["ScionLoRATrainConfig"]["inputs"]}
    assert told[widget(pack, setting).id]["step"] == step


def test_problems_name_widgets_and_not_settings(pack):
    said = "optimizer.warmup_steps: 10; set optimizer.schedule\nrun.steps2: is not run.steps"
    assert pack("nodes.widgets").named_as_widgets(said, pack.widgets()["ScionLoRATrainConfig"]) == (
        "warmup_steps: 10; set schedule\nrun.steps2: is not steps"
    )
