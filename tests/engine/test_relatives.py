"""Runs of LoRA's relatives: stopped and gone on with, gone on from a file, and what their files say."""

import json

import pytest
import torch

from trainer_core.adapters.lora_config import SHAPED_BY
from trainer_core.engine.events import Finished
from trainer_core.families import registry
from trainer_core.lora_file.dialects import read_lora
from trainer_core.lora_file.lora import Target
from trainer_core.lora_file.safe_io import read_header

RELATIVES = [kind for kind in SHAPED_BY if kind != "lora"]
MORE = {"dora": {"adapter.dropout": 0.1}, "lokr": {"adapter.factor": 2}}
ARGUMENTS = {
    "dora": {"algo": "lora", "dora_wd": "True", "wd_on_output": "True"},
    "loha": {"algo": "loha"},
    "lokr": {"algo": "lokr", "factor": "2"},
    "oft": {"algo": "diag-oft"},
}
"""What LyCORIS calls them."""


@pytest.mark.parametrize("kind", RELATIVES)
def test_a_run_that_stopped_ends_in_the_same_bits_as_one_that_did_not(train, same, kind):
    settings = {"adapter.kind": kind, "adapter.targets": ["attn2", "conv_in"], "run.steps": 3, **MORE.get(kind, {})}
    straight, heard = train(settings, "straight")
    assert any("29 of 29 modules load in ComfyUI" in line for line in heard.of(Finished)[0].lines)
    train(settings, "stopped", stop_after=1)
    resumed, _ = train(settings, "stopped")
    assert same(straight, resumed)
    metadata = read_header(resumed.lora).metadata
    assert metadata["ss_network_module"] == "lycoris.kohya" and metadata["ss_network_dim"] == "4"
    assert json.loads(metadata["ss_network_args"]) == ARGUMENTS[kind]


@pytest.mark.parametrize("kind", ["dora", "lokr"])
def test_a_run_goes_on_from_a_file_of_its_kind(train, base, kind):
    settings = {"adapter.kind": kind, "adapter.targets": ["attn2", "conv_in"], "run.steps": 2}
    first, _ = train(settings, "first")
    start = {"adapter.start_from": str(first.lora), "optimizer.learning_rate": 1e-12, "run.steps": 1}
    further, _ = train({**settings, **start}, "further")
    unet = registry.load(str(base)).denoiser
    before, after = (read_lora(result.lora, Target.of(unet=unet))[0]["unet"] for result in (first, further))
    for path, held in before.items():
        weight = unet.get_submodule(path).weight.detach()
        torch.testing.assert_close(after[path].delta(weight), held.delta(weight), rtol=1e-4, atol=1e-6)
        assert held.delta(weight).abs().max() > 0


def test_learning_rates_by_part_reach_every_kind(train, base):
    """What learns at next to nothing stays where it began."""
    for kind in ("loha", "lokr", "oft"):
        rates = {"optimizer.part_rates": ["attn1=1e-12"], "adapter.kind": kind, "run.steps": 1}
        result, _ = train(rates, kind)
        unet = registry.load(str(base)).denoiser
        read = read_lora(result.lora, Target.of(unet=unet))[0]["unet"]
        moved = {path: float(read[path].delta(unet.get_submodule(path).weight.detach()).abs().max()) for path in read}
        assert max(value for path, value in moved.items() if ".attn1." in path) < 1e-6, kind
        assert min(value for path, value in moved.items() if ".attn2." in path) > 1e-6, kind
