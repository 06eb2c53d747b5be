"""Text encoders that learn in the graph, on the host's own CLIP, and the way of what they learned back into it."""

import pytest
import torch
from safetensors.torch import load_file

from trainer_core.sampler import load_for_sampling

LEFT_OUT = ("lora key not loaded", "NOT LOADED", "ERROR lora", "ERROR loha", "ERROR lokr", "ERROR oft")
STRONG = {"learning_rate": 0.02, "text_encoder": "on", "text_encoder_rank": 2}
CAPTION = "a red ring, a blue square"


def states(host, graph, prompt, clip):
    """What a CLIP of a prompt makes of the caption, [tokens, width]."""
    prompt["encode"] = graph.node("CLIPTextEncode", text=CAPTION, clip=clip)
    prompt["probe"] = graph.node("ProbeConditioning", conditioning=("encode", 0), file="states.safetensors")
    result = host.run(prompt)
    assert result.status == "success", graph.said(result)
    return load_file(host.base / "output" / "states.safetensors")["text"][0]


def test_what_the_text_encoder_learned_comes_back_to_the_hosts_clip(host, graph):
    save = graph.node("ScionSaveLoRA", lora=("train", 0), name="with-text")
    first = host.run(graph.training(config=STRONG, save=save))
    run = graph.run_of(host, first)
    keys = [name for name in run.tensors if name.startswith("lora_te_text_model_encoder_layers_")]
    layers = load_for_sampling("scion-tiny", None).encoder.text_encoders["te"].config.num_hidden_layers
    assert len(keys) == layers * 6 * 3
    before = len(host.log())
    apply = graph.node("ScionApplyLoRA", model=("base", 1), clip=("base", 2), lora=("train", 0))
    applied = states(host, graph, graph.training(config=STRONG, apply=apply), ("apply", 1))
    loader = graph.node("LoraLoader", model=("base", 1), clip=("base", 2), lora_name="with-text.safetensors")
    loader["inputs"] |= {"strength_model": 1.0, "strength_clip": 1.0}
    loaded = states(host, graph, {"base": graph.training()["base"], "loader": loader}, ("loader", 1))
    bare = states(host, graph, {"base": graph.training()["base"]}, ("base", 2))
    assert not [mark for mark in LEFT_OUT if mark in host.log()[before:]]
    with torch.no_grad():
        expected = load_for_sampling("scion-tiny", str(run.file)).encoder.encode_captions([CAPTION])[0]["text"]
    assert torch.equal(applied, loaded)
    torch.testing.assert_close(applied, expected, rtol=0, atol=1e-5)
    assert (applied - bare).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["dora", "loha", "lokr", "oft"])
def test_what_loras_relatives_learned_comes_back_to_it_too(host, graph, kind):
    config = {**STRONG, "adapter": kind, "seed": 4}
    run = graph.run_of(host, host.run(graph.training(config=config)))
    before = len(host.log())
    apply = graph.node("ScionApplyLoRA", model=("base", 1), clip=("base", 2), lora=("train", 0))
    applied = states(host, graph, graph.training(config=config, apply=apply), ("apply", 1))
    bare = states(host, graph, {"base": graph.training()["base"]}, ("base", 2))
    assert not [mark for mark in LEFT_OUT if mark in host.log()[before:]]
    with torch.no_grad():
        expected = load_for_sampling("scion-tiny", str(run.file)).encoder.encode_captions([CAPTION])[0]["text"]
    torch.testing.assert_close(applied, expected, rtol=0, atol=1e-4)
    assert (applied - bare).abs().max() > 5e-3


def test_the_run_on_the_hosts_weights_is_the_engines_own(host, graph):
    wired = graph.run_of(host, host.run(graph.training(config=STRONG)))
    named = {"model": ("base", 0), "train": {"name": "named"}}
    own = graph.run_of(host, host.run(graph.training(config=STRONG, **named)))
    assert wired.losses == pytest.approx(own.losses, abs=1e-4)
    assert wired.tensors.keys() == own.tensors.keys()


@pytest.mark.parametrize("layer", [-1, -2])
def test_tokens_encoded_in_the_step_mean_what_the_host_encodes(host, graph, layer):
    skip = graph.node("CLIPSetLastLayer", clip=("base", 2), stop_at_clip_layer=layer)
    # Longer than a window, for some of the pictures.
    captions = {"caption_prefix": "wooden " * 40, "caption_suffix": "square " * 40}
    losses = []
    for learns in ("off", "only"):
        asked = {"text_encoder": learns, "learning_rate": 1e-9, "steps": 2, "seed": 3 - layer}
        prompt = graph.training(config=asked, dataset=captions, clip=("skip", 0), skip=skip)
        losses.append(graph.run_of(host, host.run(prompt)).losses)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    weights = graph.node("ProbeWeights", model=("base", 1), clip=("base", 2), vae=("base", 3))
    assert host.run({"base": graph.training()["base"], "weights": weights}).status == "success"


def test_training_leaves_the_hosts_clip_as_it_was(host, graph):
    def digests(**more):
        weights = graph.node("ProbeWeights", model=("base", 1), clip=("base", 2), vae=("base", 3))
        result = host.run({"base": graph.training()["base"], **more, "weights": weights})
        assert result.status == "success", graph.said(result)
        return result.outputs["weights"]["text"]

    before = digests()
    graph.run_of(host, host.run(graph.training(config={**STRONG, "seed": 8, "precision": "bf16"})))
    assert digests() == before


def test_a_clip_with_a_lora_in_it_is_refused_where_it_should_learn(host, graph):
    first = graph.training(config=STRONG)
    apply = graph.node("ScionApplyLoRA", model=("base", 1), clip=("base", 2), lora=("first", 0))
    prompt = graph.training(config=STRONG, clip=("apply", 1), apply=apply, first=first["train"])
    result = host.run(prompt)
    assert result.error["node_id"] == "train"
    assert "of its weights are patched" in graph.said(result)
    assert "a text encoder learns on its own weights alone" in graph.said(result)
