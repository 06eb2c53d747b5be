"""Datasets that are chained in the graph: a class, a masked folder, and what their run says of them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folders(host, pictures):
    """Folders in the host's input folder: `class` of three pictures without captions, `masks` for the pictures."""
    base = host.base / "input"
    for name in ("class", "masks"):
        (base / name).mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64), (80 * number, 90, 30)).save(base / "class" / f"{number}.png")
    for path in pictures.glob("*.png"):
        mask = np.zeros(Image.open(path).size[::-1], np.uint8)
        mask[:, : mask.shape[1] // 2] = 255
        Image.fromarray(mask).save(base / "masks" / path.name)
    yield base
    for name in ("class", "masks"):
        shutil.rmtree(base / name)


def chained(graph, **masked):
    prompt = graph.training(dataset={"trigger": "zorb", "mask": "folder", "mask_folder": "masks", **masked})
    prompt["class"] = graph.node(
        "ScionLoadImageCaptionDataset", folder="class", regularisation=True, default_caption="a thing", weight=0.5
    )
    prompt["dataset"]["inputs"]["more"] = ["class", 0]
    prompt["report"] = graph.node("PreviewAny", source=("dataset", 2))
    return prompt


def test_chained_datasets_with_a_mask_and_a_class_train(host, graph, folders):
    result = host.run(chained(graph))
    run = graph.run_of(host, result)
    assert run.state["status"] == "finished" and len(run.losses) == 3
    assert json.loads(run.metadata["ss_dataset_dirs"]) == {"things": {"n_repeats": 1, "img_count": 5}}
    assert json.loads(run.metadata["ss_reg_dataset_dirs"]) == {"class": {"n_repeats": 1, "img_count": 3}}
    [report] = result.outputs["report"]["text"]
    assert "folder class: 3 pictures, for regularisation, weight 0.5" in report
    assert "folder things: 5 pictures, repeats 1, weight 1, 5 with a mask" in report
    written = json.loads((run.folder / "recipe.json").read_text())["dataset"]["folders"]
    assert [(entry["path"], entry["mask_path"]) for entry in written] == [
        (str(folders / "class"), ""),
        (str(folders / "things"), str(folders / "masks")),
    ]
    assert graph.run_of(host, host.run(chained(graph))).folder == run.folder
    assert graph.run_of(host, host.run(chained(graph, mask_floor=0.5))).folder != run.folder


def test_mask_folder_that_is_not_offered_is_refused_before_anything_runs(host, graph, folders):
    result = host.run(chained(graph, mask_folder="../masks"))
    assert (result.status, result.prompt_id) == ("error", None)
    assert "mask_folder: '../masks' is no dataset on this machine" in graph.said(result)


def test_edited_mask_trains_anew(host, graph, folders):
    before = graph.run_of(host, host.run(chained(graph)))
    path = folders / "masks" / "0.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert graph.run_of(host, host.run(chained(graph))).folder != before.folder
