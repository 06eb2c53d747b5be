"""LoRA files that are torn, lie, or belong elsewhere, at each door that takes one."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file


def cut(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def lie(change):
    """Rewrites the header by `change`, the data stays."""

    def spoil(path):
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        change(header, next(name for name in header if name != "__metadata__"))
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])

    return spoil


def put(content):
    return lambda path: path.write_bytes(content)


SPOILT = [
    pytest.param(lambda path: path.unlink(), "there is no such file", id="missing"),
    pytest.param(put(b""), "the file is empty (0 bytes). Copy or download it again", id="empty"),
    pytest.param(cut(0.5), ["cut off: its header describes", "Copy or download it again"], id="cut off"),
    pytest.param(cut(0.01), ["cut off within its header", "Copy or download it again"], id="cut off early"),
    pytest.param(put(b"no tensors"), "not a safetensors file; it looks like text", id="text"),
    pytest.param(put(b"<!DOCTYPE html>"), "it looks like a web page (a download that needed a login?)", id="web page"),
    pytest.param(put(b"\x80\x02}q\0."), "it looks like a Python pickle", id="pickle"),
    pytest.param(put(b"PK\x03\x04" + bytes(99)), ["zip archive", "convert it to safetensors"], id="archive"),
    pytest.param(put((2**40).to_bytes(8, "little") + b"{}"), "header claims 1,099,511,627,776 bytes", id="huge header"),
    pytest.param(
        lie(lambda header, name: header[name].update(data_offsets=[0, 2**40])),
        ["its safetensors header is damaged", "does not fit its 1099511627776 bytes"],
        id="lying offsets",
    ),
    pytest.param(
        lie(lambda header, name: header[name].update(shape=[2**40, 2**40])),
        "its safetensors header is damaged",
        id="lying shape",
    ),
    pytest.param(
        lie(lambda header, name: header[name].update(dtype="F99")), "has the unknown dtype 'F99'", id="unknown dtype"
    ),
    pytest.param(lambda path: (path.unlink(), path.mkdir()), "is a folder; a file was expected", id="folder"),
]


@pytest.fixture
def lora(trained, tmp_path):
    path = tmp_path / "my.safetensors"
    path.write_bytes(trained.lora.read_bytes())
    return path


@pytest.mark.parametrize(("spoil", "said"), SPOILT)
@pytest.mark.parametrize("door", ["inspect", "sample", "start_from"])
def test_a_file_that_cannot_be_read_is_refused_at_each_door(refused, words, base, pictures, lora, door, spoil, said):
    spoil(lora)
    given = {
        "inspect": ["inspect", lora],
        "sample": ["sample", "--base", base, "--prompt", "x", "--device", "cpu", "--lora", lora],
        "start_from": words(pictures, **{"adapter.start_from": lora}),
    }
    refused(given[door], [str(lora), *([said] if isinstance(said, str) else said)])


def family(path):
    """The same LoRA for a base whose text is 768 wide."""
    state = load_file(path)
    for key, tensor in state.items():
        if "attn2_to_k.lora_down" in key:
            state[key] = torch.zeros(tensor.shape[0], 768)
    save_file(state, path)


def renamed(path):
    save_file({f"lora_transformer_{key}": tensor for key, tensor in load_file(path).items()}, path)


def without_a_half(path):
    state = load_file(path)
    del state[next(key for key in state if "lora_up" in key)]
    save_file(state, path)


def nan(path):
    state = load_file(path)
    state[next(key for key in state if "lora_up" in key)][0] = float("nan")
    save_file(state, path)


def only(**parts):
    """A file of one module, which the model has."""
    name = "lora_unet_mid_block_attentions_0_proj_in"
    return lambda path: save_file({f"{name}.{part}": torch.zeros(shape) for part, shape in parts.items()}, path)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(
            family,
            [
                "attn2.to_k: A of shape [2, 768] and B of shape [32, 2] do not fit the weight of shape [32, 32]",
                "and so it is with 6 more of its 56 modules. It looks like a file for Stable Diffusion 1.x",
                "Choose a file that was made for this model",
            ],
            id="another family's shapes",
        ),
        pytest.param(
            renamed,
            ["none of its 168 keys belong to this model", "Choose a LoRA of this model's family"],
            id="another model's names",
        ),
        pytest.param(
            without_a_half,
            ["has only alpha and down; both halves (A and B) are needed", "save or download the file again"],
            id="half a pair",
        ),
        pytest.param(nan, ["holds NaN or infinite numbers", "the training that made it had failed"], id="NaN"),
        pytest.param(
            only(on_input=(2, 2)),
            ["holds IA3 (1 keys, such as", "only LoRA, DoRA, LoHa, LoKr, OFT are read here", "Choose a file of one"],
            id="another method",
        ),
        pytest.param(
            only(hada_w1_a=(64, 2), hada_w1_b=(2, 9), hada_w2_a=(64, 2), hada_w2_b=(2, 9)),
            [
                "proj_in: hada_w1_b of shape [2, 9] does not fit the weight of shape [64, 64, 1, 1]",
                "Choose a file that was",
            ],
            id="LoHa of other shapes",
        ),
        pytest.param(
            only(lokr_w1=(8, 8), lokr_w2=(8, 9)),
            ["lokr_w2 of shape [8, 9]: their product does not fit the weight", "Choose a file that was"],
            id="LoKr of other shapes",
        ),
        pytest.param(
            only(oft_blocks=(3, 4, 4)),
            ["oft_blocks of shape [3, 4, 4] do not fit the weight", "Choose a file that was"],
            id="OFT of other shapes",
        ),
        pytest.param(
            lambda path: save_file({"a": torch.zeros(2)}, path),
            ["none of its 1 keys belong to this model; unknown: a", "Choose a LoRA"],
            id="no LoRA",
        ),
    ],
)
@pytest.mark.parametrize("door", ["sample", "start_from"])
def test_a_file_of_another_model_is_refused(refused, words, base, pictures, lora, door, spoil, said):
    spoil(lora)
    given = {
        "sample": ["sample", "--base", base, "--prompt", "x", "--device", "cpu", "--lora", lora],
        "start_from": words(pictures, **{"adapter.start_from": lora}),
    }
    refused(given[door], [str(lora), *([said] if isinstance(said, str) else said)])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"adapter.rank": 3}, ["has rank 2 instead of 3", "Set adapter.rank"], id="another rank"),
        pytest.param({"adapter.alpha": 1}, ["has alpha 2 instead of 1", "adapter.alpha"], id="another alpha"),
        pytest.param({"adapter.targets": "to_q"}, ["is not among the targets", "adapter.targets"], id="fewer targets"),
        pytest.param({"adapter.targets": "all"}, ["no pair for", "`scion inspect`"], id="more targets"),
        pytest.param(
            {"adapter.kind": "lokr"},
            ["holds LoRA, but adapter.kind is lokr; set it to lora, or start from another file"],
            id="another kind",
        ),
    ],
)
def test_a_start_with_other_settings_is_refused(refused, words, pictures, lora, changes, said):
    refused(words(pictures, **{"adapter.start_from": lora, **changes}), ["adapter.start_from: ", str(lora), *said])
