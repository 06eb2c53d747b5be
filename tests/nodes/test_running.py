"""What config, dataset and training node make of their inputs: the edges, the recipe, and what they refuse."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

CONFIG, DATASET = "ScionLoRATrainConfig", "ScionLoadImageCaptionDataset"
NO_CONFIG = SimpleNamespace(values={})


@pytest.fixture
def dataset(pack, host, picture):
    """What the dataset node gives for a folder of two pictures."""

    def run(folder="things", **held):
        picture(host.base / "input/things/a.png")
        picture(host.base / "input/things/b.png", "another", (0, 90, 200))
        return pack.run(DATASET, folder=folder, **held)

    return run


@pytest.fixture
def recipe_of(pack, dataset):
    """TrainLoRA's recipe for what its widgets hold and for the config's settings, as the node makes it."""

    def make(settings=(), start_lora=None, assistant=None, file="none", **held):
        node, edges = pack("nodes.train_lora"), pack("nodes.edges")
        config = edges.TrainingConfig(dict(settings))
        with pack("nodes.widgets").said_of_widgets([*node.WIDGETS, *node.OF_CONFIG, *node.OF_DATASET]):
            loras = {
                "start_from": node._written(start_lora, "start_lora"),
                "assistant": node._assistant(assistant, file),
            }
            return node._recipe(node._Base("scion-tiny", None), dataset().args[0], config, held, loras)

    return make


def test_config_gives_settings_by_dotted_name(pack):
    [config] = pack.run(CONFIG, rank=8, alpha=0.0, targets="attention, to_q", preview_prompts="one\ntwo").args
    assert isinstance(config, pack("nodes.edges").TrainingConfig)
    assert config.values == {
        "adapter.rank": 8,
        "adapter.targets": ["attention", "to_q"],
        "preview.prompts": ["one", "two"],
        "adapter.alpha": None,
    }


def test_config_that_a_link_made_wrong_is_refused_when_it_runs(pack):
    with pytest.raises(pack.BadInput) as refused:
        pack.run(CONFIG, learning_rate=5.0, steps=0, epochs=0)
    assert str(refused.value).splitlines() == [
        "learning_rate: 5 is out of range: above 0, at most 1",
        "steps, epochs: neither is set; set one of them and leave the other at 0",
    ]


def test_dataset_gives_the_scan_the_sheet_and_the_report(dataset, host):
    made = dataset(resolution=64)
    found, sheet, report = made.args
    assert (found.config.path, found.config.cache) == (str(host.base / "input/things"), "disk")
    assert found.config.cache_path == str(host.base / "user/scion/encoded")
    assert [item.caption for item in found.scan.items] == ["a thing", "another"]
    assert sheet.shape[0] == 1 and sheet.shape[-1] == 3 and made.ui.shape == tuple(sheet.shape)
    assert "2 pictures" in report
    assert host.server.texts == []
    assert host.server.sent[-1] == ("scion.checking", {"node": "7", "done": 2, "total": 2})
    assert host.work.progress[-1] == ("7", 2, 2)


def test_dataset_takes_pictures_from_other_nodes_instead_of_the_folder(pack):
    batch = torch.rand(2, 64, 48, 3, generator=torch.Generator().manual_seed(0))
    images, captions = [batch, batch[:1, :32]], ["one", "two", "three"]
    made = pack.run(DATASET, folder=["nowhere"], images=images, captions=captions)
    assert [item.caption for item in made.args[0].scan.items] == ["one", "two", "three"]
    assert made.args[0].config.path == ""


def test_dataset_names_every_bad_file(pack, dataset, host):
    (host.base / "input/things").mkdir()
    (host.base / "input/things/c.png").write_bytes(b"no picture")
    (host.base / "input/things/c.txt").write_text("broken")
    with pytest.raises(pack.BadInput, match=r"c\.png"):
        dataset()


def test_dataset_names_its_widget_where_a_holdout_leaves_nothing(pack, dataset):
    with pytest.raises(pack.BadInput, match="^holdout: 2 of 2 pictures leaves none to train on"):
        dataset(holdout=2)


def test_dataset_folder_that_is_not_offered_is_refused_when_it_runs(pack, dataset):
    with pytest.raises(pack.BadInput, match="^folder: '../output' is no dataset on this machine"):
        dataset("../output")


def test_cancelled_check_ends_the_node_as_the_host_expects(dataset, host):
    host.work.interrupted = True
    with pytest.raises(BaseException) as ended:
        dataset()
    assert type(ended.value).__name__ == "InterruptProcessingException"
    assert not host.work.interrupted


def test_recipe_is_made_of_config_dataset_and_the_nodes_own_widgets(recipe_of, host):
    made = recipe_of({"adapter.rank": 8, "run.steps": 7}, name="mine", existing="new")
    assert made.validate() == []
    assert (made.base, made.adapter.rank, made.run.steps) == ("scion-tiny", 8, 7)
    assert (made.output.name, made.run.existing) == ("mine", "new")
    assert made.dataset.path == str(host.base / "input/things")


def test_recipe_of_an_empty_config_has_the_defaults(recipe_of, pack):
    default = pack("trainer_core.recipe").Recipe()
    made = recipe_of()
    assert (made.adapter, made.optimizer, made.objective) == (default.adapter, default.optimizer, default.objective)


def test_config_leaves_what_needs_held_out_pictures_to_the_training(pack, recipe_of):
    [config] = pack.run(CONFIG, early_stop=3, keep_best=True).args
    with pytest.raises(pack.BadInput) as refused:
        recipe_of(config.values)
    assert [said.partition(":")[0] for said in str(refused.value).splitlines()] == ["early_stop", "keep_best"]
    assert str(refused.value).endswith("set holdout to 1 or more")
    with pytest.raises(pack.BadInput, match="^output_checkpoint: 'best', but the best checkpoint is not kept"):
        pack.run(CONFIG, output_checkpoint="best")


def test_recipe_names_the_widgets_of_all_three_nodes(recipe_of, pack):
    with pytest.raises(pack.BadInput) as refused:
        recipe_of({"run.steps": 0, "optimizer.learning_rate": 5.0}, name="a/b")
    said = str(refused.value).splitlines()
    assert len(said) == 3
    assert said[0].startswith("learning_rate: 5 is out of range")
    assert said[1].startswith("steps, epochs: neither is set")
    assert said[2].startswith("name: 'a/b' cannot be a file's name everywhere")


def test_lora_to_start_from_is_kept_as_a_file_by_its_content(recipe_of, pack, host):
    lora = {"x.lora_up.weight": torch.ones(2, 2)}
    made = recipe_of(start_lora=lora)
    path = host.base / "output/scion/start" / f"{pack('nodes.edges').digest_of(lora)[:16]}.safetensors"
    assert made.adapter.start_from == str(path)
    written = path.stat().st_mtime_ns
    assert recipe_of(start_lora=dict(lora)).adapter.start_from == str(path)
    assert path.stat().st_mtime_ns == written


def test_an_assistant_is_kept_as_the_lora_to_start_from_is(recipe_of, pack, host):
    lora = {"x.lora_up.weight": torch.zeros(2, 2)}
    made = recipe_of(start_lora={"x.lora_up.weight": torch.ones(2, 2)}, assistant=lora, assistant_strength=0.5)
    path = host.base / "output/scion/start" / f"{pack('nodes.edges').digest_of(lora)[:16]}.safetensors"
    assert made.adapter.assistant == str(path) != made.adapter.start_from
    assert made.adapter.assistant_strength == 0.5


def test_an_assistant_may_be_one_of_the_host_s_files_but_not_two(recipe_of, pack, host):
    (host.base / "models/loras/helper.safetensors").touch()
    options = next(one for one in pack.described()["ScionTrainLoRA"]["inputs"] if one["name"] == "assistant_file")
    assert options["told"]["options"][0] == "none"
    made = recipe_of(file="helper.safetensors")
    assert made.adapter.assistant == str(host.base / "models/loras/helper.safetensors")
    with pytest.raises(pack.BadInput, match="assistant_file: helper.safetensors, but assistant_lora is wired, too"):
        recipe_of(assistant={"x": torch.ones(1)}, file="helper.safetensors")


def test_lora_to_start_from_leaves_the_other_settings_of_the_adapter(recipe_of):
    made = recipe_of({"adapter.rank": 2}, start_lora={"x": torch.ones(1)})
    assert made.adapter.rank == 2 and made.adapter.start_from


def test_remedy_after_a_failed_run_names_widgets(pack):
    advice = pack("nodes.train_lora").InTheGraph("resume")
    start = {"adapter.start_from": "/runs/a/step-00000010/a.safetensors", "adapter.alpha": "4"}
    said = advice.begin_lower(None, "optimizer.learning_rate", "1e-05", start)
    assert said == "Begin anew with a lower learning rate: set learning_rate to 1e-05 and queue again."


def test_how_to_go_on_depends_on_what_is_done_with_a_run_that_is_there(pack):
    told = {existing: pack("nodes.train_lora").InTheGraph(existing).go_on(None) for existing in ("resume", "new")}
    assert told["resume"] == "Queue the workflow again to go on."
    assert told["new"] == "Set existing to 'resume' and queue the workflow again to go on."


def test_going_on_in_less_memory_names_the_widget(pack):
    advice = pack("nodes.train_lora").InTheGraph("resume")
    said = advice.go_on(None, {"run.gradient_checkpointing": "true"})
    assert said == "Set gradient_checkpointing to true and queue the workflow again to go on."


def test_out_of_memory_is_told_of_widgets_and_of_no_command_line(pack):
    node, widgets = pack("nodes.train_lora"), pack("nodes.widgets")
    memory = pack("trainer_core.engine.memory_advice")
    remedies = [
        memory.Remedy({"run.gradient_checkpointing": "true"}, "false", "it is slower", same_run=True, saves=3 * 10**9),
        memory.Remedy({"run.batch_size": "2", "run.accumulation": "2"}, "4", "it is almost the same", saves=2 * 10**9),
    ]
    told = memory._told("this step takes", 9 * 10**9, remedies, node.InTheGraph("resume"))
    assert told.changes == {"run.gradient_checkpointing": "true"}
    assert widgets.named_as_widgets(told.text, node.ALL) == (
        "out of memory: this step takes about 9.0 GB. Set gradient_checkpointing=true (now false): saves about 3.0 GB, "
        "it is slower, and the same run goes on. Or set batch_size=2 with accumulation=2 (now 4): saves about 2.0 GB, "
        "it is almost the same, and it makes another run"
    )


def test_dataset_is_looked_at_again_when_its_files_change_and_not_when_it_is_not_read(pack, host, picture):
    node = pack.nodes[DATASET]
    picture(host.base / "input/things/a.png")
    before = node.fingerprint_inputs(folder=["things"], repeats=[1])
    assert before == node.fingerprint_inputs(folder=["things"], repeats=[2])
    picture(host.base / "input/things/b.png")
    assert node.fingerprint_inputs(folder=["things"]) != before
    linked = node.fingerprint_inputs(folder=(None,))
    assert linked != linked
    assert node.fingerprint_inputs(folder=["things"], images=(None,)) is None
    assert node.fingerprint_inputs(folder=["nowhere"]) is None


@pytest.fixture
def class_folder(host, picture):
    """Three pictures of a class in the host's input folder, and masks for the two of `dataset`."""
    for n in range(3):
        picture(host.base / f"input/class/{n}.png", None, (80 * n, 20, 90))
    for name in ("a", "b"):
        Image.fromarray(np.full((64, 64), 255, np.uint8)).save(picture(host.base / f"input/masks/{name}.png", None))
    return "class"


def test_chained_datasets_keep_their_own_settings_and_the_last_decides_for_all(dataset, class_folder, host, pack):
    prior = {"regularisation": True, "default_caption": "a thing", "trigger": "not used", "resolution": 96}
    upstream = dataset(class_folder, **prior)
    things = {"trigger": "zorb", "weight": 0.5, "mask": "folder", "mask_folder": "masks", "mask_floor": 0.25}
    made, _, report = dataset(more=upstream.args[0], resolution=64, **things).args
    assert "0 showings an epoch and as many of 3 regularisation pictures" in upstream.args[2]
    assert made.config.path == "" and made.config.resolution == 64
    assert [(f.path, f.regularisation, f.trigger, f.weight) for f in made.config.folders] == [
        (str(host.base / "input/class"), True, "", 1.0),
        (str(host.base / "input/things"), False, "zorb", 0.5),
    ]
    assert made.config.folders[1].mask_path == str(host.base / "input/masks")
    assert [item.key for item in made.scan.items] == [f"class/{n}.png" for n in range(3)] + [
        "things/a.png",
        "things/b.png",
    ]
    assert [bool(item.mask_digest) for item in made.scan.items] == [False] * 3 + [True] * 2
    assert "folder class: 3 pictures, for regularisation, weight 1" in report
    assert "folder things: 2 pictures, repeats 1, weight 0.5, 2 with a mask" in report
    assert "  things/a.png: zorb, a thing" in report


def test_a_chained_dataset_is_the_one_that_its_recipe_scans(dataset, class_folder, pack):
    upstream = dataset(class_folder, regularisation=True, default_caption="a thing").args[0]
    made = dataset(more=upstream).args[0]
    written = pack("nodes.train_lora")._recipe(
        pack("nodes.train_lora")._Base("scion-tiny", None), made, NO_CONFIG, {}, {}
    )
    again = pack("trainer_core.recipe").from_dict(written.as_dict())
    assert again == written
    scan = pack("trainer_core.data.folders").scan_dataset(again.dataset)
    assert scan.fingerprint == made.scan.fingerprint and scan.items == made.scan.items


def test_a_mask_folder_that_is_not_chosen_or_not_there_is_named_as_the_widget(dataset, class_folder, pack):
    with pytest.raises(pack.BadInput, match="^mask_folder: is empty, but mask is 'folder'; give the folder"):
        dataset(mask="folder")
    with pytest.raises(pack.BadInput, match="^mask_folder: 'nowhere' is no dataset on this machine"):
        dataset(mask="folder", mask_folder="nowhere")
    with pytest.raises(pack.BadInput, match="2 pictures have no picture of the same name in mask_folder"):
        dataset(mask="folder", mask_folder="class")
    said = pack.validate(DATASET, folder="things", mask_folder="nowhere")
    assert said.startswith("mask_folder: 'nowhere' is no dataset on this machine")
    assert pack.validate(DATASET, folder="things", mask_folder="none") is True


def test_an_edited_mask_is_looked_at_again(pack, dataset, class_folder, host, picture):
    node = pack.nodes[DATASET]
    dataset()
    held = {"folder": ["things"], "mask": ["folder"], "mask_folder": ["masks"]}
    before = node.fingerprint_inputs(**held)
    assert before != node.fingerprint_inputs(folder=["things"])
    picture(host.base / "input/masks/c.png", None)
    assert node.fingerprint_inputs(**held) != before
    assert node.fingerprint_inputs(folder=["things"], mask_folder=["masks"]) == node.fingerprint_inputs(
        folder=["things"]
    )
