"""Datasets of the graph: folders that are offered and no others, lists from other nodes, and when they train anew."""

import json
import os
import shutil
import time

import numpy as np
import pytest

BUILT_IN = "scion-example (built in)"


@pytest.fixture
def dataset(host, pictures):
    """A copy of the pictures in the host's input folder, of the test's own."""
    folder = host.base / "input" / "own"
    shutil.copytree(pictures, folder)
    yield folder
    shutil.rmtree(folder)


def offered(host):
    time.sleep(0.6)  # so long the list of folders holds
    _, said = host.object_info("ScionLoadImageCaptionDataset")["input"]["required"]["folder"]
    return said["options"]


def failed(host, graph, prompt, node="dataset"):
    """What a node says that fails when it is executed."""
    result = host.run(prompt)
    assert result.status == "error"
    assert result.error.get("node_id") == node, graph.said(result)
    return graph.said(result)


def test_folder_in_input_and_the_example_are_offered(host, dataset):
    assert {"own", "things", BUILT_IN} <= set(offered(host))


def test_folder_one_level_below_is_offered_by_both_names(host, pictures):
    folder = host.base / "input" / "people"
    shutil.copytree(pictures, folder / "alice")
    try:
        assert "people/alice" in offered(host)
    finally:
        shutil.rmtree(folder)


def test_folder_without_pictures_is_not_offered(host):
    folder = host.base / "input" / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("no picture")
    try:
        assert "texts" not in offered(host)
    finally:
        shutil.rmtree(folder)


def test_built_in_example_trains(host, graph):
    run = graph.run_of(host, host.run(graph.training(folder=BUILT_IN)))
    assert run.state["status"] == "finished"
    assert sum(json.loads(run.metadata["ss_tag_frequency"])["example"].values()) >= 16


def test_dataset_that_nobody_touched_is_not_read_again(host, graph, dataset):
    prompt = graph.training(folder="own")
    host.run(prompt)
    assert {"dataset", "train"} <= set(graph.remembered(host.run(prompt)))


def test_edited_caption_trains_anew(host, graph, dataset):
    prompt = graph.training(folder="own")
    before = graph.run_of(host, host.run(prompt))
    (dataset / "1.txt").write_text("something else", encoding="utf-8")
    after = graph.run_of(host, host.run(prompt))
    assert after.folder != before.folder
    assert "something else" in after.metadata["ss_tag_frequency"]


@pytest.mark.parametrize("change", ["added", "removed"])
def test_picture_that_comes_or_goes_trains_anew(host, graph, dataset, change):
    prompt = graph.training(folder="own", config={"seed": 3})
    before = graph.run_of(host, host.run(prompt))
    if change == "removed":
        (dataset / "4.png").unlink()
        (dataset / "4.txt").unlink()
    else:
        shutil.copyfile(dataset / "4.png", dataset / "5.png")
        (dataset / "5.txt").write_text("a sixth", encoding="utf-8")
    assert graph.run_of(host, host.run(prompt)).folder != before.folder


def test_file_that_was_only_touched_trains_nothing(host, graph, dataset):
    prompt = graph.training(folder="own")
    before = graph.run_of(host, host.run(prompt))
    stamps = before.stamps()
    os.utime(dataset / "1.txt", (1e9, 1e9))
    result = host.run(prompt)
    assert "dataset" not in graph.remembered(result)
    after = graph.run_of(host, result)
    assert (after.folder, after.stamps()) == (before.folder, stamps)


def test_lists_of_the_hosts_dataset_node_train_as_their_folder_does(host, graph):
    prompt = graph.training()
    of_folder = graph.run_of(host, host.run(prompt))
    prompt["lists"] = graph.node("LoadImageTextDataSetFromFolder", folder="things")
    prompt["dataset"]["inputs"] |= {"images": ["lists", 0], "captions": ["lists", 1]}
    of_lists = graph.run_of(host, host.run(prompt))
    assert of_lists.state["status"] == "finished"
    tags = [sorted(json.loads(run.metadata["ss_tag_frequency"]).values(), key=str) for run in (of_folder, of_lists)]
    assert tags[0] == tags[1]


def test_batch_of_pictures_with_a_list_of_captions_trains(host, graph):
    prompt = graph.training()
    pictures = [graph.node("LoadImage", image=f"things/{place}.png") for place in (0, 2)]
    prompt |= {"left": pictures[0], "right": pictures[1]}
    prompt["batch"] = graph.node("ImageBatch", image1=("left", 0), image2=("right", 0))
    prompt["texts"] = graph.node("ProbeStrings", json=json.dumps(["a first one", "a second one"]))
    prompt["dataset"]["inputs"] |= {"images": ["batch", 0], "captions": ["texts", 0]}
    run = graph.run_of(host, host.run(prompt))
    [tags] = json.loads(run.metadata["ss_tag_frequency"]).values()
    assert tags == {"a first one": 1, "a second one": 1}


def test_captions_that_are_too_few_are_refused(host, graph):
    prompt = graph.training()
    prompt["lists"] = graph.node("LoadImageTextDataSetFromFolder", folder="things")
    prompt["texts"] = graph.node("ProbeStrings", json=json.dumps(["only one"]))
    prompt["dataset"]["inputs"] |= {"images": ["lists", 0], "captions": ["texts", 0]}
    assert "captions: 1 for 5 pictures; give one for each" in failed(host, graph, prompt)


def test_all_problem_files_are_named_at_once(host, graph, dataset):
    (dataset / "0.png").write_bytes(b"no picture")
    (dataset / "1.txt").unlink()
    (dataset / "2.txt").write_bytes(b"\xff\xfe\x00\xd8")
    before = graph.runs(host)
    said = failed(host, graph, graph.training(folder="own"))
    lines = [line for line in said.splitlines() if line.strip()]
    assert [any(line.startswith(f"{name}:") for line in lines) for name in ("0.png", "1.png", "2.txt")] == [True] * 3
    assert "write it to 1.txt" in said
    assert graph.runs(host) == before


def test_contact_sheet_and_report_show_what_was_found(host, graph):
    prompt = {"dataset": graph.training()["dataset"]}
    prompt["sheet"] = graph.node("SaveImage", images=("dataset", 1), filename_prefix="sheet")
    prompt["report"] = graph.node("PreviewAny", source=("dataset", 2))
    result = host.run(prompt)
    sheet = graph.drawn(host, result, "sheet")
    assert min(sheet.shape[:2]) >= 64
    # Five pictures of five colours.
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 100
    [report] = result.outputs["report"]["text"]
    assert "5 pictures" in report


@pytest.mark.parametrize(
    "name", ["../input/things", "..", "/etc", "things/../things", "nowhere", ""], ids=lambda name: name or "empty"
)
def test_name_that_is_not_offered_is_refused_before_anything_runs(host, graph, name):
    result = host.run(graph.training(folder=name))
    assert (result.status, result.prompt_id) == ("error", None)
    assert f"folder: {name!r} is no dataset on this machine" in graph.said(result)


def test_absolute_path_of_an_offered_folder_is_refused(host, graph):
    result = host.run(graph.training(folder=str(host.base / "input" / "things")))
    assert (result.status, result.prompt_id) == ("error", None)


@pytest.mark.parametrize("name", ["../input/things", "/etc"])
def test_linked_name_that_is_not_offered_is_refused(host, graph, name):
    prompt = graph.training(folder=("name", 0), name=graph.node("ProbeName", name=name))
    said = failed(host, graph, prompt)
    assert f"folder: {name!r} is no dataset on this machine" in said
    assert "Put the folder into one of" in said


def test_linked_name_that_is_offered_trains(host, graph):
    by_link = graph.run_of(host, host.run(graph.training(folder=("n", 0), n=graph.node("ProbeName", name="things"))))
    assert by_link.folder == graph.run_of(host, host.run(graph.training())).folder


def test_edited_caption_behind_a_linked_name_trains_anew(host, graph, dataset):
    prompt = graph.training(folder=("n", 0), n=graph.node("ProbeName", name="own"), config={"seed": 5})
    before = graph.run_of(host, host.run(prompt))
    (dataset / "1.txt").write_text("something else", encoding="utf-8")
    assert graph.run_of(host, host.run(prompt)).folder != before.folder


def test_folder_that_the_local_settings_allow_is_offered_and_trains(host, graph, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "allowed" / "mine")
    shutil.copytree(pictures, tmp_path / "others" / "theirs")
    settings = host.base / "user" / "scion.json"
    settings.write_text(json.dumps({"datasets": [str(tmp_path / "allowed")]}))
    try:
        assert "mine" in offered(host)
        assert "theirs" not in offered(host)
        told = host.get("/scion/settings")
        assert str(tmp_path / "allowed") in told["roots"] and told["file"] == str(settings)
        run = graph.run_of(host, host.run(graph.training(folder="mine", config={"seed": 11})))
    finally:
        settings.unlink()
    assert "mine" in json.loads(run.metadata["ss_tag_frequency"])
    # No longer allowed, no longer known.
    assert host.run(graph.training(folder="mine")).prompt_id is None


def test_datasets_entry_of_the_hosts_paths_is_offered(fresh_host, graph, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "elsewhere" / "sets" / "registered")
    paths = tmp_path / "paths.yaml"
    paths.write_text(f"mine:\n  base_path: {tmp_path / 'elsewhere'}\n  datasets: sets\n")
    own = fresh_host("--extra-model-paths-config", str(paths))
    assert "registered" in offered(own)
    run = graph.run_of(own, own.run(graph.training(folder="registered")))
    assert "registered" in json.loads(run.metadata["ss_tag_frequency"])
