"""Stable Diffusion 1 from a folder: the same model as diffusers and transformers make of it."""

import torch
from diffusers import AutoencoderKL

from trainer_core.families import registry


def test_a_folder_predicts_what_diffusers_predicts_from_it(base, model, pipeline, predict, prompt):
    pipe = pipeline()
    numbers = torch.Generator().manual_seed(3)
    noisy = torch.randn(2, 4, 8, 8, generator=numbers)
    with torch.no_grad():
        words = torch.cat([pipe.encode_prompt(text, "cpu", 1, False)[0] for text in (prompt, "cross")])
        expected = pipe.unet(noisy, torch.tensor([10, 900]), words).sample
    torch.testing.assert_close(predict(model), expected, rtol=0, atol=1e-6)
    assert model.resolution == 64 and model.encoder.pixel_step == 8 and model.name == "base"


def test_everything_is_loaded_frozen_at_rest_and_in_the_precision_asked_for(base, predict):
    model = registry.load(str(base), torch.bfloat16)
    encoder = model.encoder
    assert {p.dtype for p in model.denoiser.parameters()} == {torch.bfloat16}
    assert {p.dtype for part in (encoder.vae, encoder.text_encoders["te"]) for p in part.parameters()} == {
        torch.float32
    }
    for part in (model.denoiser, encoder.vae, encoder.text_encoders["te"]):
        assert not part.training and not any(p.requires_grad for p in part.parameters())
    exact = predict(registry.load(str(base)))
    torch.testing.assert_close(predict(model, dtype=torch.bfloat16).float(), exact, rtol=0.1, atol=0.05)


def test_captions_are_encoded_as_diffusers_pipeline_encodes_them(model, pipeline, prompt):
    pipe = pipeline()
    captions = ["", "a", prompt, "Ünïcode, 一只狗! 42", " ".join(["ring"] * 75)]
    for caption, entry in zip(captions, model.encoder.encode_captions(captions), strict=True):
        expected = pipe.encode_prompt(caption, "cpu", 1, False)[0][0]
        torch.testing.assert_close(entry["text"], expected, rtol=0, atol=1e-6)


def test_a_caption_of_more_than_75_tokens_becomes_windows_and_loses_nothing(model, pipeline):
    words = ["red", "ring"] * 50
    (entry,) = model.encoder.encode_captions([" ".join(words)])
    assert entry["text"].shape == (2 * 77, 32)
    pipe = pipeline()
    parts = [" ".join(words[:75]), " ".join(words[75:])]
    expected = torch.cat([pipe.encode_prompt(part, "cpu", 1, False)[0][0] for part in parts])
    torch.testing.assert_close(entry["text"], expected, rtol=0, atol=1e-6)


def test_short_captions_in_a_batch_with_long_ones_go_on_without_words(model):
    long, short, empty = model.encoder.encode_captions([" ".join(["ring"] * 100), "cross", ""])
    both = model.encoder.stack([long, short])["text"]
    assert both.shape == (2, 154, 32)
    assert torch.equal(both[0], long["text"])
    assert torch.equal(both[1], torch.cat([short["text"], empty["text"]]))


def test_pictures_become_the_latents_of_the_vaes_mean_and_come_back_as_its_decoder_makes_them(base, model):
    pixels = torch.rand(2, 64, 48, 3, generator=torch.Generator().manual_seed(1))
    vae = AutoencoderKL.from_pretrained(base / "vae").eval()
    with torch.no_grad():
        expected = vae.encode(pixels.permute(0, 3, 1, 2) * 2 - 1).latent_dist.mean * 0.18215
        decoded = (vae.decode(expected / 0.18215).sample / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    latents = model.encoder.encode_pictures(pixels)
    assert latents.shape == (2, 4, 8, 6)
    torch.testing.assert_close(latents, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(model.encoder.decode(latents), decoded, rtol=0, atol=1e-6)
