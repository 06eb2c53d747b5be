"""Stable Diffusion 1 from a folder or one file: the same model as diffusers and transformers make of it."""

import datetime
import json
import os
import shutil

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from trainer_core.errors import BadInput
from trainer_core.families import registry
from trainer_core.families.clip_vocabulary.tokenizer import clip_tokenizer
from trainer_core.lora_file.unet_names import ldm_names

PROMPT = "a small red ring on a blue background"


@torch.no_grad()
def predict(model, prompt=PROMPT, dtype=torch.float32):
    numbers = torch.Generator().manual_seed(3)
    noisy = torch.randn(2, 4, 8, 8, generator=numbers).to(dtype)
    words = model.encoder.stack(model.encoder.encode_captions([prompt, "cross"]))["text"].to(dtype)
    return model.family.predict(model.denoiser, noisy, torch.tensor([10, 900]), {"text": words})


# ---- folders


def test_a_folder_predicts_what_diffusers_predicts_from_it(base, model, pipeline):
    pipe = pipeline()
    numbers = torch.Generator().manual_seed(3)
    noisy = torch.randn(2, 4, 8, 8, generator=numbers)
    with torch.no_grad():
        words = torch.cat([pipe.encode_prompt(text, "cpu", 1, False)[0] for text in (PROMPT, "cross")])
        expected = pipe.unet(noisy, torch.tensor([10, 900]), words).sample
    torch.testing.assert_close(predict(model), expected, rtol=0, atol=1e-6)
    assert model.resolution == 64 and model.encoder.pixel_step == 8 and model.name == "base"


def test_everything_is_loaded_frozen_at_rest_and_in_the_precision_asked_for(base):
    model = registry.load(str(base), torch.bfloat16)
    encoder = model.encoder
    assert {p.dtype for p in model.denoiser.parameters()} == {torch.bfloat16}
    assert {p.dtype for part in (encoder.vae, encoder.text_encoder) for p in part.parameters()} == {torch.float32}
    for part in (model.denoiser, encoder.vae, encoder.text_encoder):
        assert not part.training and not any(p.requires_grad for p in part.parameters())
    exact = predict(registry.load(str(base)))
    torch.testing.assert_close(predict(model, dtype=torch.bfloat16).float(), exact, rtol=0.1, atol=0.05)


def test_captions_are_encoded_as_diffusers_pipeline_encodes_them(model, pipeline):
    pipe = pipeline()
    captions = ["", "a", PROMPT, "Ünïcode, 一只狗! 42", " ".join(["ring"] * 75)]
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


@pytest.fixture
def copied(base, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(base, folder)
    return folder


# ---- identities


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def identities(folder, dtype=torch.float32):
    model = registry.load(str(folder), dtype)
    return model.identity, model.encoder.identity


def test_a_copy_has_the_same_identity_in_every_precision(copied, model):
    expected = model.identity, model.encoder.identity
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert identities(copied, dtype) == expected


def test_other_unet_weights_are_another_model_with_the_same_encoder(copied, model):
    path = copied / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["conv_out.bias"] += 1e-3
    save_file(state, path)
    changed = registry.load(str(copied))
    assert changed.identity != model.identity
    assert changed.encoder.identity == model.encoder.identity


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("unet/config.json", {"norm_num_groups": 16}),
        ("unet/config.json", {"sample_size": 16}),
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}),
        ("scheduler/scheduler_config.json", {"beta_end": 0.02}),
        ("scheduler/scheduler_config.json", {"beta_schedule": "linear"}),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}),
    ],
    ids=str,
)
def test_another_unet_configuration_or_noise_schedule_is_another_model_with_the_same_encoder(
    copied, model, name, change
):
    edit_json(copied / name, **change)
    changed = registry.load(str(copied))
    assert changed.identity != model.identity
    assert changed.encoder.identity == model.encoder.identity


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("vae/config.json", {"scaling_factor": 0.2}),
        ("vae/config.json", {"shift_factor": 0.1}),
        ("vae/config.json", {"norm_num_groups": 16}),
        ("text_encoder/config.json", {"hidden_act": "gelu"}),
        ("text_encoder/config.json", {"num_attention_heads": 2}),
        ("tokenizer/tokenizer_config.json", {"pad_token": "!"}),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 40}),
    ],
    ids=str,
)
def test_an_encoder_that_makes_something_else_has_another_identity_and_so_has_its_model(copied, model, name, change):
    edit_json(copied / name, **change)
    changed = registry.load(str(copied))
    assert changed.encoder.identity != model.encoder.identity
    assert changed.identity != model.identity


def test_another_vocabulary_is_another_encoder(copied, model):
    path = copied / "tokenizer" / "tokenizer.json"
    words = json.loads(path.read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(words))
    assert identities(copied)[1] != model.encoder.identity


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("unet/config.json", {"_diffusers_version": "0.1", "_name_or_path": "x", "center_input_sample": False}),
        ("scheduler/scheduler_config.json", {"_class_name": "PNDMScheduler", "skip_prk_steps": True}),
        ("vae/config.json", {"sample_size": 512, "shift_factor": 0.0}),
        ("text_encoder/config.json", {"torch_dtype": "float16", "eos_token_id": 2, "projection_dim": 9}),
    ],
    ids=str,
)
def test_what_decides_nothing_changes_no_identity(copied, model, name, change):
    edit_json(copied / name, **change)
    assert identities(copied) == (model.identity, model.encoder.identity)


# ---- what folders hold


def test_the_old_names_of_the_vaes_attention_are_read_as_diffusers_reads_them(copied, model):
    old_names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    path = copied / "vae" / "diffusion_pytorch_model.safetensors"
    state = {}
    for key, tensor in load_file(path).items():
        for new, old in old_names.items():
            key = key.replace(new, old)
        state[key] = tensor
    assert sum(".attentions.0.query." in key for key in state) == 4
    save_file(state, path)
    pixels = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        reference = AutoencoderKL.from_pretrained(copied / "vae").encode(pixels.permute(0, 3, 1, 2) * 2 - 1)
    found = registry.load(str(copied)).encoder
    latents = found.encode_pictures(pixels)
    torch.testing.assert_close(latents, reference.latent_dist.mean * 0.18215, rtol=0, atol=1e-6)
    assert found.identity == model.encoder.identity
    # Converters of that time left the matrices as the 1×1 convolutions that they had been.
    matrices = [key for key in state if ".attentions." in key and state[key].ndim == 2]
    save_file(state | {key: state[key][:, :, None, None].contiguous() for key in matrices}, path)
    assert torch.equal(registry.load(str(copied)).encoder.encode_pictures(pixels), latents)


def test_a_tokenizer_folder_without_a_vocabulary_is_refused(copied):
    words = copied / "tokenizer"
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (words / name).unlink(missing_ok=True)
    with pytest.raises(BadInput, match=r"lacks tokenizer/vocab.json \+ merges.txt"):
        registry.load(str(copied))
    (words / "vocab.json").write_text("{}")
    with pytest.raises(BadInput, match=r"lacks tokenizer/vocab.json \+ merges.txt"):
        registry.load(str(copied))


def test_a_torn_vocabulary_is_named(copied):
    words = copied / "tokenizer"
    (words / "tokenizer.json").unlink(missing_ok=True)
    (words / "vocab.json").write_text('{"a": ')
    (words / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(BadInput, match="tokenizer cannot be read as CLIP's tokenizer"):
        registry.load(str(copied))


def test_a_tokenizer_with_more_tokens_than_the_text_encoder_has_embeddings_is_refused(copied):
    words = CLIPTokenizer.from_pretrained(copied / "tokenizer")
    words.add_tokens(["<heart>"])
    words.save_pretrained(copied / "tokenizer")
    with pytest.raises(BadInput, match="the tokenizer of .*copy has 609 tokens and its text encoder 608 embeddings"):
        registry.load(str(copied))


def test_a_tokenizer_of_another_model_is_refused_though_its_tokens_have_embeddings(clip_base, base, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(clip_base, folder)
    shutil.rmtree(folder / "tokenizer")
    shutil.copytree(base / "tokenizer", folder / "tokenizer")
    with pytest.raises(BadInput, match="has 608 tokens and its text encoder 49408 embeddings"):
        registry.load(str(folder))


def test_an_embedding_table_padded_to_a_round_length_is_accepted(copied, model):
    path = copied / "text_encoder" / "model.safetensors"
    state = load_file(path)
    (name,) = [key for key in state if key.endswith("token_embedding.weight")]
    state[name] = torch.cat([state[name], torch.zeros(32, 32)])
    save_file(state, path)
    edit_json(copied / "text_encoder" / "config.json", vocab_size=640)
    assert torch.equal(predict(registry.load(str(copied))), predict(model))


def test_a_tokenizer_without_a_length_takes_the_text_encoders(copied, model):
    path = copied / "tokenizer" / "tokenizer_config.json"
    words = json.loads(path.read_text())
    del words["model_max_length"]
    path.write_text(json.dumps(words))
    found = registry.load(str(copied))
    assert found.encoder.tokenizer.model_max_length == 77
    assert torch.equal(predict(found), predict(model))


def test_a_folder_of_bin_files_is_read_without_pickle(copied, model):
    for part, name in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        path = copied / part / f"{name}.safetensors"
        torch.save(load_file(path), path.with_name("pytorch_model.bin" if name == "model" else f"{name}.bin"))
        path.unlink()
    assert torch.equal(predict(registry.load(str(copied))), predict(model))


@pytest.mark.parametrize("function", [os.mkdir, exec, shutil.copy])
def test_a_bin_file_that_would_run_code_is_refused(copied, tmp_path, function):
    class Trap:
        def __reduce__(self):
            return function, (str(tmp_path / "sprung"),)

    (copied / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"conv_in.weight": Trap()}, copied / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(BadInput, match="diffusion_pytorch_model.bin holds objects other than tensors .*run code"):
        registry.load(str(copied))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_checkpoint_with_foreign_objects_says_which_and_what_to_do(tmp_path, zipped):
    path = tmp_path / "lightning.ckpt"
    callbacks = {"callbacks": datetime.timedelta(1), "state_dict": {"a": torch.ones(1)}}
    torch.save(callbacks, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(BadInput) as caught:
        registry.load(str(path))
    assert str(caught.value) == (
        f"base: {path} holds objects other than tensors (datetime.timedelta), which could run code, so it is not "
        "opened; convert it to .safetensors"
    )


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x02\x85\x85\x85", b"PK\x03\x04torn"])
def test_a_torn_ckpt_is_said_on_one_line_without_control_codes(tmp_path, content):
    path = tmp_path / "torn.ckpt"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="torn.ckpt cannot be read as weights .*is the download complete") as caught:
        registry.load(str(path))
    assert str(caught.value).isprintable()


def test_a_bin_file_that_holds_no_mapping_is_refused(copied):
    (copied / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(torch.ones(3), copied / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(BadInput, match="diffusion_pytorch_model.bin"):
        registry.load(str(copied))


def test_shards_and_variants_are_found(copied, model):
    path = copied / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    names, index = sorted(state), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, copied / "unet" / file)
        index |= dict.fromkeys(part, file)
    path.unlink()
    (copied / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    vae = copied / "vae" / "diffusion_pytorch_model.safetensors"
    vae.rename(vae.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert torch.equal(predict(registry.load(str(copied))), predict(model))


def test_a_missing_shard_is_named(copied):
    unet = copied / "unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    index = {"weight_map": {"conv_in.weight": "diffusion_pytorch_model-00001-of-00001.safetensors"}}
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadInput, match="diffusion_pytorch_model-00001-of-00001.safetensors"):
        registry.load(str(copied))


def test_all_missing_parts_of_a_folder_are_named_at_once(copied):
    shutil.rmtree(copied / "vae")
    shutil.rmtree(copied / "tokenizer")
    with pytest.raises(BadInput, match="lacks vae/config.json, tokenizer"):
        registry.load(str(copied))


def test_missing_unexpected_and_misshaped_weights_are_named(copied):
    path = copied / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state["conv_in.bias"]
    state["conv_out.weight"] = state["conv_out.weight"][:, :16].contiguous()
    state["surplus"] = torch.ones(1)
    save_file(state, path)
    with pytest.raises(BadInput) as caught:
        registry.load(str(copied))
    said = str(caught.value)
    assert "the unet of" in said and "1 missing (conv_in.bias)" in said and "1 unexpected (surplus)" in said
    assert "conv_out.weight is [4, 16, 3, 3] instead of [4, 32, 3, 3]" in said


def test_a_torn_weights_file_is_named(copied):
    path = copied / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadInput, match=r"vae.diffusion_pytorch_model.safetensors cannot be read as weights"):
        registry.load(str(copied))


def test_a_prediction_that_cannot_be_trained_is_refused(changed_base):
    with pytest.raises(BadInput, match="prediction_type 'sample' is not one that trains"):
        registry.load(str(changed_base(prediction_type="sample")))


# ---- where bases come from


def test_a_folder_of_another_family_is_refused_by_its_name(copied):
    index = copied / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "FluxPipeline"}))
    with pytest.raises(BadInput, match="is a FluxPipeline; this version trains StableDiffusionPipeline"):
        registry.load(str(copied))
    index.write_text("[1, 2]")
    with pytest.raises(BadInput, match="model_index.json is not readable"):
        registry.load(str(copied))


def test_what_is_not_there_is_said_with_what_would_do(tmp_path):
    with pytest.raises(BadInput, match="nothing at 'no such base'; give scion-tiny, the path"):
        registry.load("no such base")
    with pytest.raises(BadInput, match="has no model_index.json"):
        registry.load(str(tmp_path))
    other = tmp_path / "model.gguf"
    other.write_bytes(b"GGUF")
    with pytest.raises(BadInput, match="is no checkpoint; expected a file ending in .safetensors"):
        registry.load(str(other))


def test_a_hub_id_is_used_from_the_cache_and_never_downloaded(base, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(BadInput, match="nothing is downloaded by itself. Fetch it once with `hf download some/model`"):
        registry.load("some/model")
    commit = "0" * 40
    place = tmp_path / "hub" / "models--some--model"
    shutil.copytree(base, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    assert registry.load("some/model").name == "model"


# ---- one file


VAE_RESNET = {"conv_shortcut": "nin_shortcut"}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def vae_name(path, levels):
    """The original name of a VAE's module."""
    parts = path.split(".")
    side, rest = parts[0], parts[1:]
    if side not in ("encoder", "decoder"):
        return path
    if rest[0] == "conv_norm_out":
        return f"{side}.norm_out"
    if rest[0] == "mid_block":
        inner = ".".join(rest[3:])
        if rest[1] == "resnets":
            return f"{side}.mid.block_{int(rest[2]) + 1}.{VAE_RESNET.get(inner, inner)}"
        return f"{side}.mid.attn_1.{VAE_ATTENTION[inner]}"
    if rest[0] in ("down_blocks", "up_blocks"):
        level = int(rest[1]) if rest[0] == "down_blocks" else levels - 1 - int(rest[1])
        name = "down" if rest[0] == "down_blocks" else "up"
        if rest[2] == "resnets":
            inner = ".".join(rest[4:])
            return f"{side}.{name}.{level}.block.{rest[3]}.{VAE_RESNET.get(inner, inner)}"
        return f"{side}.{name}.{level}.{name}sample.conv"
    return path


def one_file(folder, **extra):
    """The tensors of a folder under Stable Diffusion's original names."""
    state = {key: torch.tensor(value) for key, value in extra.items()}
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    weights = unet.state_dict()
    names = ldm_names(unet.config, {key.rpartition(".")[0] for key in weights})
    for key, tensor in weights.items():
        path, _, kind = key.rpartition(".")
        state[f"model.diffusion_model.{names[path]}.{kind}"] = tensor
    for key, tensor in load_file(folder / "vae" / "diffusion_pytorch_model.safetensors").items():
        path, _, kind = key.rpartition(".")
        name = vae_name(path, 4)
        if ".attn_1." in name and kind == "weight" and not name.endswith("norm"):
            tensor = tensor[:, :, None, None].contiguous()  # the original's attention is made of 1×1 convolutions
        state[f"first_stage_model.{name}.{kind}"] = tensor
    for key, tensor in load_file(folder / "text_encoder" / "model.safetensors").items():
        state[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = tensor
    return state


@pytest.fixture(scope="module")
def clip_base(tmp_path_factory, save_random_base):
    """As the base, with CLIP's own vocabulary and made for 512 pixels, neither of which one-file checkpoints bring."""
    folder = save_random_base(tmp_path_factory.mktemp("clip") / "base", clip_tokenizer())
    edit_json(folder / "unet" / "config.json", sample_size=64)
    return folder


@pytest.fixture(scope="module")
def original(clip_base):
    return one_file(clip_base)


@pytest.mark.parametrize("ending", [".safetensors", ".SafeTensors", ".ckpt", ".PT"])
def test_one_file_in_original_names_predicts_what_its_folder_predicts(clip_base, original, tmp_path, ending):
    path = tmp_path / f"anything{ending}"
    if ending in (".ckpt", ".PT"):
        # torch before 1.6 wrote no archive but one pickle after another.
        torch.save({"state_dict": original, "global_step": 7}, path, _use_new_zipfile_serialization=ending == ".ckpt")
    else:
        save_file(original, path)
    folder, file = registry.load(str(clip_base)), registry.load(str(path))
    assert file.name == "anything"
    assert file.identity == folder.identity and file.encoder.identity == folder.encoder.identity
    torch.testing.assert_close(predict(file), predict(folder), rtol=0, atol=1e-5)
    pixels = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    latents = file.encoder.encode_pictures(pixels)
    torch.testing.assert_close(latents, folder.encoder.encode_pictures(pixels), rtol=0, atol=1e-5)
    torch.testing.assert_close(file.encoder.decode(latents), folder.encoder.decode(latents), rtol=0, atol=1e-5)
    noise, at = torch.randn(1, 4, 8, 8), torch.tensor([500])
    both = [model.diffusion.add_noise(latents, noise, at) for model in (file, folder)]
    assert torch.equal(*both)
    assert file.diffusion.prediction_type == "epsilon"


def test_text_weights_without_their_prefix_are_read_too(clip_base, original, tmp_path):
    state = {key.replace(".transformer.text_model.", ".transformer."): value for key, value in original.items()}
    state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(state, tmp_path / "bare.safetensors")
    found, expected = registry.load(str(tmp_path / "bare.safetensors")), registry.load(str(clip_base))
    torch.testing.assert_close(predict(found), predict(expected), rtol=0, atol=1e-5)


def test_marker_keys_make_it_a_v_prediction_model_with_zero_terminal_snr(original, tmp_path):
    save_file({**original, "v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}, tmp_path / "v.safetensors")
    diffusion = registry.load(str(tmp_path / "v.safetensors")).diffusion
    assert diffusion.prediction_type == "v_prediction"
    assert diffusion.snr(torch.tensor([999])).item() == 0
    save_file({**original, "v_pred": torch.tensor([])}, tmp_path / "v.safetensors")
    diffusion = registry.load(str(tmp_path / "v.safetensors")).diffusion
    assert diffusion.prediction_type == "v_prediction"
    assert diffusion.snr(torch.tensor([999])).item() > 0.001


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("conditioner.embedders.1.model.text_projection", "Stable Diffusion XL"),
        ("cond_stage_model.model.positional_embedding", "Stable Diffusion 2"),
        ("model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight", "Stable Diffusion 3"),
        ("double_blocks.0.img_attn.qkv.weight", "Flux"),
        ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "Flux"),
    ],
)
def test_a_file_of_another_family_is_refused_by_its_name(tmp_path, key, name):
    path = tmp_path / "other.safetensors"
    save_file({key: torch.ones(2), "model.diffusion_model.input_blocks.0.0.weight": torch.ones(2)}, path)
    with pytest.raises(BadInput, match=f"is a {name} checkpoint"):
        registry.load(str(path))


def test_a_file_without_a_part_or_without_weights_says_what_is_missing(original, tmp_path):
    path = tmp_path / "part.safetensors"
    save_file({key: value for key, value in original.items() if not key.startswith("first_stage")}, path)
    with pytest.raises(BadInput, match=r"lacks the VAE \(first_stage_model.…\)"):
        registry.load(str(path))
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(BadInput, match="lacks the UNet .*, the VAE .*, the text encoder"):
        registry.load(str(path))
    path.write_bytes(b"not a checkpoint at all")
    with pytest.raises(BadInput, match="cannot be read as weights .*is the download complete"):
        registry.load(str(path))


@pytest.mark.parametrize("lost", ["out.2.weight", "attn2.to_k.weight", "output_blocks.1.0.in_layers.2.weight"])
def test_a_file_with_holes_is_bad_input_and_no_bug(original, tmp_path, lost):
    path = tmp_path / "holes.safetensors"
    save_file({key: value for key, value in original.items() if not key.endswith(lost)}, path)
    with pytest.raises(BadInput, match=str(path)):
        registry.load(str(path))


def test_an_inpainting_model_is_refused(original, tmp_path):
    name = "model.diffusion_model.input_blocks.0.0.weight"
    save_file({**original, name: torch.zeros(32, 9, 3, 3)}, tmp_path / "inpainting.safetensors")
    with pytest.raises(BadInput, match="takes 9 channels instead of 4: it is made for inpainting"):
        registry.load(str(tmp_path / "inpainting.safetensors"))


def test_clips_own_tokenizer_is_rebuilt_as_it_was_released():
    tokens = clip_tokenizer()
    assert len(tokens) == 49408
    assert (tokens.bos_token_id, tokens.eos_token_id, tokens.pad_token_id) == (49406, 49407, 49407)
    # Ids as published with CLIP ("a photo of a cat").
    assert tokens("a photo of a cat", add_special_tokens=False).input_ids == [320, 1125, 539, 320, 2368]
