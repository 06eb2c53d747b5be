"""A pack of nodes with a small SDXL in the host's own classes; a test puts it beside the pack. It runs in the host."""

import json
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sdxl_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from safetensors.torch import load_file, save_file


def read(folder, part):
    (weights,) = (folder / part).glob("*.safetensors")
    return json.loads((folder / part / "config.json").read_text()), load_file(weights)


def model_of(folder):
    config, weights = read(folder, "unet")
    channels = config["block_out_channels"]
    deep = config["transformer_layers_per_block"][1]
    described = {
        "use_checkpoint": False,
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "use_spatial_transformer": True,
        "legacy": False,
        "num_classes": "sequential",
        "adm_in_channels": config["projection_class_embeddings_input_dim"],
        "dtype": torch.float32,
        "model_channels": channels[0],
        "channel_mult": [width // channels[0] for width in channels],
        "num_res_blocks": [1, 1],
        "transformer_depth": [0, deep],
        "transformer_depth_output": [0, 0, deep, deep],
        "transformer_depth_middle": deep,
        "use_linear_in_transformer": True,
        "context_dim": config["cross_attention_dim"],
        "num_head_channels": 64,
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
    }
    architecture = comfy.supported_models.SDXL(described)
    architecture.set_inference_dtype(torch.float32, None)
    names = comfy.utils.unet_to_diffusers(architecture.unet_config)
    renamed = {names[name]: tensor for name, tensor in weights.items()}
    model = architecture.get_model(renamed, "")
    model.load_model_weights(renamed, "")
    place = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=place, offload_device=torch.device("cpu"))


def clip_of(folder):
    options, state = {"dtype": torch.float32}, {"clip_l.text_projection": torch.eye(32)}
    for name, part in (("clip_l", "text_encoder"), ("clip_g", "text_encoder_2")):
        config, weights = read(folder, part)
        options[f"{name}_model_config"] = config
        for key, tensor in weights.items():
            bare = key.removeprefix("text_model.")
            place = bare if bare.startswith("text_projection") else f"text_model.{bare}"
            state[f"{name}.transformer.{place}"] = tensor
        state[f"{name}.logit_scale"] = torch.tensor(4.6)
    state["clip_l.transformer.text_projection.weight"] = state.pop("clip_l.text_projection")
    target = comfy.supported_models_base.ClipTarget(comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel)
    return comfy.sd.CLIP(target, state_dict=state, model_options=options)


def vae_of(folder):
    config, weights = read(folder, "vae")
    channels = config["block_out_channels"]
    described = {
        "double_z": True,
        "z_channels": 4,
        "resolution": 64,
        "in_channels": 3,
        "out_ch": 3,
        "ch": channels[0],
        "ch_mult": [width // channels[0] for width in channels],
        "num_res_blocks": config["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    return comfy.sd.VAE(sd=weights, config={"params": {"ddconfig": described, "embed_dim": 4}}, dtype=torch.float32)


class SDXL:
    """The base in a folder of the input folder, as a checkpoint loader gives it."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "run", ("MODEL", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"folder": ("STRING", {})}}

    def run(self, folder):
        base = Path(folder_paths.get_input_directory()) / folder
        return model_of(base), clip_of(base), vae_of(base)


class DenoiseSized:
    """The denoiser's answer with the MODEL's patches, by the host's own way to tell it a picture's size."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "probe", "run", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "file": ("STRING", {}), "out": ("STRING", {})}}

    def run(self, model, file, out):
        given = load_file(f"{folder_paths.get_input_directory()}/{file}")
        comfy.model_management.load_models_gpu([model], force_patch_weights=True)
        names = ("height", "width", "crop_h", "crop_w", "target_height", "target_width")
        answers = []
        for row, pooled in zip(given["time_ids"].tolist(), given["pooled"], strict=True):
            sizes = dict(zip(names, row, strict=True))
            answers.append(model.model.encode_adm(pooled_output=pooled[None], **sizes))
        told = {"timesteps": given["timesteps"], "context": given["text"], "y": torch.cat(answers)}
        answer = model.model.diffusion_model(given["noisy"], **told)
        save_file({"answer": answer.clone()}, f"{folder_paths.get_output_directory()}/{out}")
        return {"ui": {"text": [str(answer.dtype)]}}


NODE_CLASS_MAPPINGS = {"ProbeSDXL": SDXL, "ProbeDenoiseSized": DenoiseSized}
