"""A pack of nodes with a small Stable Diffusion 3 in the host's own classes; a test puts it beside the pack."""

import json
from pathlib import Path

import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import comfy.text_encoders.sd3_clip
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
    options, state = {"dtype": torch.float32}, {}
    for name, part in (("clip_l", "text_encoder"), ("clip_g", "text_encoder_2")):
        config, weights = read(folder, part)
        options[f"{name}_model_config"] = config
        for key, tensor in weights.items():
            bare = key.removeprefix("text_model.")
            place = bare if bare.startswith("text_projection") else f"text_model.{bare}"
            state[f"{name}.transformer.{place}"] = tensor
        state[f"{name}.logit_scale"] = torch.tensor(4.6)
    both = comfy.text_encoders.sd3_clip.sd3_clip(clip_l=True, clip_g=True, t5=False)
    target = comfy.supported_models_base.ClipTarget(comfy.text_encoders.sd3_clip.SD3Tokenizer, both)
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


class SD3:
    """The base in a folder of the input folder, as a checkpoint loader gives it."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "run", ("MODEL", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"folder": ("STRING", {})}}

    def run(self, folder):
        base = Path(folder_paths.get_input_directory()) / folder
        return model_of(base), clip_of(base), vae_of(base)


class DenoiseSD3:
    """The denoiser's answer with the MODEL's patches."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "probe", "run", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "file": ("STRING", {}), "out": ("STRING", {})}}

    def run(self, model, file, out):
        given = load_file(f"{folder_paths.get_input_directory()}/{file}")
        comfy.model_management.load_models_gpu([model], force_patch_weights=True)
        answer = model.model.diffusion_model(given["noisy"], given["times"], context=given["text"], y=given["pooled"])
        save_file({"answer": answer.clone()}, f"{folder_paths.get_output_directory()}/{out}")
        return {"ui": {"text": [str(answer.dtype)]}}


NODE_CLASS_MAPPINGS = {"ProbeSD3": SD3, "ProbeDenoiseSD3": DenoiseSD3}
