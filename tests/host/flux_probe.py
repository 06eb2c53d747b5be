"""A pack of nodes with a small Flux in the host's own classes; a test puts it beside the pack. It runs in the host."""

import json
from pathlib import Path

import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import comfy.text_encoders.flux
import folder_paths
import torch
from safetensors.torch import load_file, save_file


def read(folder, part):
    (weights,) = (folder / part).glob("*.safetensors")
    return json.loads((folder / part / "config.json").read_text()), load_file(weights)


def model_of(folder):
    """As the host itself tells it by its keys and shapes."""
    weights = load_file(folder / "original.safetensors")
    described = comfy.model_detection.detect_unet_config(weights, "")
    architecture = comfy.model_detection.model_config_from_unet_config(described, weights)
    architecture.set_inference_dtype(torch.float32, None)
    model = architecture.get_model(weights, "")
    model.load_model_weights(weights, "")
    place = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=place, offload_device=torch.device("cpu"))


def clip_of(folder):
    (clip, words), (t5, texts) = read(folder, "text_encoder"), read(folder, "text_encoder_2")
    options = {
        "dtype": torch.float32,
        "clip_l_model_config": clip,
        "t5xxl_model_config": t5 | {"dense_act_fn": "gelu_pytorch_tanh"},
    }
    state = {f"clip_l.transformer.text_model.{key.removeprefix('text_model.')}": value for key, value in words.items()}
    state["clip_l.transformer.text_projection.weight"] = torch.eye(clip["hidden_size"])
    state |= {f"t5xxl.transformer.{key}": value for key, value in texts.items()}
    state |= {f"{name}.logit_scale": torch.tensor(4.6) for name in ("clip_l", "t5xxl")}
    flux = comfy.text_encoders.flux
    target = comfy.supported_models_base.ClipTarget(flux.FluxTokenizer, flux.flux_clip(dtype_t5=torch.float32))
    return comfy.sd.CLIP(target, state_dict=state, model_options=options)


def vae_of(folder):
    config, weights = read(folder, "vae")
    channels, latents = config["block_out_channels"], config["latent_channels"]
    described = {
        "double_z": True,
        "z_channels": latents,
        "resolution": 64,
        "in_channels": 3,
        "out_ch": 3,
        "ch": channels[0],
        "ch_mult": [width // channels[0] for width in channels],
        "num_res_blocks": config["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    # The host's class for a configuration has these layers, which this family's do not have.
    for name, width in (("quant_conv", 2 * latents), ("post_quant_conv", latents)):
        weights |= {f"{name}.weight": torch.eye(width)[..., None, None], f"{name}.bias": torch.zeros(width)}
    made = comfy.sd.VAE(
        sd=weights, config={"params": {"ddconfig": described, "embed_dim": latents}}, dtype=torch.float32
    )
    made.latent_channels = latents
    return made


class Flux:
    """The base in a folder of the input folder, as loaders of its parts give it."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "run", ("MODEL", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"folder": ("STRING", {})}}

    def run(self, folder):
        base = Path(folder_paths.get_input_directory()) / folder
        return model_of(base), clip_of(base), vae_of(base)


class DenoiseFlux:
    """The denoiser's answer with the MODEL's patches."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "probe", "run", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "file": ("STRING", {}), "out": ("STRING", {})}}

    def run(self, model, file, out):
        given = load_file(f"{folder_paths.get_input_directory()}/{file}")
        comfy.model_management.load_models_gpu([model], force_patch_weights=True)
        told = {"context": given["text"], "y": given["pooled"], "guidance": given["guidance"]}
        answer = model.model.diffusion_model(given["noisy"], given["times"] / 1000, **told)
        save_file({"answer": answer.clone()}, f"{folder_paths.get_output_directory()}/{out}")
        return {"ui": {"text": [str(answer.dtype), type(model.model.model_config).__name__]}}


NODE_CLASS_MAPPINGS = {"ProbeFlux": Flux, "ProbeDenoiseFlux": DenoiseFlux}
