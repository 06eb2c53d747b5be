"""The built-in base draws what captions say, by a judge that is itself right; its sizes suit ComfyUI's classes."""

import json
import random

import numpy as np
import pytest
import torch

from trainer_core.assets import SCION_TINY
from trainer_core.assets.build import evaluate
from trainer_core.assets.judge import judge
from trainer_core.assets.scenes import COLOURS, NEW_SHAPES, RADIUS, SHAPES, Scene, random_scene, render
from trainer_core.families.registry import load

pytestmark = pytest.mark.usefixtures("every_core")


@pytest.fixture(scope="module")
def base():
    return load("scion-tiny")


def test_the_judge_is_right_on_at_least_99_percent_of_rendered_pictures():
    rng = random.Random(11)
    scenes = [random_scene(rng, (*SHAPES, *NEW_SHAPES)) for _ in range(1000)]
    assert sum(judge(render(scene)).agrees(scene) for scene in scenes) >= 990


def test_the_judge_tells_shapes_colours_and_emptiness_apart():
    scene = Scene("ring", "red", "blue", "small", 5, -5)
    assert judge(render(scene)).size == "small"
    for other in (Scene("circle", "red", "blue", "small"), Scene("ring", "cyan", "blue", "small")):
        assert not judge(render(other)).agrees(scene)
    assert judge(np.full((96, 96, 3), 128, np.uint8)).shape is None
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    assert judge(noise).shape is None


def test_at_least_90_percent_of_200_captions_come_out_right(base):
    scenes = evaluate.test_scenes(200, seed=2026)
    right = sum(v.agrees(s) for v, s in zip(evaluate.verdicts(base, scenes), scenes, strict=True))
    assert right >= 180


def test_the_little_world_has_six_shapes_eight_colours_and_two_sizes():
    assert len(SHAPES) >= 6
    assert len(COLOURS) == 8
    assert len(RADIUS) == 2
    assert not set(SHAPES) & set(NEW_SHAPES)


def test_the_folder_is_small_and_in_diffusers_format():
    files = [path for path in SCION_TINY.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    index = json.loads((SCION_TINY / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".ckpt")]


def test_its_sizes_suit_comfyuis_sd15_classes(base):
    unet, vae = base.denoiser.config, base.encoder.vae.config
    text = base.encoder.text_encoders["te"].config
    assert unet.norm_num_groups == vae.norm_num_groups == 32
    assert unet.attention_head_dim == 8  # which diffusers reads as the number of heads
    assert not unet.use_linear_projection
    assert all(width % 32 == 0 for width in (*unet.block_out_channels, *vae.block_out_channels))
    assert (vae.latent_channels, base.encoder.pixel_step, vae.scaling_factor) == (4, 8, 0.18215)
    assert (text.max_position_embeddings, text.hidden_act) == (77, "quick_gelu")
    assert unet.cross_attention_dim == text.hidden_size
    assert base.process.prediction_type == "epsilon"


def test_its_latents_are_scaled_as_the_noise_schedule_expects(base):
    rng = random.Random(3)
    pixels = torch.stack([torch.from_numpy(render(random_scene(rng))) / 255 for _ in range(48)])
    latents = base.encoder.encode_pictures(pixels)
    assert latents.shape == (48, 4, 12, 12)
    assert latents.mean().abs() < 0.2
    assert 0.8 < latents.std() < 1.2
    assert (base.encoder.decode(latents) - pixels).square().mean() < 0.002


def test_any_text_has_tokens_and_words_of_the_world_have_one_each(base):
    tokenizer = base.encoder.texts["te"].tokenizer
    words = "a small red ring on a blue background"
    assert len(tokenizer(words).input_ids) == 2 + len(words.split())
    for text in ("zorb", "Größe", "一只狗", "🙂", ""):
        ids = tokenizer(text).input_ids
        assert tokenizer.unk_token_id not in ids[1:-1]
        assert max(ids) < len(tokenizer)
