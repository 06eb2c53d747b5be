"""HunyuanDiT from a folder or one file: what diffusers' pipeline computes, and the original's positions everywhere."""

import copy
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, HunyuanDiTPipeline
from safetensors.torch import save_file

from trainer_core.engine import objective, sampling
from trainer_core.engine.objective_config import ObjectiveConfig
from trainer_core.engine.preview_config import PreviewConfig
from trainer_core.errors import BadInput
from trainer_core.families import bert_text, registry, t5_text
from trainer_core.families.diffusion import Diffusion
from trainer_core.families.hunyuan_rotary import rotary

CHINESE = "一只红色的猫在蓝色的背景上"
SIZE = {"width": 64, "height": 64, "use_resolution_binning": False, "original_size": (64, 64)}


@pytest.fixture(scope="module", params=["1.2", "1.1"])
def folder(request, hunyuan_base, older_hunyuan_base):
    return {"1.2": hunyuan_base, "1.1": older_hunyuan_base}[request.param]


@pytest.fixture(scope="module")
def pipe(folder):
    pipe = HunyuanDiTPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def hunyuan(folder):
    """Loaded once: nothing here changes it."""
    return registry.load(str(folder))


def told_of(model, *captions, **sizes):
    told = model.encoder.stack(model.encoder.encode_captions(list(captions)))
    given = sizes.get("time_ids", [[64, 64, 0, 0, 64, 64]] * len(captions))
    return told | {"time_ids": torch.tensor(given)}


def test_it_predicts_what_the_pipeline_s_denoiser_predicts(hunyuan, pipe):
    calls = []
    hook = pipe.transformer.register_forward_hook(
        lambda module, args, given, answer: calls.append((args, given, answer[0])), with_kwargs=True
    )
    pipe(CHINESE, negative_prompt="", num_inference_steps=2, output_type="latent", **SIZE)
    hook.remove()
    told = told_of(hunyuan, "", CHINESE)
    for (noisy, times), _, answer in calls:
        with torch.no_grad():
            ours = hunyuan.family.predict(hunyuan.denoiser, noisy, times, told)
        assert ours.shape == (2, 4, 8, 8) and answer.shape == (2, 8, 8, 8)
        torch.testing.assert_close(ours, answer[:, :4], rtol=0, atol=1e-5)
        assert (ours[0] - ours[1]).abs().max() > 0.01


def test_captions_are_encoded_as_the_pipeline_encodes_them(hunyuan, pipe):
    captions = ["", CHINESE, "a small red ring", " ".join(["ring"] * 300)]
    for caption, entry in zip(captions, hunyuan.encoder.encode_captions(captions), strict=True):
        for index, name, length, width in ((0, "text", 77, 24), (1, "text_t5", 256, 16)):
            with torch.no_grad():
                states, _, mask, _ = pipe.encode_prompt(
                    caption, torch.device("cpu"), torch.float32, text_encoder_index=index
                )
            assert entry[name].shape == (length, width) and entry[f"{name}_mask"].shape == (length,)
            torch.testing.assert_close(entry[name], states[0], rtol=0, atol=1e-5)
            torch.testing.assert_close(entry[f"{name}_mask"], mask[0].float(), rtol=0, atol=0)


def test_padding_does_not_reach_the_transformer(hunyuan):
    told = told_of(hunyuan, CHINESE)
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def predicted(told):
        with torch.no_grad():
            return hunyuan.family.predict(hunyuan.denoiser, noisy, torch.tensor([500]), told)

    other = dict(told)
    other["text"] = torch.where(told["text_mask"][..., None] > 0, told["text"], 7.0)
    torch.testing.assert_close(predicted(other), predicted(told), rtol=0, atol=0)
    other["text"] = torch.where(told["text_mask"][..., None] > 0, 7.0, told["text"])
    assert (predicted(other) - predicted(told)).abs().max() > 0.01


def test_version_1_1_is_told_sizes_in_the_pipeline_s_order_and_1_2_is_not(hunyuan):
    """(height, width) of the file, of the cut, and only then where it was cut."""
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    told = told_of(hunyuan, CHINESE, time_ids=[[1024, 700, 3, 8, 64, 96]])
    heard = []
    hook = hunyuan.denoiser.register_forward_pre_hook(
        lambda module, args, given: heard.append(given["image_meta_size"]), with_kwargs=True
    )
    with torch.no_grad():
        ours = hunyuan.family.predict(hunyuan.denoiser, noisy, torch.tensor([500]), told)
        hook.remove()
        other = told | {"time_ids": torch.tensor([[512, 700, 3, 8, 64, 96]])}
        otherwise = hunyuan.family.predict(hunyuan.denoiser, noisy, torch.tensor([500]), other)
    assert heard[0].tolist() == [[1024, 700, 64, 96, 3, 8]]
    sized = hunyuan.denoiser.config.use_style_cond_and_image_meta_size
    assert torch.equal(ours, otherwise) != sized


def test_noise_target_and_loss_are_diffusers(hunyuan, folder):
    reference = DDPMScheduler.from_pretrained(folder / "scheduler")
    end = 0.03 if hunyuan.denoiser.config.use_style_cond_and_image_meta_size else 0.018
    assert hunyuan.process.prediction_type == "v_prediction" and hunyuan.process.identity["beta_end"] == end
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    at, told = torch.tensor([300, 900]), told_of(hunyuan, CHINESE, "cross")
    noisy = reference.add_noise(latents, noise, at)
    torch.testing.assert_close(hunyuan.process.add_noise(latents, noise, at), noisy, rtol=0, atol=1e-6)
    target = reference.get_velocity(latents, noise, at)
    torch.testing.assert_close(hunyuan.process.target(latents, noise, at), target, rtol=0, atol=1e-6)
    with torch.no_grad():
        answer = hunyuan.family.predict(hunyuan.denoiser, noisy, at, told)
        loss = objective.losses(ObjectiveConfig(), hunyuan, hunyuan.denoiser, latents, told, objective.Draw(noise, at))
    expected = torch.nn.functional.mse_loss(answer, target, reduction="none").mean((1, 2, 3))
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)


def test_the_noise_levels_of_either_version_are_called_as_its_folder_calls_them(hunyuan):
    """As a host's sampling object tells them."""
    alphas = hunyuan.process.scheduler.alphas_cumprod
    told = Diffusion.from_sigmas(((1 - alphas) / alphas).sqrt(), "v_prediction", *hunyuan.family.schedules)
    assert told.identity == hunyuan.process.identity and told.identity["trained_betas"] is None


def test_pictures_are_drawn_as_the_pipeline_draws_them(hunyuan, pipe):
    config = PreviewConfig(steps=3, guidance=4.0, sampler="ddpm", negative="blue", seed=5)
    ours = sampling.draw(hunyuan, [CHINESE], config, 64, 64)
    generator = torch.Generator().manual_seed(5)
    given = {"num_inference_steps": 3, "guidance_scale": 4.0, "generator": generator, **SIZE}
    theirs = pipe(CHINESE, negative_prompt="blue", output_type="pt", **given).images
    torch.testing.assert_close(ours, theirs.permute(0, 2, 3, 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 80), (80, 48), (33, 64), (7, 2)])
def test_tokens_stand_where_the_original_puts_them(height, width):
    """HunyuanDiT's own code: numpy's linspace without its end, over the region that the picture fills of 32 by 32."""
    scale = 32 / max(height, width)
    tall, wide = (round(side * scale) for side in (height, width))
    top, left = round((32 - tall) / 2.0), round((32 - wide) / 2.0)
    rows = np.linspace(top, top + tall, height, endpoint=False, dtype=np.float32)
    columns = np.linspace(left, left + wide, width, endpoint=False, dtype=np.float32)
    frequencies = 1.0 / 10000 ** (np.arange(0, 8, 2) / 8)
    across, down = (np.repeat(np.outer(side, frequencies), 2, axis=1) for side in (columns, rows))
    angles = np.concatenate([np.tile(across, (height, 1)), np.repeat(down, width, axis=0)], axis=1)
    cosine, sine = rotary(16, height, width, torch.device("cpu"))
    torch.testing.assert_close(cosine, torch.tensor(np.cos(angles), dtype=torch.float32), rtol=0, atol=1e-5)
    torch.testing.assert_close(sine, torch.tensor(np.sin(angles), dtype=torch.float32), rtol=0, atol=1e-5)


def test_gradient_checkpointing_gives_the_same_gradients_by_computing_blocks_again(hunyuan):
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    told, calls = told_of(hunyuan, CHINESE), []
    denoiser = copy.deepcopy(hunyuan.denoiser)
    weight = denoiser.blocks[0].attn1.to_q.weight.requires_grad_()
    denoiser.blocks[1].attn2.register_forward_hook(lambda *_: calls.append(1))

    def gradient():
        calls.clear()
        (found,) = torch.autograd.grad(
            hunyuan.family.predict(denoiser, noisy, torch.tensor([500]), told).square().mean(), weight
        )
        return found, len(calls)

    plain, once = gradient()
    denoiser.enable_gradient_checkpointing()
    again, twice = gradient()
    assert (once, twice) == (1, 2)
    torch.testing.assert_close(again, plain, rtol=0, atol=0)
    denoiser.disable_gradient_checkpointing()
    assert gradient()[1] == 1


def test_half_precision_hears_the_time_in_full(folder, hunyuan):
    """bf16 has no 901: rounded, 900 and 901 would be one time."""
    half = registry.load(str(folder), torch.bfloat16)
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    told = told_of(hunyuan, CHINESE)
    rounded = {k: v.bfloat16() if v.is_floating_point() else v for k, v in told.items()}
    heard = []
    half.denoiser.time_extra_emb.time_proj.register_forward_pre_hook(lambda module, args: heard.append(args[0]))
    with torch.no_grad():
        exact = hunyuan.family.predict(hunyuan.denoiser, noisy, torch.tensor([901]), told)
        near = half.family.predict(half.denoiser, noisy.bfloat16(), torch.tensor([901]), rounded)
    assert heard[0].tolist() == [901.0] and near.dtype == torch.bfloat16
    assert (near.float() - exact).abs().max() < 0.05 * exact.abs().max()


# ---- one file


@pytest.fixture
def one_file(folder, in_one_hunyuan_file, tmp_path):
    """The same base as ComfyUI has it, and the vocabulary beside it."""
    path = tmp_path / "hunyuan.safetensors"
    save_file(in_one_hunyuan_file(folder), path)
    shutil.copy(folder / "vocab.txt", tmp_path)
    return path


def test_one_file_is_the_folder_s_base(hunyuan, one_file, monkeypatch):
    monkeypatch.setattr("trainer_core.families.hunyuan_file.HEAD", 12)  # the released one's are wider than this BERT
    read = registry.load(str(one_file))
    noisy = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = (
            one.family.predict(one.denoiser, noisy, torch.tensor([500]), told_of(one, CHINESE))
            for one in (read, hunyuan)
        )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    latents = [one.encoder.encode_pictures(picture) for one in (read, hunyuan)]
    torch.testing.assert_close(*latents, rtol=0, atol=1e-5)
    assert read.process.identity == hunyuan.process.identity
    assert read.resolution == 1024  # the file does not tell that these are small


def test_a_file_without_its_vocabulary_is_refused_with_the_way_out(one_file):
    one_file.with_name("vocab.txt").unlink()
    with pytest.raises(BadInput, match=r"brings no vocabulary for BERT.*put HunyuanDiT's tokenizer/vocab.txt there"):
        registry.load(str(one_file))


def test_a_file_of_the_transformer_alone_is_named(hunyuan_base, in_one_hunyuan_file, tmp_path):
    weights = {
        key.removeprefix("model."): tensor
        for key, tensor in in_one_hunyuan_file(hunyuan_base).items()
        if key.startswith("model.")
    }
    save_file(weights, tmp_path / "bare.safetensors")
    with pytest.raises(BadInput, match=r"lacks the transformer \(model.…\), BERT \(.*, mT5's tokenizer"):
        registry.load(str(tmp_path / "bare.safetensors"))


def test_what_its_folder_lacks_is_named(hunyuan_base, tmp_path):
    copied = tmp_path / "copy"
    shutil.copytree(hunyuan_base, copied)
    shutil.rmtree(copied / "tokenizer_2")
    (copied / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(BadInput, match="lacks tokenizer/vocab.txt or tokenizer.json, tokenizer_2; a HunyuanDiT folder"):
        registry.load(str(copied))


# ---- captions


def test_a_caption_that_is_cut_is_said_for_each_text_encoder(hunyuan, caplog):
    hunyuan.encoder.encode_captions(["a ring"])
    assert not caplog.records
    hunyuan.encoder.encode_captions([" ".join(["ring"] * 300)])
    first, second = (record.getMessage() for record in caplog.records)
    assert "the first text encoder of HunyuanDiT reads 77" in first
    assert "HunyuanDiT reads the first 256, the rest does not train" in second


def test_its_text_encoders_do_not_learn(train, hunyuan_base):
    with pytest.raises(BadInput, match="text encoders of HunyuanDiT do not learn here; set it to off"):
        train({"base": str(hunyuan_base), "dataset.resolution": 64, "adapter.text_encoder": "on"})


def test_the_released_vocabularies_read_chinese():
    folder = Path(os.environ.get("SCION_TOKENIZERS", "")) / "hunyuan_dit"
    if not (folder / "tokenizer" / "vocab.txt").is_file():
        pytest.skip("SCION_TOKENIZERS names no folder of released tokenizers (see .ci/run)")
    words = bert_text.read_tokenizer(folder / "tokenizer")
    assert len(words) == 47020
    # Ids as ComfyUI's HyditBertTokenizer and MT5XLTokenizer give them.
    assert words("一只红色的猫 a cat").input_ids == [101, 671, 1372, 5273, 5682, 4638, 4344, 143, 10165, 102]
    ids = t5_text.read_words(folder / "tokenizer_t5").ids("一只红色的猫 a cat")
    assert ids == [259, 179906, 116778, 493, 21018, 259, 262, 10292, 1]
