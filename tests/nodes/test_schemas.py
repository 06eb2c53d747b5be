"""Each node says what it is, what its inputs mean and what they may be, from the recipe's own descriptions."""

import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent
APPEND = (
    "Saved workflows keep a widget's value by its position. New widgets go to the end of their node; then add them to "
    "the end of its list in tests/nodes/widgets.json. Widgets are never moved, renamed or taken away."
)
CONFIG, DATASET = "ScionLoRATrainConfig", "ScionLoadImageCaptionDataset"
NO_WIDGET = {
    "base": "comes along the edge from LoadTrainingModel or the host's loaders",
    "dataset.path": "is the folder widget, which offers names under allowed roots and takes no path",
    "dataset.folders": "are the nodes that are chained by the dataset node's `more`",
    "dataset.mask_path": "is the mask_folder widget, which offers names as the folder widget does",
    "dataset.cache_path": "is in the host's user folder, where a workflow from elsewhere cannot lead out of it",
    "run.device": "is where the host computes",
    "adapter.start_from": "is TrainLoRA's start_lora, an edge",
    "adapter.assistant": "is TrainLoRA's assistant_lora, an edge, or assistant_file, a name in the host's loras folder",
}


def widgets_of(node):
    return [one for one in node["inputs"] if one["widget"]]


def test_there_are_eight_nodes_in_the_order_of_a_workflow(pack):
    assert list(pack.described()) == [
        "ScionLoadTrainingModel",
        "ScionLoadImageCaptionDataset",
        "ScionLoRATrainConfig",
        "ScionTrainLoRA",
        "ScionSaveLoRA",
        "ScionApplyLoRA",
        "ScionApplyDecoratorTokens",
        "ScionSampleTrainingModel",
    ]


def test_every_node_says_what_it_is_called_and_what_it_does(pack):
    described = pack.described()
    for node in described.values():
        assert node["display_name"] and node["category"] == "Scion"
        assert len(node["description"]) > 40 and node["description"].endswith(".")
        assert "scion" in node["search_aliases"] and len(node["search_aliases"]) > 1
    assert len({node["display_name"] for node in described.values()}) == 8


def test_every_widget_has_a_tooltip(pack):
    silent = [
        (name, one["name"])
        for name, node in pack.described().items()
        for one in widgets_of(node)
        if len(one["told"].get("tooltip", "")) < 10
    ]
    assert silent == []


def test_tooltips_carry_help_unit_and_range_of_the_setting(pack):
    settings, described, told = pack.settings(), pack.described(), 0
    for name, widgets in pack.widgets().items():
        inputs = {one["name"]: one for one in described[name]["inputs"]}
        for widget in widgets:
            option, tooltip = settings[widget.setting], inputs[widget.id]["told"]["tooltip"]
            assert tooltip.startswith((widget.help or option.help).replace("Empty =", "0 =")), widget
            if not option.choices:
                far = option.high is not None and option.high >= 100_000
                assert (("above" if option.above is not None else "at least") if far else option.range) in tooltip, (
                    widget
                )
                assert option.unit in tooltip, widget
                told += bool(option.range)
    assert told > 50


def test_tooltip_of_the_resolution_reads_as_a_person_writes(pack):
    [resolution] = [one for one in pack.described()[DATASET]["inputs"] if one["name"] == "resolution"]
    assert resolution["told"]["tooltip"] == (
        "Side of the training pictures (their area is its square); 0 = the base's own (0 to 8192 pixels)"
    )


def test_widgets_are_where_saved_workflows_have_them(pack):
    saved = json.loads((HERE / "widgets.json").read_text())
    for name, node in pack.described().items():
        now = [one["name"] for one in widgets_of(node)]
        assert now[: len(saved[name])] == saved[name], f"{name}: the order has changed. {APPEND}"


def test_every_widget_is_in_the_snapshot(pack):
    now = {name: [one["name"] for one in widgets_of(node)] for name, node in pack.described().items()}
    assert now == json.loads((HERE / "widgets.json").read_text()), APPEND


def test_sockets_are_where_saved_workflows_have_them(pack):
    now = {
        name: {
            "inputs": [[one["name"], one["kind"], one["optional"]] for one in node["inputs"] if not one["widget"]],
            "outputs": [output[:2] for output in node["outputs"]],
        }
        for name, node in pack.described().items()
    }
    assert now == json.loads((HERE / "sockets.json").read_text()), (
        "Saved workflows keep links by the place of input and output. New ones go to the end and are optional; then "
        "add them to the end of their list in tests/nodes/sockets.json. None is moved, renamed or taken away."
    )


def test_every_setting_has_one_widget_or_a_reason_not_to(pack):
    places = {}
    for name, widgets in pack.widgets().items():
        for widget in widgets:
            places.setdefault(widget.setting, []).append(name)
    drawing = [name for name in places if "ScionSampleTrainingModel" in places[name]]
    assert all(name.startswith("preview.") for name in drawing)
    for name in drawing:
        places[name].remove("ScionSampleTrainingModel")
    assert {name: found for name, found in places.items() if len(found) != 1} == {}
    assert set(pack.settings()) - set(places) == set(NO_WIDGET)


def test_every_widget_of_a_setting_is_an_input_of_its_node(pack):
    described = pack.described()
    for name, widgets in pack.widgets().items():
        ids = [one["name"] for one in widgets_of(described[name])]
        assert [widget.id for widget in widgets] == [one for one in ids if one in {widget.id for widget in widgets}]


def test_eight_settings_of_the_config_are_shown_and_the_others_are_advanced(pack):
    shown = [one["name"] for one in widgets_of(pack.described()[CONFIG]) if not one["told"].get("advanced")]
    assert shown == [
        "rank",
        "learning_rate",
        "steps",
        "batch_size",
        "targets",
        "seed",
        "preview_every",
        "preview_prompts",
    ]


def test_every_widget_of_a_setting_is_optional(pack):
    described = pack.described()
    for name, widgets in pack.widgets().items():
        ids = {widget.id for widget in widgets}
        assert [one["name"] for one in described[name]["inputs"] if one["name"] in ids and not one["optional"]] == []


def test_no_whole_number_is_changed_by_the_page_after_a_run(pack):
    numbers = [one for node in pack.described().values() for one in widgets_of(node) if one["kind"] == "INT"]
    assert {"seed", "preview_seed"} < {one["name"] for one in numbers}
    # Left out, the page adds the control to whatever is called a seed.
    assert [one["name"] for one in numbers if one["told"].get("control_after_generate") is not False] == []


def test_no_text_is_expanded_as_a_prompt_with_wildcards(pack):
    for name, widgets in pack.widgets().items():
        ids = {widget.id for widget in widgets}
        for one in widgets_of(pack.described()[name]):
            if one["kind"] == "STRING" and one["name"] in ids:
                assert one["told"]["dynamicPrompts"] is False, one["name"]


def test_numbers_are_bounded_as_the_recipe_bounds_them(pack):
    settings, described = pack.settings(), pack.described()
    for name, widgets in pack.widgets().items():
        inputs = {one["name"]: one for one in described[name]["inputs"]}
        for widget in widgets:
            option, one = settings[widget.setting], inputs[widget.id]
            if one["kind"] in ("INT", "FLOAT"):
                low = option.low if option.low is not None else option.above
                assert (one["told"]["min"], one["told"]["max"]) == (low, option.high), widget


def test_no_number_of_a_setting_is_rounded_by_the_page(pack):
    for name, widgets in pack.widgets().items():
        ids = {widget.id for widget in widgets}
        for one in widgets_of(pack.described()[name]):
            if one["kind"] == "FLOAT" and one["name"] in ids:
                assert one["told"]["round"] is False, one["name"]


def test_no_number_is_larger_than_a_browser_keeps(pack):
    numbers = [one for node in pack.described().values() for one in widgets_of(node) if one["kind"] == "INT"]
    assert max(one["told"]["max"] for one in numbers) == 2**53 - 1


def test_the_choices_are_the_recipes(pack):
    settings, described = pack.settings(), pack.described()
    chosen = 0
    for name, widgets in pack.widgets().items():
        inputs = {one["name"]: one for one in described[name]["inputs"]}
        for widget in widgets:
            if settings[widget.setting].choices:
                assert inputs[widget.id]["told"]["options"] == list(settings[widget.setting].choices), widget
                chosen += 1
    assert chosen == 25


@pytest.mark.parametrize("node", ["ScionTrainLoRA", "ScionSaveLoRA"])
def test_nodes_that_leave_something_on_disk_run_without_anything_behind_them(pack, node):
    assert pack.described()[node]["output_node"] is True


def test_the_dataset_takes_lists_so_that_pictures_of_many_sizes_fit(pack):
    assert [name for name, node in pack.described().items() if node["is_input_list"]] == [DATASET]
