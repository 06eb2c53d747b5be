"""What cannot be used is refused before anything runs, each problem named after the widget it is in."""

import inspect

import pytest

CONFIG, DATASET = "ScionLoRATrainConfig", "ScionLoadImageCaptionDataset"
EXAMPLE = "scion-example (built in)"
RATE = "learning_rate: 5 is out of range: above 0, at most 1"
LENGTH = "steps, epochs: neither is set; set one of them and leave the other at 0"


def refused(pack, node, **held):
    """The sentences with which a node refuses to run."""
    with pytest.raises(pack.BadInput) as error:
        pack.run(node, **held)
    return str(error.value).splitlines()


@pytest.mark.parametrize("node", [DATASET, "ScionLoadTrainingModel", "ScionSaveLoRA"])
def test_what_the_page_shows_at_first_is_accepted(pack, node):
    told = {one["name"]: one["told"].get("default") for one in pack.described()[node]["inputs"] if one["widget"]}
    if node == DATASET:
        told["folder"] = EXAMPLE
    assert pack.validate(node, **told) is True


def test_ranges_and_choices_of_settings_are_left_to_the_host_which_marks_the_widget(pack):
    # What a node's own check takes by name, or by **, the host does not look at; and it repeats its answer for each.
    checked = {
        name: inspect.getfullargspec(node.validate_inputs)
        for name, node in pack.nodes.items()
        if hasattr(node, "validate_inputs")
    }
    assert {name: set(spec.args) - {"cls"} for name, spec in checked.items()} == {
        "ScionLoadTrainingModel": {"base", "hub_id"},
        DATASET: {"folder", "images", "mask_folder"},
        "ScionSaveLoRA": {"name"},
    }
    assert [name for name, spec in checked.items() if spec.varkw] == []


def test_config_names_every_problem_at_once(pack):
    said = refused(pack, CONFIG, learning_rate=5.0, steps=0, epochs=0, rank=0)
    assert said == ["rank: 0 is out of range: 1 to 1024", RATE, LENGTH]


def test_remedies_name_widgets_too(pack):
    assert refused(pack, CONFIG, warmup_steps=10) == [
        "warmup_steps: 10, but the schedule 'constant' has no warm-up; set schedule to 'constant_with_warmup' or "
        "another, or warmup_steps to 0"
    ]


def test_mistyped_choice_is_named_with_the_nearest_one(pack):
    [said] = refused(pack, CONFIG, schedule="cosin")
    assert said.startswith("schedule: 'cosin' is not one of constant,")
    assert said.endswith("did you mean 'cosine'?")


def test_expression_that_is_none_is_named(pack):
    [said] = refused(pack, CONFIG, targets="re:(")
    assert said.startswith("targets: 're:(' is no regular expression")


def test_half_a_json_list_is_named_with_the_other_problems(pack):
    said = refused(pack, CONFIG, targets='["to_q', learning_rate=5.0)
    assert said == ["targets: expected a list, got text ('[\"to_q')", RATE]


def test_dataset_names_every_problem_of_its_lists(pack):
    said = refused(pack, DATASET, folder=EXAMPLE, caption_dropout=2.0, width=512, missing_captions="trigger")
    assert said == [
        "caption_dropout: 2 is out of range: 0 to 1",
        "width, height: 512 and 0; a fixed size needs both. Give both, or 0 for both to use the resolution.",
        "missing_captions: 'trigger' needs a trigger word; set trigger, or choose 'empty' or 'name'.",
    ]


def test_drawing_names_its_widgets(pack):
    assert refused(pack, "ScionSampleTrainingModel", model=None, prompts="one", steps=0, guidance=101.0) == [
        "steps: 0 is out of range: 1 to 1000 steps",
        "guidance: 101 is out of range: 0 to 100",
    ]
    assert refused(pack, "ScionSampleTrainingModel", model=None, prompts=" \n") == [
        "prompts: is empty; write one prompt a line"
    ]


def test_unknown_folder_is_named_with_the_remedy(pack):
    said = pack.validate(DATASET, folder="nowhere")
    assert said.startswith("folder: 'nowhere' is no dataset on this machine. Put the folder into one of ")


@pytest.mark.parametrize("inputs", [{"folder": None}, {"folder": "nowhere", "images": None}, {}])
def test_folder_that_is_linked_or_not_read_is_left_to_the_run(pack, inputs):
    assert pack.validate(DATASET, **inputs) is True


def test_unknown_base_is_named_with_the_remedy(pack):
    assert pack.validate("ScionLoadTrainingModel", base="gone.safetensors", hub_id="", download=False) == (
        "base: 'gone.safetensors' is not on this machine; put it into ComfyUI's checkpoints or diffusers folder"
    )


def test_hub_needs_an_id_unless_it_is_linked(pack):
    hub = pack("nodes.load_model").HUB
    said = pack.validate("ScionLoadTrainingModel", base=hub, hub_id=" ")
    assert said.startswith("hub_id: ' ' is no owner/name, such as")
    assert pack.validate("ScionLoadTrainingModel", base=hub, hub_id=None) is True
    assert pack.validate("ScionLoadTrainingModel", base=None, hub_id="") is True


def test_bases_are_the_built_in_one_checkpoints_and_diffusers_folders(pack, host):
    (host.base / "models/checkpoints/deep").mkdir()
    (host.base / "models/checkpoints/deep/a.safetensors").touch()
    (host.base / "models/diffusers/sd").mkdir()
    (host.base / "models/diffusers/sd/model_index.json").touch()
    (host.base / "models/diffusers/empty").mkdir()
    [base] = [one for one in pack.described()["ScionLoadTrainingModel"]["inputs"] if one["name"] == "base"]
    assert base["told"]["options"] == ["scion-tiny", "deep/a.safetensors", "diffusers/sd", "Hugging Face id (below)"]
    assert base["told"]["default"] == "scion-tiny"


@pytest.mark.parametrize("name", ["../evil", "/etc/x", "a:b", "nul\x00"])
def test_name_that_cannot_be_a_file_is_refused_before_the_training(pack, name):
    assert pack.validate("ScionSaveLoRA", name=name).startswith(f"name: {name!r} cannot be a file's name")


@pytest.mark.parametrize("name", [None, "", "scion/mine", "mine.safetensors"])
def test_name_that_can_be_a_file_is_accepted(pack, name):
    assert pack.validate("ScionSaveLoRA", name=name) is True
