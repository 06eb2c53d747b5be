"""Files of LoRA's relatives: what is in them, how LyCORIS' own forms are read, and what is wrong with those that do not
fit."""

import math
import re

import pytest
import torch

from trainer_core.errors import BadInput
from trainer_core.lora_file.dialects import lora_from_tensors, lora_to_tensors
from trainer_core.lora_file.dora import DoraPair
from trainer_core.lora_file.inspect import inspect_file
from trainer_core.lora_file.loha import LohaWeights
from trainer_core.lora_file.lokr import LokrWeights
from trainer_core.lora_file.lora import LoraPair
from trainer_core.lora_file.oft import OftBlocks
from trainer_core.lora_file.safe_io import write_tensors
from trainer_core.lora_file.save import save_lora

QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
TEXT = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
CONVOLUTION = "down_blocks.0.resnets.0.conv1"
NAMES = {path: "lora_unet_" + path.replace(".", "_") for path in (QUERY, TEXT, CONVOLUTION)}
SHAPES = {QUERY: (64, 64), CONVOLUTION: (32, 32, 3, 3)}


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))) * 0.1


def loha(out, into):
    return {
        "hada_w1_a": drawn(out, 2),
        "hada_w1_b": drawn(2, into),
        "hada_w2_a": drawn(out, 2, seed=1),
        "hada_w2_b": drawn(2, into, seed=1),
    }


def lora_of(kind, target):
    """One of each kind on a linear layer and a convolution."""
    if kind == "dora":
        pairs = {QUERY: (drawn(2, 64), drawn(64, 2)), CONVOLUTION: (drawn(2, 32, 3, 3), drawn(32, 2, 1, 1))}
        made = {path: DoraPair(a, b, 1.0, 1 + drawn(len(b), *[1] * (a.ndim - 1))) for path, (a, b) in pairs.items()}
    elif kind == "loha":
        made = {path: LohaWeights(loha(s[0], math.prod(s[1:])), 1.0, s) for path, s in SHAPES.items()}
    elif kind == "lokr":
        linear = {"lokr_w1": drawn(8, 8), "lokr_w2_a": drawn(8, 2), "lokr_w2_b": drawn(2, 8)}
        kernel = {"lokr_w1": drawn(4, 4), "lokr_w2": drawn(8, 8, 3, 3)}
        made = {
            QUERY: LokrWeights(linear, 1.0, SHAPES[QUERY]),
            CONVOLUTION: LokrWeights(kernel, 4.0, SHAPES[CONVOLUTION]),
        }
    else:
        halves = {QUERY: drawn(16, 4, 4), CONVOLUTION: drawn(8, 4, 4)}
        made = {path: OftBlocks(half - half.transpose(1, 2)) for path, half in halves.items()}
    return {"unet": made}


def of_module(path, tensors):
    return {f"{NAMES[path]}.{part}": tensor for part, tensor in tensors.items()}


def refused(tensors, target):
    with pytest.raises(BadInput) as caught:
        lora_from_tensors(tensors, target, where="my.safetensors")
    return str(caught.value)


@pytest.mark.parametrize("dialect", ["kohya", "kohya-ldm", "comfyui"])
@pytest.mark.parametrize("kind", ["dora", "loha", "lokr", "oft"])
def test_a_kind_survives_its_file_and_loads_in_comfyui_alone(target, tmp_path, kind, dialect):
    lora = lora_of(kind, target)
    found = save_lora(tmp_path / "a", lora, dialect, "float32", {}, target)
    assert {report.reader: (report.loaded, report.complete) for report in found} == {
        "ComfyUI": (2, True),
        "diffusers": (0, False),
        "sd-scripts": (0, False),
    }
    read = lora_from_tensors(lora_to_tensors(lora, dialect, target), target)
    for path, held in lora["unet"].items():
        weight = drawn(*SHAPES[path], seed=7)
        assert held.delta(weight).abs().max() > 1e-4
        torch.testing.assert_close(read["unet"][path].delta(weight), held.delta(weight))


@pytest.mark.parametrize("kind", ["dora", "loha", "lokr", "oft"])
def test_diffusers_dialect_is_refused_for_what_diffusers_does_not_read(target, kind):
    with pytest.raises(BadInput, match="'diffusers' has no keys for .*; choose one of kohya, kohya-ldm, comfyui"):
        lora_to_tensors(lora_of(kind, target), "diffusers", target)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("dora", "DoRA.*rank: 2; alpha: 1; dtype: float16 .*float32"),
        ("loha", "LoHa.*rank: 2; alpha: 1; dtype: float16"),
        ("lokr", "LoKr.*rank: 2; alpha: 4 .*1 .*; sizes: w1 4×4 .*w2 8×8×3×3 .*w1 8×8 "),
        ("oft", "OFT.*sizes: blocks of 4; dtype: float16"),
    ],
)
def test_inspect_tells_the_kind_and_its_sizes(target, tmp_path, kind, said):
    save_lora(tmp_path / "a", lora_of(kind, target), "kohya", "float16", {}, target)
    found = inspect_file(tmp_path / "a", target)
    assert found.components == {"unet": 2} and found.dialects == ["kohya"]
    lines = "\n".join(found.lines())
    assert re.search(said, lines.replace("\n", " ")), lines
    assert "2 of 2 modules load in ComfyUI" in lines and "0 of 2 modules load in diffusers" in lines


def test_family_is_known_by_the_width_of_the_text_in_every_kind_that_tells_it(tmp_path):
    for parts in (loha(320, 768), {"lokr_w1": drawn(16, 16), "lokr_w2_a": drawn(20, 2), "lokr_w2_b": drawn(2, 48)}):
        path = tmp_path / f"{len(parts)}"
        write_tensors(path, of_module(TEXT, parts))
        assert inspect_file(path).family == "Stable Diffusion 1.x"
    # Blocks say nothing of the inputs: then what the file says of itself counts.
    for told, family in (("sd_v1", "Stable Diffusion 1.x"), ("flux1", "Flux"), ("wan", None)):
        blocks = of_module(TEXT, {"oft_blocks": drawn(80, 16, 16)})
        write_tensors(tmp_path / "oft", blocks, {"ss_base_model_version": told})
        assert inspect_file(tmp_path / "oft").family == family


def test_tucker_cores_of_convolutions_are_read_as_lycoris_writes_them(target):
    core, a, b = drawn(2, 2, 3, 3), drawn(2, 32), drawn(2, 32, seed=1)
    parts = {f"hada_{part}": t for n in "12" for part, t in ((f"t{n}", core), (f"w{n}_a", a), (f"w{n}_b", b))}
    read = lora_from_tensors(of_module(CONVOLUTION, parts), target)["unet"][CONVOLUTION]
    kernel = sum(core[i, j] * a[i][:, None, None, None] * b[j][None, :, None, None] for i in range(2) for j in range(2))
    torch.testing.assert_close(read.delta(), kernel**2)
    parts = {"lokr_w1": drawn(4, 4), "lokr_t2": core, "lokr_w2_a": drawn(2, 8), "lokr_w2_b": drawn(2, 8)}
    read = lora_from_tensors(of_module(CONVOLUTION, {**parts, "alpha": torch.tensor(1.0)}), target)["unet"][CONVOLUTION]
    second = sum(
        core[i, j] * parts["lokr_w2_a"][i][:, None, None, None] * parts["lokr_w2_b"][j][None, :, None, None]
        for i in range(2)
        for j in range(2)
    )
    torch.testing.assert_close(read.delta()[8:16, :8], 0.5 * parts["lokr_w1"][1, 0] * second)


def test_lycoris_blocks_are_any_matrices_and_alpha_their_constraint(target):
    blocks = drawn(16, 4, 4)
    free = lora_from_tensors(of_module(QUERY, {"oft_blocks": blocks}), target)["unet"][QUERY]
    torch.testing.assert_close(free.skew, blocks - blocks.transpose(1, 2))
    held = lora_from_tensors(of_module(QUERY, {"oft_blocks": blocks, "alpha": torch.tensor(0.5)}), target)
    assert held["unet"][QUERY].skew.norm() == pytest.approx(0.5, rel=1e-4)
    weight, identity = drawn(64, 64, seed=7), torch.eye(4)
    rotations = [(identity + q) @ (identity - q).inverse() for q in free.skew]
    expected = torch.cat([r.T @ rows for r, rows in zip(rotations, weight.split(4), strict=True)])
    torch.testing.assert_close(weight + free.delta(weight), expected)


def test_scale_of_lokr_counts_only_where_a_factor_is_a_pair(target):
    whole = {"lokr_w1": drawn(8, 8), "lokr_w2": drawn(8, 8), "alpha": torch.tensor(100.0)}
    read = lora_from_tensors(of_module(QUERY, whole), target)["unet"][QUERY]
    torch.testing.assert_close(read.delta(), torch.kron(whole["lokr_w1"], whole["lokr_w2"]))


PAIR = {"lora_down.weight": drawn(2, 64), "lora_up.weight": drawn(64, 2)}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            loha(64, 63),
            ["hada_w1_b of shape [2, 63] does not fit the weight of shape [64, 64]", "Choose a file"],
        ),
        ({"hada_w1_a": drawn(64, 2)}, ["has no hada_w1_b and no hada_w2_a", "save or download the file again"]),
        (
            {"lokr_w1": drawn(8, 8), "lokr_w2": drawn(8, 9)},
            ["lokr_w2 of shape [8, 9]: their product does not fit the weight of shape [64, 64]", "`scion inspect`"],
        ),
        ({"lokr_w1": drawn(8, 8), "lokr_w2_a": drawn(8, 2)}, ["needs lokr_w2, or lokr_w2_a and lokr_w2_b"]),
        ({"oft_blocks": drawn(3, 4, 4)}, ["oft_blocks of shape [3, 4, 4] do not fit the weight of shape [64, 64]"]),
        ({"oft_blocks": drawn(2, 8, 4, 4)}, ["as BOFT's have", "ComfyUI loads it"]),
        ({**PAIR, "dora_scale": drawn(5, 1)}, ["dora_scale of shape [5, 1] does not fit the weight"]),
        ({**PAIR, "dora_scale": drawn(1, 64)}, ["belongs to inputs", "ComfyUI's own loader takes the file"]),
        ({**loha(64, 64), "dora_scale": drawn(64, 1)}, ["holds dora_scale beside LoHa, which is not read here"]),
        ({**loha(64, 64), "hada_w1_a": torch.full((64, 2), torch.nan)}, ["holds NaN or infinite numbers"]),
        (
            {"oft_blocks": drawn(16, 4, 4), "rescale": drawn(64, 1)},
            ["holds OFT that scales, too (1 keys", "LoKr, OFT"],
        ),
    ],
    ids=lambda value: None if isinstance(value, list) else " ".join(value),
)
def test_what_does_not_fit_is_told_with_its_shapes_and_what_to_do(target, parts, said):
    told = refused(of_module(QUERY, parts), target)
    assert told.startswith("my.safetensors: ")
    for part in said:
        assert part in told, told


def test_several_kinds_in_a_file_and_many_misfits_are_one_sentence_each(target):
    mixed = of_module(QUERY, PAIR) | of_module(CONVOLUTION, loha(32, 288))
    assert "holds several kinds, LoRA (1 modules), LoHa (1 modules); one is read here" in refused(mixed, target)
    wide = {"lora_down.weight": drawn(2, 768), "lora_up.weight": drawn(64, 2)}
    several = {f"{name}.{part}": tensor for name in (NAMES[QUERY], NAMES[TEXT]) for part, tensor in wide.items()}
    told = refused(several, target)
    assert told.count("768") == 1 and "and so it is with 1 more of its 2 modules" in told
    assert "It looks like a file for Stable Diffusion 1.x. Choose a file that was made for this model" in told


def test_dora_scale_stays_in_fp32_and_alphas_of_pairs_are_one(target):
    lora = lora_of("dora", target)
    lora["unet"][QUERY] = DoraPair(drawn(2, 64), drawn(64, 2), 3.0, 1 + drawn(64, 1))
    tensors = lora_to_tensors(lora, "kohya", target, torch.float16)
    assert tensors[f"{NAMES[QUERY]}.dora_scale"].dtype == torch.float32
    assert tensors[f"{NAMES[QUERY]}.lora_up.weight"].dtype == torch.float16
    assert len({float(tensor) for key, tensor in tensors.items() if key.endswith(".alpha")}) == 1
    read = lora_from_tensors(tensors, target)["unet"][QUERY]
    weight = drawn(64, 64, seed=7)
    torch.testing.assert_close(read.delta(weight), lora["unet"][QUERY].delta(weight), rtol=1e-2, atol=1e-4)


def test_dora_is_the_paper_where_the_scale_is_made_from_its_magnitude():
    weight, pair = drawn(6, 5), LoraPair(drawn(2, 5), drawn(6, 2), 2.0)
    magnitude = 1 + drawn(6, 1)
    held = DoraPair.of_magnitude(pair, magnitude, weight)
    summed = weight + pair.delta()
    expected = magnitude * summed / summed.norm(dim=1, keepdim=True)
    torch.testing.assert_close(weight + held.delta(weight), expected)
    torch.testing.assert_close(held.magnitude(weight), magnitude)
