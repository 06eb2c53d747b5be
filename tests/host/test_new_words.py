"""New words in the graph: learned on the host's own CLIP, read by the host from its embeddings folder and from the
graph."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from trainer_core.lora_file.words import read_word
from trainer_core.sampler import load_for_sampling

CAT = {"learning_rate": 0.02, "new_words": "<my-cat>", "words_vectors": 3, "words_learning_rate": 0.1}
ALONE = {**CAT, "words_alone": True}
TRIGGER = {"trigger": "<my-cat>"}
PROMPT = "a red <my-cat>, blue"
LONG = f"{'wooden ' * 73}<my-cat> {'square ' * 90}<my-cat>, blue"


def states(host, graph, prompt, clip, text):
    """What a CLIP of a prompt makes of a text, [tokens, width]."""
    prompt["encode"] = graph.node("CLIPTextEncode", text=text, clip=clip)
    prompt["probe"] = graph.node("ProbeConditioning", conditioning=("encode", 0), file="words.safetensors")
    result = host.run(prompt)
    assert result.status == "success", graph.said(result)
    return load_file(host.base / "output" / "words.safetensors")["text"][0]


def expected(base, run, text):
    lora = run.file if run.state["lora"] else None
    words = [read_word(run.folder / name) for name in run.state["words"]]
    with torch.no_grad():
        model = load_for_sampling(str(base), lora and str(lora), words=words)
        return model.encoder.encode_captions([text])[0]["text"]


@pytest.mark.parametrize("text", [PROMPT, LONG])
@pytest.mark.parametrize("config", [ALONE, {**CAT, "text_encoder": "on"}], ids=["alone", "beside"])
def test_a_prompt_with_a_trained_word_means_what_the_trainer_means(host, graph, config, text):
    def training(**more):
        return graph.training(config=config, dataset=TRIGGER, **more)

    save = graph.node("ScionSaveLoRA", lora=("train", 0), name="with-words", existing="overwrite")
    result = host.run(training(save=save))
    run = graph.run_of(host, result)
    assert bool(run.state["lora"]) is not config.get("words_alone", False) and run.state["words"] == [
        "my-cat.safetensors"
    ]
    assert "embedding:my-cat" in result.outputs["save"]["text"][0]
    assert (host.base / "models" / "embeddings" / "my-cat.safetensors").is_file()
    ours = expected("scion-tiny", run, text)
    apply = graph.node("ScionApplyLoRA", model=("base", 1), clip=("base", 2), lora=("train", 0))
    for written in (text, text.replace("<my-cat>", "embedding:my-cat")):
        theirs = states(host, graph, training(apply=apply), ("apply", 1), written)
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
    saved = states(host, graph, {"base": training()["base"]}, ("base", 2), text.replace("<my-cat>", "embedding:my-cat"))
    if config is ALONE:
        torch.testing.assert_close(saved, ours, rtol=0, atol=1e-4)
    bare = states(host, graph, {"base": training()["base"]}, ("base", 2), text.replace("<my-cat>", "ring ring ring"))
    assert (bare - ours).abs().max() > 1e-2


def test_the_run_on_the_hosts_weights_is_the_engines_own_and_leaves_them_as_they_were(host, graph):
    def digests():
        weights = graph.node("ProbeWeights", model=("base", 1), clip=("base", 2), vae=("base", 3))
        result = host.run({"base": graph.training()["base"], "weights": weights})
        return result.outputs["weights"]["text"]

    before = digests()
    long = {**TRIGGER, "caption_prefix": "wooden " * 40, "caption_suffix": "square " * 40}
    wired = graph.run_of(host, host.run(graph.training(config=ALONE, dataset=long)))
    named = {"model": ("base", 0), "train": {"name": "named"}}
    own = graph.run_of(host, host.run(graph.training(config=ALONE, dataset=long, **named)))
    assert digests() == before
    assert wired.losses == pytest.approx(own.losses, abs=1e-4)
    first, second = (load_file(run.folder / "my-cat.safetensors")["emb_params"] for run in (wired, own))
    assert first.shape == second.shape == (3, 128)


def test_words_alone_pass_through_every_node_that_takes_a_lora(host, graph):
    prompt = graph.training(config=ALONE, dataset=TRIGGER)
    prompt |= graph.sampling("applied", lora=("train", 0), text=PROMPT)
    core = graph.node("LoraModelLoader", model=("base", 1), lora=("train", 0), strength_model=1.0, bypass=False)
    prompt |= {"core": core} | graph.sampling("core drawn", model=("core", 0), text="a red ring")
    prompt |= graph.sampling("bare", text="a red ring")
    draw = graph.node("ScionSampleTrainingModel", model=("base", 0), lora=("train", 0), prompts=PROMPT, steps=1)
    prompt |= {"draw": draw, "show": graph.node("PreviewImage", images=("draw", 0))}
    result = host.run(prompt)
    assert result.status == "success", graph.said(result)
    assert (graph.drawn(host, result, "core drawn") == graph.drawn(host, result, "bare")).all()
    assert (graph.drawn(host, result, "applied") != graph.drawn(host, result, "bare")).any()


def test_a_clip_with_words_in_it_is_refused_where_words_should_learn(host, graph):
    first = graph.training(config=ALONE, dataset=TRIGGER)
    apply = graph.node("ScionApplyLoRA", model=("base", 1), clip=("base", 2), lora=("first", 0))
    prompt = graph.training(config=ALONE, dataset=TRIGGER, clip=("apply", 1), apply=apply, first=first["train"])
    prompt["train"]["inputs"]["name"] = "again"
    result = host.run(prompt)
    assert result.error["node_id"] == "train"
    assert "has new words in it (<my-cat>)" in graph.said(result)


def test_both_text_encoders_of_sdxl_learn_a_word(make_host, graph, sdxl_folder, tmp_path):
    own = make_host(tmp_path / "sized")
    shutil.copytree(sdxl_folder, own.base / "input" / "sdxl")
    try:
        own.start()
        links = {"model": ("base", 0), "clip": ("base", 1), "vae": ("base", 2)}
        sizes = {"preview_width": 64, "preview_height": 64}
        prompt = graph.training(config={**ALONE, **sizes}, dataset=TRIGGER, **links)
        prompt["base"] = graph.node("ProbeSDXL", folder="sdxl")
        run = graph.run_of(own, own.run(prompt))
        assert load_file(run.folder / "my-cat.safetensors").keys() == {"clip_l", "clip_g"}
        prompt["apply"] = graph.node("ScionApplyLoRA", model=("base", 0), clip=("base", 1), lora=("train", 0))
        theirs = states(own, graph, prompt, ("apply", 1), PROMPT)
        bare = states(own, graph, prompt, ("base", 1), PROMPT)
        assert (theirs - bare).abs().max() > 1e-2
        torch.testing.assert_close(theirs, expected(sdxl_folder, run, PROMPT), rtol=0, atol=1e-4)
    finally:
        own.stop()
