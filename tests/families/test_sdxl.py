"""Stable Diffusion XL from a folder: the same model as diffusers' own pipeline makes of it."""

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from trainer_core.data.config import DatasetConfig
from trainer_core.data.dataset import Dataset
from trainer_core.data.scan import scan_folder
from trainer_core.engine import objective, sampling
from trainer_core.engine.objective_config import ObjectiveConfig
from trainer_core.engine.preview_config import PreviewConfig
from trainer_core.families import registry


@pytest.fixture(scope="module")
def pipe(sdxl_base):
    pipe = StableDiffusionXLPipeline.from_pretrained(sdxl_base, local_files_only=True, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def sdxl(sdxl_base):
    """Loaded once: nothing here changes it."""
    return registry.load(str(sdxl_base))


def told_by(pipe, *captions):
    with torch.no_grad():
        pairs = [pipe.encode_prompt(text, do_classifier_free_guidance=False) for text in captions]
    return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[2] for pair in pairs])


def test_a_folder_predicts_what_diffusers_predicts_from_it(sdxl, pipe, predict, prompt):
    words, pooled = told_by(pipe, prompt, "cross")
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    sizes = [((96, 64), (0, 8), (64, 64)), ((1023, 771), (3, 0), (64, 64))]
    ids = [pipe._get_add_time_ids(*size, words.dtype, text_encoder_projection_dim=48) for size in sizes]
    added = {"text_embeds": pooled, "time_ids": torch.cat(ids)}
    with torch.no_grad():
        expected = pipe.unet(noisy, torch.tensor([10, 900]), words, added_cond_kwargs=added).sample
    assert sdxl.family.name == "sdxl"
    torch.testing.assert_close(predict(sdxl), expected, rtol=0, atol=1e-5)
    assert sdxl.resolution == 1024 and sdxl.encoder.pixel_step == 8


def test_captions_are_encoded_as_diffusers_pipeline_encodes_them(sdxl, pipe, prompt):
    captions = ["a", prompt, "Ünïcode, 一只狗! 42", " ".join(["ring"] * 75)]
    for caption, entry in zip(captions, sdxl.encoder.encode_captions(captions), strict=True):
        words, pooled = told_by(pipe, caption)
        torch.testing.assert_close(entry["text"], words[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(entry["pooled"], pooled[0], rtol=0, atol=1e-5)


def test_the_two_text_encoders_are_given_their_own_padding(sdxl):
    first, second = (sdxl.encoder.texts[name] for name in ("te1", "te2"))
    one, other = first.windows("a ring")[0], second.windows("a ring")[0]
    end = one.index(first.tokenizer.eos_token_id)
    assert 1 < end < 20 and one[: end + 1] == other[: end + 1]
    assert set(one[end:]) == {first.tokenizer.eos_token_id} and set(other[end + 1 :]) == {0}


def test_the_empty_caption_is_encoded_and_not_zeros(sdxl, pipe):
    (empty,) = sdxl.encoder.encode_captions([""])
    words, pooled = told_by(pipe, "")
    torch.testing.assert_close(empty["text"], words[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(empty["pooled"], pooled[0], rtol=0, atol=1e-5)


def test_a_long_caption_becomes_windows_and_is_pooled_by_the_first(sdxl, pipe):
    words = ["red", "ring"] * 50
    long, short = sdxl.encoder.encode_captions([" ".join(words), "cross"])
    assert long["text"].shape == (2 * 77, 96)
    states, pooled = told_by(pipe, " ".join(words[:75]), " ".join(words[75:]))
    torch.testing.assert_close(long["text"], states.flatten(0, 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(long["pooled"], pooled[0], rtol=0, atol=1e-5)
    both = sdxl.encoder.stack([long, short])
    (empty,) = sdxl.encoder.encode_captions([""])
    assert torch.equal(both["text"][1], torch.cat([short["text"], empty["text"]]))
    assert torch.equal(both["pooled"], torch.stack([long["pooled"], short["pooled"]]))


def test_noise_target_and_loss_are_those_of_diffusers_scheduler(sdxl, pipe, prompt):
    """As diffusers' train_text_to_image_lora_sdxl.py has them, on the same latents, noise and timesteps."""
    from diffusers import DDPMScheduler

    numbers = torch.Generator().manual_seed(4)
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=numbers)
    timesteps = torch.tensor([10, 900])
    told = sdxl.encoder.stack(sdxl.encoder.encode_captions([prompt, "cross"]))
    told["time_ids"] = torch.tensor([[96, 64, 0, 8, 64, 64]] * 2)
    drawn = objective.Draw(noise, timesteps)
    with torch.no_grad():
        ours = objective.losses(ObjectiveConfig(), sdxl, sdxl.denoiser, latents, told, drawn)
        reference = DDPMScheduler.from_config(pipe.scheduler.config)
        added = {"text_embeds": told["pooled"], "time_ids": told["time_ids"].float()}
        noisy = reference.add_noise(latents, noise, timesteps)
        predicted = pipe.unet(noisy, timesteps, told["text"], added_cond_kwargs=added).sample
    torch.testing.assert_close(ours, (predicted - noise).square().mean((1, 2, 3)), rtol=1e-6, atol=1e-6)


def test_batches_tell_the_size_and_crop_of_each_picture(sdxl, pictures):
    config = DatasetConfig(path=str(pictures), flip=True, crop="random", variants=3, holdout=1, width=64, height=64)
    scan = scan_folder(config)
    dataset = Dataset(scan.items, config, 5, 8, 64, sized=True)
    assert dataset.encode(sdxl.encoder)
    sizes = {item.key: (item.height, item.width) for item in scan.items}
    order, crops = dataset.order(2), set()
    for number in range(12):
        batch = dataset.load(order.batch(number))
        ids = batch.conditioning["time_ids"]
        assert ids.dtype == torch.int64 and ids.shape == (len(batch.keys), 6)
        for row, key, view in zip(ids.tolist(), batch.keys, batch.views, strict=True):
            mirrored = view.resized_width - view.left - view.width
            assert tuple(row[:2]) == sizes[key]
            assert row[2:4] == [view.top, mirrored if view.flip else view.left]
            assert row[4:] == [view.height, view.width] == [8 * side for side in batch.latents.shape[-2:]]
            crops.add(tuple(row[2:4]))
    assert len(crops) > 2
    (held,) = dataset.holdout_batches(2)
    assert held.conditioning["time_ids"].shape == (1, 6)


def test_a_dataset_for_a_base_that_is_not_sized_tells_nothing_of_sizes(sdxl, pictures):
    config = DatasetConfig(path=str(pictures), resolution=64)
    dataset = Dataset(scan_folder(config).items, config, 5, 8, 64)
    assert dataset.encode(sdxl.encoder)
    assert sorted(dataset.load(dataset.order(2).batch(0)).conditioning) == ["pooled", "text"]


def test_pictures_are_drawn_as_diffusers_pipeline_draws_them(sdxl, pipe, prompt):
    config = PreviewConfig(steps=3, guidance=4.0, sampler="euler", negative="blurry", seed=5)
    ours = sampling.draw(sdxl, [prompt], config, 64, 96)
    noise = torch.randn(1, 4, 12, 8, generator=torch.Generator().manual_seed(5))
    theirs = pipe(
        prompt,
        negative_prompt="blurry",
        num_inference_steps=3,
        guidance_scale=4.0,
        latents=noise,
        width=64,
        height=96,
        output_type="pt",
    ).images
    torch.testing.assert_close(ours, theirs.permute(0, 2, 3, 1), rtol=0, atol=1e-4)
