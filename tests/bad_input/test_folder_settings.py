"""Folders, masks, regularisation pictures and caption features that cannot be used."""

import json

import numpy as np
import pytest
from PIL import Image


def grey(bad, name, pixels):
    path = bad.folder.parent / name
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def masks(bad, settings):
    """Settings that point at the masks beside the dataset."""
    return {"dataset.mask": "folder", "dataset.mask_path": bad.folder.parent / "masks", **settings}


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        pytest.param("x", "dataset.folders: not a JSON list", id="no JSON"),
        pytest.param('["x"]', "dataset.folders: [0]: expected settings, got text ('x')", id="a path alone"),
        pytest.param([{"pth": "x"}], "[0].pth: unknown setting; did you mean 'path'?", id="a misspelt key"),
        pytest.param([{"path": "x", "resolution": 9}], "[0].resolution: unknown setting", id="not a folder's own"),
        pytest.param([{}], "dataset.folders[0].path: is empty; give the folder of the pictures", id="no path"),
        pytest.param([{"path": "gone"}], "in gone: gone: there is no such folder", id="missing"),
        pytest.param(
            [{"path": "x", "weight": 0}], "dataset.folders[0].weight: 0 is out of range: above 0", id="weight 0"
        ),
        pytest.param(
            [{"path": "x", "regularisation": True, "trigger": "zorb"}],
            "dataset.folders[0].trigger: 'zorb', but a regularisation folder has none",
            id="a class with a trigger word",
        ),
        pytest.param(
            [{"path": "x", "mask": "folder"}], "dataset.folders[0].mask_path: is empty, but mask is", id="no masks"
        ),
    ],
)
def test_folders_that_cannot_be_used_are_refused_by_their_number(refused, words, bad, folders, said):
    bad.draw("a.png")
    text = folders if isinstance(folders, str) else json.dumps(folders)
    refused(words(bad.folder, **{"dataset.folders": text}), said)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        pytest.param({"dataset.caption_replace": "dog"}, "caption_replace: 'dog' is no replacement", id="no arrow"),
        pytest.param({"dataset.caption_prefix": "a [trigger]"}, "but there is no trigger word here", id="no trigger"),
        pytest.param({"dataset.mask_floor": 1.5}, "dataset.mask_floor: 1.5 is out of range: 0 to 1", id="floor"),
        pytest.param({"dataset.mask": "alhpa"}, "did you mean 'alpha'?", id="a misspelt mask"),
        pytest.param({"dataset.mask_path": "x"}, "mask_path: is given, but mask is 'off'", id="unused masks"),
        pytest.param({"dataset.prior_weight": 0}, "prior_weight: 0 is out of range: above 0", id="prior 0"),
        pytest.param({"dataset.regularisation": "true"}, "every folder is for regularisation", id="class alone"),
        pytest.param({"dataset.mask": "alpha"}, "2 pictures have no alpha channel: a.png, b.png", id="no alpha"),
    ],
)
def test_settings_that_do_not_fit_the_dataset_are_refused(refused, words, bad, settings, said):
    bad.draw("a.png")
    bad.draw("b.png")
    refused(words(bad.folder, **settings), said)


@pytest.mark.parametrize(
    ("caption", "settings", "said"),
    [
        pytest.param(
            "a (red:1.3) hat", {}, ["a.png: its caption holds the prompt weight '(red:1.3)'", "'remove'"], id="w"
        ),
        pytest.param("a {red|blue", {"dataset.wildcards": "true"}, "a.png: its caption opens a wildcard", id="open"),
        pytest.param("a } b", {"dataset.wildcards": "true"}, "closes a wildcard that is not open", id="closed"),
        pytest.param("{" * 40 + "}" * 40, {"dataset.wildcards": "true"}, "more than 10 deep", id="too deep"),
        pytest.param(
            "dog",
            {"dataset.wildcards": "true", "dataset.caption_replace": "dog => {cat"},
            "dataset.caption_replace: 'dog => {cat' opens a wildcard",
            id="replaced",
        ),
    ],
)
def test_a_caption_that_asks_for_what_cannot_be_is_refused_by_its_name(refused, words, bad, caption, settings, said):
    bad.draw("a.png", caption=caption)
    refused(words(bad.folder, **settings), said)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda bad: None, "dataset.mask_path: ", id="no folder"),
        pytest.param(
            lambda bad: grey(bad, "masks/b.png", np.full((64, 64), 255)),
            "1 picture has no picture of the same name in mask_path: a.png; add what is missing",
            id="none for the picture",
        ),
        pytest.param(
            lambda bad: grey(bad, "masks/a.png", np.full((64, 96), 255)),
            "a.png: its mask a.png has 96×64 pixels, the picture 64×64, which is another shape",
            id="another shape",
        ),
        pytest.param(
            lambda bad: grey(bad, "masks/a.png", np.zeros((64, 64))),
            "a.png: its mask a.png is all black, so that nothing of the picture would count",
            id="all black",
        ),
        pytest.param(
            lambda bad: (grey(bad, "masks/a.png", np.ones((64, 64))), bad.write("../masks/a.png", b"text")),
            "a.png: its mask a.png is no picture: its content is none of JPEG",
            id="no picture",
        ),
        pytest.param(
            lambda bad: (grey(bad, "masks/a.png", np.ones((64, 64))), bad.write("../masks/a.png", b"")),
            "a.png: its mask a.png is empty (0 bytes)",
            id="zero bytes",
        ),
    ],
)
def test_a_mask_that_cannot_be_used_is_refused_with_its_picture(refused, words, bad, spoil, said):
    bad.draw("a.png")
    spoil(bad)
    refused(words(bad.folder, **masks(bad, {})), said)


def test_an_odd_mask_is_trained_with(scion, words, bad):
    """Twice as large, of another ending and with transparency, which counts as black."""
    bad.draw("a.png")
    pixels = np.full((128, 128, 4), 255, np.uint8)
    pixels[:, 64:, 3] = 0
    grey(bad, "masks/a.webp", pixels)
    code, out, errors = scion(*words(bad.folder, **masks(bad, {})))
    assert code == 0, errors
    assert "1 with a mask" in out
