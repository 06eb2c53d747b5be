"""Bases to change, and to be read from one file; what a loaded model predicts."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import HunyuanDiT2DModel, SD3Transformer2DModel, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTokenizer, T5TokenizerFast

from trainer_core.engine import metrics
from trainer_core.families.clip_vocabulary.tokenizer import clip_tokenizer
from trainer_core.families.t5_vocabulary.tokenizer import t5_tokenizer
from trainer_core.lora_file.unet_names import ldm_names


def by_path(name):
    spec = importlib.util.spec_from_file_location(f"families_{name}", Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sd3_models = by_path("sd3_models")
flux = by_path("flux_models")

PROMPT = "a small red ring on a blue background"


@torch.no_grad()
def predict_from(model, prompt=PROMPT, dtype=torch.float32):
    numbers = torch.Generator().manual_seed(3)
    noisy = torch.randn(2, model.family.latent_channels, 8, 8, generator=numbers).to(dtype)
    told = model.encoder.stack(model.encoder.encode_captions([prompt, "cross"]))
    told = {name: tensor.to(dtype) for name, tensor in told.items()}
    if model.family.sized:
        told["time_ids"] = torch.tensor([[96, 64, 0, 8, 64, 64], [1023, 771, 3, 0, 64, 64]])
    return model.family.predict(model.denoiser, noisy, torch.tensor([10, 900]), told)


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# ---- one file in the original names


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
    first = "conditioner.embedders.0" if (folder / "text_encoder_2").is_dir() else "cond_stage_model"
    for key, tensor in load_file(folder / "text_encoder" / "model.safetensors").items():
        state[f"{first}.transformer.text_model.{key.removeprefix('text_model.')}"] = tensor
    if (folder / "text_encoder_2").is_dir():
        second = load_file(folder / "text_encoder_2" / "model.safetensors")
        state |= {f"conditioner.embedders.1.model.{key}": tensor for key, tensor in open_clip_names(second).items()}
    return state


def open_clip_names(state):
    """A text encoder's weights as open_clip has them: one matrix for query, key and value, the projection turned."""
    bare = {key.removeprefix("text_model."): tensor for key, tensor in state.items()}
    named = {"logit_scale": torch.tensor(4.6), "text_projection": bare.pop("text_projection.weight").T.contiguous()}
    for key, tensor in bare.items():
        for ours, theirs in OPEN_CLIP:
            key = key.replace(ours, theirs)
        if ".q_proj." in key:
            place, _, kind = key.rpartition(".q_proj.")
            parts = [tensor, *(bare[f"{back(place)}.{name}_proj.{kind}"] for name in "kv")]
            named[f"{place}.in_proj_{kind}"] = torch.cat(parts)
        elif not (".k_proj." in key or ".v_proj." in key):
            named[key] = tensor
    return named


OPEN_CLIP = (
    ("encoder.layers.", "transformer.resblocks."),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("self_attn", "attn"),
    ("embeddings.token_embedding", "token_embedding"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("final_layer_norm", "ln_final"),
)


def back(place):
    return place.replace("transformer.resblocks.", "encoder.layers.").replace(".attn", ".self_attn")


@pytest.fixture(scope="session")
def in_one_file():
    """The tensors of a diffusers folder under Stable Diffusion's original names; keywords add tensors."""
    return one_file


# ---- HunyuanDiT in one file, as ComfyUI has it


def one_hunyuan_file(folder, in_original_names):
    """The tensors of a folder under the names that ComfyUI's checkpoints have."""
    model = HunyuanDiT2DModel.from_pretrained(folder / "transformer")
    state = {f"model.{key}": tensor for key, tensor in in_original_names(model.state_dict(), model.config).items()}
    for part, name in (("text_encoder", "hydit_clip.transformer.bert"), ("text_encoder_2", "mt5xl.transformer")):
        for key, tensor in load_file(folder / part / "model.safetensors").items():
            state[f"text_encoders.{name}.{key}"] = tensor
    pieces = (folder / "spiece.model").read_bytes()
    state["text_encoders.mt5xl.spiece_model"] = torch.tensor(list(pieces), dtype=torch.uint8)
    for key, tensor in load_file(folder / "vae" / "diffusion_pytorch_model.safetensors").items():
        path, _, kind = key.rpartition(".")
        name = vae_name(path, 4)
        if ".attn_1." in name and kind == "weight" and not name.endswith("norm"):
            tensor = tensor[:, :, None, None].contiguous()
        state[f"vae.{name}.{kind}"] = tensor
    return state


@pytest.fixture(scope="session")
def in_one_hunyuan_file(in_hunyuan_names):
    """A HunyuanDiT folder -> the tensors of a checkpoint as ComfyUI has it."""
    return lambda folder: one_hunyuan_file(folder, in_hunyuan_names)


# ---- bases


@pytest.fixture(scope="session")
def prompt():
    """The caption that `predict` predicts for, before "cross"."""
    return PROMPT


@pytest.fixture(scope="session")
def predict():
    """What a loaded model predicts of two noisy latents, always the same."""
    return predict_from


@pytest.fixture(scope="session")
def edit_json():
    """Changes keys of a JSON file."""
    return change_json


@pytest.fixture
def copied(base, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(base, folder)
    return folder


@pytest.fixture(scope="session")
def clip_base(tmp_path_factory, save_random_base):
    """As the base, with CLIP's own vocabulary and made for 512 pixels, neither of which one-file checkpoints bring."""
    folder = save_random_base(tmp_path_factory.mktemp("clip") / "base", clip_tokenizer())
    change_json(folder / "unet" / "config.json", sample_size=64)
    return folder


@pytest.fixture(scope="session")
def sdxl_clip_base(tmp_path_factory, base, save_random_sdxl):
    """The same with CLIP's own vocabulary, which one-file checkpoints do not bring."""
    folder = tmp_path_factory.mktemp("sdxl-clip")
    return save_random_sdxl(folder / "base", clip_tokenizer(), clip_tokenizer("!"))


def sd3_one_file(folder, with_t5=True):
    """The tensors of a folder as sd3_medium_incl_clips_t5xxl has them."""
    transformer = SD3Transformer2DModel.from_pretrained(folder / "transformer")
    state = {f"model.diffusion_model.{key}": tensor for key, tensor in sd3_models.original(transformer).items()}
    for key, tensor in load_file(folder / "vae" / "diffusion_pytorch_model.safetensors").items():
        path, _, kind = key.rpartition(".")
        name = vae_name(path, 4)
        if ".attn_1." in name and kind == "weight" and not name.endswith("norm"):
            tensor = tensor[:, :, None, None].contiguous()
        state[f"first_stage_model.{name}.{kind}"] = tensor
    for part, name in (("text_encoder", "clip_l"), ("text_encoder_2", "clip_g"), ("text_encoder_3", "t5xxl")):
        if part == "text_encoder_3" and not with_t5:
            continue
        for key, tensor in load_file(folder / part / "model.safetensors").items():
            bare = key.removeprefix("text_model.")
            key = key if name == "t5xxl" or bare == "text_projection.weight" else f"text_model.{bare}"
            if (name, bare) != ("clip_l", "text_projection.weight"):
                state[f"text_encoders.{name}.transformer.{key}"] = tensor
    return state


@pytest.fixture(scope="session")
def sd3_in_one_file():
    return sd3_one_file


@pytest.fixture(scope="session")
def save_random_sd3(tmp_path_factory):
    """Saves the folder of a random Stable Diffusion 3; see `sd3_models.save`."""

    def save(clip_words, t5_words=None, **changes):
        return sd3_models.save(tmp_path_factory.mktemp("sd3") / "base", clip_words, t5_words, **changes)

    return save


@pytest.fixture(scope="session")
def two_words(base):
    """Short tokenizers for two CLIPs; the second pads with its first token, "!"."""
    first, second = (CLIPTokenizer.from_pretrained(base / "tokenizer") for _ in range(2))
    second.pad_token = "!"
    return first, second


@pytest.fixture(scope="session")
def sd3_base(save_random_sd3, two_words):
    """The folder of a random Stable Diffusion 3 with T5; nobody writes in it."""
    return save_random_sd3(two_words, sd3_models.few_words())


@pytest.fixture(scope="session")
def sd35_base(save_random_sd3, two_words):
    """The same, its transformer as that of 3.5 medium, and without T5."""
    return save_random_sd3(two_words, **sd3_models.MEDIUM_35)


@pytest.fixture(scope="session")
def sd3_clip_base(save_random_sd3, tmp_path_factory):
    """The same with T5 and the released vocabularies, which one-file checkpoints do not bring."""
    folder = tmp_path_factory.mktemp("t5-words")
    t5_tokenizer().save_pretrained(folder)
    words = T5TokenizerFast.from_pretrained(folder)
    return save_random_sd3((clip_tokenizer(), clip_tokenizer("!")), words, **sd3_models.MEDIUM_35, sample_size=128)


@pytest.fixture(scope="session")
def flux_models():
    """Makes random Fluxes; see flux_models.py."""
    return flux


@pytest.fixture(scope="session")
def vae_names():
    """(path, levels) -> the original name of a VAE's module."""
    return vae_name


@pytest.fixture(scope="session")
def save_random_flux(tmp_path_factory):
    """Saves the folder of a random Flux; see `flux_models.save`."""

    def save(clip_words, t5_words, **changes):
        return flux.save(tmp_path_factory.mktemp("flux") / "base", clip_words, t5_words, **changes)

    return save


@pytest.fixture(scope="session")
def flux_base(save_random_flux, two_words):
    """The folder of a random FLUX.1 dev; nobody writes in it."""
    return save_random_flux(two_words[0], sd3_models.few_words())


@pytest.fixture(scope="session")
def schnell_base(save_random_flux, two_words):
    """The same of schnell."""
    return save_random_flux(two_words[0], sd3_models.few_words(), guided=False)


@pytest.fixture(scope="session")
def t5_words(tmp_path_factory):
    """T5's own tokenizer."""
    folder = tmp_path_factory.mktemp("t5-words")
    t5_tokenizer().save_pretrained(folder)
    return T5TokenizerFast.from_pretrained(folder)


@pytest.fixture(scope="session")
def flux_clip_base(save_random_flux, t5_words):
    """Dev with the released vocabularies, which one-file checkpoints do not bring."""
    return save_random_flux(clip_tokenizer(), t5_words)


@pytest.fixture(scope="session")
def schnell_clip_base(save_random_flux, t5_words):
    return save_random_flux(clip_tokenizer(), t5_words, guided=False)


@pytest.fixture(scope="session")
def one_picture(pictures, tmp_path_factory):
    """A dataset of a single picture."""
    folder = tmp_path_factory.mktemp("one")
    for ending in ("png", "txt"):
        shutil.copyfile(pictures / f"0.{ending}", folder / f"0.{ending}")
    return folder


@pytest.fixture(scope="session")
def losses_of():
    """The losses of a run's steps, from its folder."""

    def read(folder):
        return [line["loss"] for line in metrics.read(folder / "metrics.jsonl") if "loss" in line]

    return read
