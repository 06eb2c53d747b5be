"""Bases that are torn, incomplete, or of another shape."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

UNET = "unet/diffusion_pytorch_model.safetensors"


def edited(change, file=UNET):
    def spoil(folder):
        state = load_file(folder / file)
        change(state)
        save_file(state, folder / file)

    return spoil


def nan(name, file=UNET):
    def change(state):
        (key,) = [key for key in state if key.endswith(name)]
        state[key][0] = float("nan")

    return edited(change, file)


def config(file, **changes):
    def spoil(folder):
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def cut(file):
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:1000])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(
            edited(lambda state: state.pop("conv_in.weight")),
            ["the unet of", "does not fit its configuration", "1 missing (conv_in.weight)"],
            id="a missing key",
        ),
        pytest.param(
            edited(lambda state: state.update({"more.weight": torch.zeros(2)})),
            ["the unet of", "1 unexpected (more.weight)"],
            id="an extra key",
        ),
        pytest.param(
            edited(lambda state: state.update({"conv_in.bias": torch.zeros(7)})),
            ["1 misshaped", "conv_in.bias is [7] instead of [32]"],
            id="a misshaped key",
        ),
        pytest.param(
            edited(lambda state: state.clear(), "vae/diffusion_pytorch_model.safetensors"),
            ["the vae of", "missing"],
            id="no keys",
        ),
        pytest.param(
            nan("conv_out.bias"),
            ["the unet of", "holds NaN or infinite numbers in 1 of its tensors (conv_out.bias)"],
            id="NaN",
        ),
        pytest.param(
            nan("encoder.conv_in.bias", "vae/diffusion_pytorch_model.safetensors"),
            [
                "the vae of",
                "holds NaN or infinite numbers in 1 of its tensors (encoder.conv_in.bias)",
                "download it again, or choose another base",
            ],
            id="NaN in the VAE",
        ),
        pytest.param(
            nan("final_layer_norm.bias", "text_encoder/model.safetensors"),
            ["the text_encoder of", "holds NaN or infinite", "final_layer_norm.bias"],
            id="NaN in the text encoder",
        ),
        pytest.param(cut(UNET), ["unet", "cannot be read as weights", "is the download complete?"], id="cut off"),
        pytest.param(lambda folder: (folder / UNET).write_bytes(b""), "cannot be read as weights", id="empty"),
        pytest.param(lambda folder: (folder / UNET).unlink(), ["no weights in", "unet"], id="no weights"),
        pytest.param(lambda folder: shutil.rmtree(folder / "vae"), "lacks vae/config.json", id="no VAE"),
        pytest.param(lambda folder: shutil.rmtree(folder / "tokenizer"), "lacks tokenizer", id="no tokenizer"),
        pytest.param(lambda folder: (folder / "model_index.json").unlink(), "has no model_index.json", id="no index"),
        pytest.param(
            lambda folder: (folder / "unet/config.json").write_text("{"),
            "unet/config.json is not readable JSON",
            id="torn JSON",
        ),
        pytest.param(
            config("scheduler/scheduler_config.json", prediction_type="sample"),
            ["prediction_type 'sample'", "epsilon, v_prediction"],
            id="an unknown prediction",
        ),
    ],
)
def test_a_base_that_does_not_fit_is_refused_with_what_is_wrong(refused, words, copied, pictures, spoil, said):
    spoil(copied)
    refused(words(pictures, base=copied), ["base: ", str(copied), *([said] if isinstance(said, str) else said)])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        pytest.param("none.safetensors", None, "base: nothing at", id="missing"),
        pytest.param("a.txt", b"x", ["is no checkpoint", ".safetensors, .ckpt, .pt, .bin"], id="text"),
        pytest.param("a.safetensors", b"x", "cannot be read as weights", id="no safetensors"),
        pytest.param("a.ckpt", b"PK\x03\x04", "cannot be read as weights", id="a torn archive"),
    ],
)
def test_a_file_that_is_no_base_is_refused(refused, words, pictures, tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refused(words(pictures, base=tmp_path / name), ["base: ", name, *([said] if isinstance(said, str) else said)])
