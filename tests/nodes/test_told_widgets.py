"""What the page is told of widgets and folders, by the routes that it asks."""

import json

CONFIG, DATASET = "ScionLoRATrainConfig", "ScionLoadImageCaptionDataset"


def test_presets_fill_widgets_that_are_there_with_what_their_settings_mean(ask, pack):
    told = ask("GET", "/scion/widgets").body["presets"]
    presets = pack("trainer_core.presets").PRESETS
    widgets = {widget.id: widget for widget in pack.widgets()[CONFIG]}
    assert told["style/careful"]["targets"] == "attention+ff" and told["style/careful"]["alpha"] == 0
    for name, filled in told.items():
        pack.run(CONFIG, **filled)  # refuses what is wrong
        meant = {widgets[one].setting: widgets[one].value(value) for one, value in filled.items()}
        assert meant == presets[name]


def test_each_widget_is_told_by_the_setting_that_it_holds(ask, pack):
    told = ask("GET", "/scion/widgets").body["settings"]
    assert told["optimizer.name"] == [CONFIG, "optimizer"] and told["dataset.captions"] == [DATASET, "caption_source"]
    assert {widget.setting for widget in pack.widgets()[CONFIG]} <= set(told)


def test_rules_are_told_of_widgets_with_their_values_and_of_the_other_node_s(ask, pack):
    told = ask("GET", "/scion/widgets").body["idle"]
    rules = {one["id"]: one for node in told for one in told[node]}
    known = {node: {one.id for one in pack.nodes[node].GET_SCHEMA().inputs} for node in told}
    for node, listed in told.items():
        for one in listed:
            assert one["widget"] in known[node]
            for condition in one["when"]:
                assert condition.get("widget", "more") in known[condition.get("node", node)], one["id"]
    assert rules["adapter.factor@adapter.kind"] == {
        "id": "adapter.factor@adapter.kind",
        "widget": "lokr_factor",
        "when": [{"widget": "adapter", "among": ["lora", "dora", "loha", "oft"]}],
        "why": "Only the adapter lokr has factors",
        "idle": [0],
    }
    assert rules["preview.count@preview.prompts"]["when"] == [{"widget": "preview_prompts", "other": [""]}]
    assert rules["adapter.alpha@adapter.kind"]["idle"] == [0]
    assert rules["run.early_stop@dataset.holdout"]["when"] == [{"widget": "holdout", "among": [0], "node": DATASET}]
    assert {"input": "more"} in rules["dataset.prior_weight@dataset.regularisation+dataset.folders"]["when"]
    assert rules["output.checkpoint@run.keep_best"]["why"] == "The best checkpoint is not kept; keep_best keeps it"
    # The dataset node leaves a folder of masks unread that it has no use for.
    assert rules["dataset.mask_path@dataset.mask"]["idle"] is None
    assert pack("nodes.load_dataset")._config({"mask": "off"}, "x", "gone").mask_path == ""


def test_every_rule_greys_a_widget_but_those_of_settings_that_no_widget_has(ask, pack):
    told = ask("GET", "/scion/widgets").body["idle"]
    assert {one["id"] for node in told for one in told[node]} == {
        rule.id for rule in pack("trainer_core.idle_settings").RULES
    }


def test_folders_that_are_allowed_are_told_with_the_file_that_allows_more(ask, host):
    file = host.base / "user/scion.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"datasets": [str(host.base / "elsewhere")]}))
    told = ask("GET", "/scion/settings").body
    assert told == {"roots": [str(host.base / "input"), str(host.base / "elsewhere")], "file": str(file)}
