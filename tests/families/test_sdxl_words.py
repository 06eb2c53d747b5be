"""New words of Stable Diffusion XL: both text encoders learn them, and diffusers makes of their file what we do."""

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file

from trainer_core.errors import BadInput
from trainer_core.families import registry
from trainer_core.lora_file.inspect import inspect_file
from trainer_core.lora_file.words import read_word
from trainer_core.sampler import load_for_sampling

PROMPT = "a red <my-cat> on blue"


@pytest.fixture
def settings(sdxl_base):
    size = {"preview.width": 64, "preview.height": 64, "preview.steps": 1, "dataset.resolution": 64}
    words = {"words.names": ["<my-cat>"], "words.vectors": 2, "words.learning_rate": 5e-2, "words.alone": True}
    return {"base": str(sdxl_base), "run.steps": 4, "dataset.trigger": "<my-cat>", **size, **words}


def test_a_stopped_run_ends_in_the_bits_of_one_that_was_not(train, settings):
    asked = {**settings, "dataset.shuffle_tags": True, "run.gradient_checkpointing": True}
    whole, _ = train(asked, "whole")
    train(asked, "resumed", stop_after=2)
    resumed, _ = train(asked, "resumed")
    first, second = load_file(whole.made.words[0]), load_file(resumed.made.words[0])
    assert {key: tuple(rows.shape) for key, rows in first.items()} == {"clip_l": (2, 32), "clip_g": (2, 64)}
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert inspect_file(whole.made.words[0]).family == "Stable Diffusion XL"


@torch.no_grad()
def encoded(pipe, prompt):
    text, _, pooled, _ = pipe.encode_prompt(
        prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=0
    )
    return {"text": text[0], "pooled": pooled[0]}


def test_diffusers_pipeline_makes_of_the_file_what_was_trained(train, sdxl_base, settings):
    result, _ = train(settings)
    word = read_word(result.made.words[0])
    ours = load_for_sampling(str(sdxl_base), None, words=[word]).encoder.encode_captions([PROMPT])[0]
    pipe = StableDiffusionXLPipeline.from_pretrained(sdxl_base, local_files_only=True, add_watermarker=False)
    tensors = load_file(result.made.words[0])
    for key, part in (("clip_l", ""), ("clip_g", "_2")):
        where = {"tokenizer": getattr(pipe, f"tokenizer{part}"), "text_encoder": getattr(pipe, f"text_encoder{part}")}
        pipe.load_textual_inversion(tensors[key], token="<my-cat>", **where)
    bare = registry.load(str(sdxl_base)).encoder.encode_captions([PROMPT])[0]
    for name, state in encoded(pipe, PROMPT).items():
        torch.testing.assert_close(state, ours[name], rtol=0, atol=1e-4)
        assert (state - bare[name]).abs().max() > 1e-2


def test_the_pooled_state_is_the_end_token_s_whatever_old_configurations_call_it(sdxl_base, train, settings):
    result, _ = train({**settings, "run.steps": 1})
    model = load_for_sampling(str(sdxl_base), None, words=[read_word(result.made.words[0])])
    told = model.encoder.encode_captions([PROMPT])[0]["pooled"]
    # In SDXL's own configuration it is 2, upon which transformers takes the highest id of the caption.
    second = model.encoder.text_encoders["te2"]
    getattr(second, "text_model", second).eos_token_id = 2
    assert torch.equal(model.encoder.encode_captions([PROMPT])[0]["pooled"], told)


def test_a_word_of_another_model_is_refused(train, settings, base, sdxl_base):
    result, _ = train({**settings, "run.steps": 1})
    with pytest.raises(BadInput, match=r"its vectors are 32 wide \(te1\) and 64 wide \(te2\), the embeddings of"):
        load_for_sampling(str(base), None, words=[read_word(result.made.words[0])])


def test_kolors_says_that_it_cannot_learn_words(train, kolors_base):
    asked = {"base": str(kolors_base), "dataset.resolution": 64, "words.names": ["<my-cat>"]}
    with pytest.raises(BadInput, match="words.names: <my-cat>, but the text encoders of Kolors do not learn here"):
        train({**asked, "dataset.trigger": "<my-cat>", "preview.width": 64, "preview.height": 64})
