"""Kolors from its folder: the same model as diffusers' own pipeline makes of it; Chinese captions."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import KolorsPipeline

from trainer_core.engine import objective, sampling
from trainer_core.engine.objective_config import ObjectiveConfig
from trainer_core.engine.preview_config import PreviewConfig
from trainer_core.errors import BadInput
from trainer_core.families import registry

CHINESE = "一只红色的猫在蓝色的背景上"


@pytest.fixture(scope="module")
def pipe(kolors_base):
    pipe = KolorsPipeline.from_pretrained(kolors_base, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def kolors(kolors_base):
    """Loaded once: nothing here changes it."""
    return registry.load(str(kolors_base))


def told_by(pipe, *captions):
    with torch.no_grad():
        pairs = [pipe.encode_prompt(text, do_classifier_free_guidance=False) for text in captions]
    return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[2] for pair in pairs])


def test_a_folder_predicts_what_diffusers_predicts_from_it(kolors, pipe, predict):
    words, pooled = told_by(pipe, CHINESE, "cross")
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    ids = torch.tensor([[96, 64, 0, 8, 64, 64], [1023, 771, 3, 0, 64, 64]], dtype=words.dtype)
    added = {"text_embeds": pooled, "time_ids": ids}
    with torch.no_grad():
        expected = pipe.unet(noisy, torch.tensor([10, 900]), words, added_cond_kwargs=added).sample
    assert kolors.family.name == "kolors" and kolors.process.steps == 1100
    torch.testing.assert_close(predict(kolors, CHINESE), expected, rtol=0, atol=1e-5)


def test_captions_are_encoded_as_diffusers_pipeline_encodes_them(kolors, pipe):
    captions = ["", CHINESE, "a small red ring", " ".join(["ring"] * 300)]
    for caption, entry in zip(captions, kolors.encoder.encode_captions(captions), strict=True):
        words, pooled = told_by(pipe, caption)
        assert entry["text"].shape == (256, 32) and entry["text"].isfinite().all()
        torch.testing.assert_close(entry["text"], words[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(entry["pooled"], pooled[0], rtol=0, atol=1e-5)
    one, other = (kolors.encoder.encode_captions([text])[0]["pooled"] for text in (CHINESE, CHINESE[:-2]))
    assert (one - other).abs().max() > 0.01


def test_a_caption_that_is_cut_is_said(kolors, caplog):
    kolors.encoder.encode_captions(["a ring"])
    assert not caplog.records
    kolors.encoder.encode_captions([" ".join(["ring"] * 300)])
    (record,) = caplog.records
    assert "Kolors reads the first 256, the rest does not train" in record.getMessage()


def test_all_of_its_timesteps_are_drawn(kolors):
    latents, names = torch.zeros(4000, 1, 1, 1), [(number,) for number in range(4000)]
    drawn = objective.draw(ObjectiveConfig(), latents, kolors.process.steps, 0, "training", names).timesteps
    assert drawn.min() < 5 and 1095 < drawn.max() < 1100
    half = objective.draw(ObjectiveConfig(timestep_min=500), latents, 1100, 0, "training", names).timesteps
    assert 550 <= half.min() < 555


def test_pictures_are_drawn_as_diffusers_pipeline_draws_them(kolors, pipe):
    config = PreviewConfig(steps=3, guidance=4.0, sampler="euler", negative="blue", seed=5)
    ours = sampling.draw(kolors, [CHINESE], config, 64, 96)
    noise = torch.randn(1, 4, 12, 8, generator=torch.Generator().manual_seed(5))
    given = {"num_inference_steps": 3, "guidance_scale": 4.0, "latents": noise, "width": 64, "height": 96}
    theirs = pipe(CHINESE, negative_prompt="blue", output_type="pt", **given).images
    torch.testing.assert_close(ours, theirs.permute(0, 2, 3, 1), rtol=0, atol=1e-4)


def test_weights_in_other_names_are_refused_by_its_title():
    with pytest.raises(BadInput, match="model.x: Kolors is trained from its diffusers folder"):
        registry.FAMILIES["kolors"].from_original({}, None, None, None, "model.x")


def test_what_its_folder_lacks_is_named(kolors_base, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(kolors_base, folder)
    (folder / "tokenizer" / "tokenizer.model").unlink()
    with pytest.raises(BadInput, match="lacks tokenizer/tokenizer.model; a Kolors folder has them all"):
        registry.load(str(folder))


def test_the_released_vocabulary_reads_chinese_from_its_two_first_tokens_on():
    folder = Path(os.environ.get("SCION_TOKENIZERS", "")) / "kolors" / "tokenizer"
    if not (folder / "tokenizer.model").is_file():
        pytest.skip("SCION_TOKENIZERS names no folder of released tokenizers (see .ci/run)")
    from trainer_core.families.chatglm_vae import read_tokenizer

    told = read_tokenizer(folder)("一只红色的猫 a cat", padding="max_length", max_length=12)
    # Ids as ChatGLM3's own tokenizer gives them: padding in front, [gMASK], sop, then the words.
    assert told.input_ids == [0, 0, 0, 0, 64790, 64792, 34346, 54768, 42290, 56267, 260, 4577]
    assert told.position_ids == [0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7]
