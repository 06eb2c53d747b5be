"""FLUX.1 from one file in original names: the same model as its folder's; what files that lack something are told."""

import pytest
import torch
from safetensors.torch import save_file

from trainer_core.errors import BadInput
from trainer_core.families import registry
from trainer_core.sampler import load_for_sampling


@pytest.fixture(scope="module", params=["flux_clip_base", "schnell_clip_base"])
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def original(flux_models, vae_names, flux_clip_base):
    return flux_models.one_file(flux_clip_base, vae_names)


@torch.no_grad()
def predicted(model, prompt):
    noisy = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(3))
    told = model.encoder.stack(model.encoder.encode_captions([prompt]))
    return model.family.predict(model.denoiser, noisy, torch.tensor([700.0]), model.told_guidance(told, 3.5))


def test_one_file_in_original_names_predicts_what_its_folder_predicts(flux_models, vae_names, folder, prompt, tmp_path):
    save_file(flux_models.one_file(folder, vae_names), tmp_path / "anything.safetensors")
    file, own = registry.load(str(tmp_path / "anything.safetensors")), registry.load(str(folder))
    assert file.family.name == "flux" and file.guided_by == own.guided_by
    assert file.identity == own.identity and file.encoder.identity == own.encoder.identity
    torch.testing.assert_close(predicted(file, prompt), predicted(own, prompt), rtol=0, atol=1e-5)
    pixels = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    latents = own.encoder.encode_pictures(pixels)
    torch.testing.assert_close(file.encoder.encode_pictures(pixels), latents, rtol=0, atol=1e-5)


def test_a_file_in_plain_fp8_is_read_as_its_numbers_say(original, flux_clip_base, prompt, tmp_path):
    """The transformer and T5, as ComfyUI's flux1-dev-fp8 has them."""
    rounded = ("model.diffusion_model.", "text_encoders.t5xxl.")
    state = {
        key: tensor.to(torch.float8_e4m3fn) if key.startswith(rounded) else tensor for key, tensor in original.items()
    }
    save_file(state, tmp_path / "fp8.safetensors")
    found, exact = (
        load_for_sampling(str(path), None, device="cpu") for path in (tmp_path / "fp8.safetensors", flux_clip_base)
    )
    assert {parameter.dtype for parameter in found.denoiser.parameters()} == {torch.float32}
    assert found.encoder.t5.model.dtype == torch.bfloat16
    error = (predicted(found, prompt) - predicted(exact, prompt)).square().mean().sqrt()
    assert 0 < error < 0.2 * predicted(exact, prompt).std()


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (
            ("model.diffusion_model.",),
            r"lacks the VAE \(vae.…\), CLIP-L \(text_encoders.clip_l.transformer.…\), T5 \(text_encoders.t5xxl.trans"
            r".*\. ComfyUI's checkpoints of Flux have them all.*; in ComfyUI the parts may come from loaders",
        ),
        (
            ("model.diffusion_model.", "vae.", "text_encoders.clip_l."),
            r"lacks T5 \(text_encoders.t5xxl.transformer.…\)",
        ),
        (("vae.", "text_encoders.", "model.diffusion_model.double"), "lacks 'img_in.weight', so its shape cannot be"),
    ],
    ids=["a transformer alone", "without T5", "half a transformer"],
)
def test_what_a_file_lacks_is_named(original, tmp_path, kept, said):
    path = tmp_path / "part.safetensors"
    save_file({key: value for key, value in original.items() if key.startswith(kept)}, path)
    with pytest.raises(BadInput, match=said):
        registry.load(str(path))


def test_a_transformer_alone_without_any_prefix_is_told_what_it_lacks(original, tmp_path):
    path, prefix = tmp_path / "flux1-dev.safetensors", "model.diffusion_model."
    save_file({key.removeprefix(prefix): value for key, value in original.items() if key.startswith(prefix)}, path)
    with pytest.raises(BadInput, match=r"lacks the VAE \(vae.…\), CLIP-L"):
        registry.load(str(path))


@pytest.mark.parametrize(
    ("key", "tensor", "said"),
    [
        ("double_blocks.4000000000.img_attn.proj.weight", torch.ones(1), r"1 unexpected \(double_blocks.4000000000"),
        ("img_in.weight", torch.ones(()), "has weights of shapes that no such model has"),
        ("double_blocks.0.img_attn.norm.query_norm.scale", torch.ones(0), "has weights of shapes that no such model"),
    ],
    ids=["a number of billions", "a lone number", "heads of no width"],
)
def test_a_hostile_file_is_refused_at_once(original, tmp_path, key, tensor, said):
    save_file(original | {f"model.diffusion_model.{key}": tensor}, tmp_path / "hostile.safetensors")
    with pytest.raises(BadInput, match=said):
        registry.load(str(tmp_path / "hostile.safetensors"))
