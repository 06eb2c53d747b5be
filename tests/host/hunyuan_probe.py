"""A pack of nodes with a small HunyuanDiT in the host's own classes; a test puts it beside the pack."""

import json
from pathlib import Path

import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import comfy.text_encoders.hydit
import folder_paths
import torch
from safetensors.torch import load_file, save_file


def read(folder, part):
    (weights,) = (folder / part).glob("*.safetensors")
    return json.loads((folder / part / "config.json").read_text()), load_file(weights)


def model_of(folder):
    """As the host itself tells it by its keys and shapes; what it takes for given of the released models (and of 1.1,
    whose width is part of how it is told) is said for the small ones."""
    config, weights = read(folder, "transformer")[0], load_file(folder / "original.safetensors")
    described = comfy.model_detection.detect_unet_config(weights, "")
    assert described["image_model"] == "hydit" and described["hidden_size"] == config["hidden_size"]
    described |= {
        "num_heads": config["num_attention_heads"],
        "mlp_ratio": config["mlp_ratio"],
        "text_states_dim": config["cross_attention_dim"],
        "text_states_dim_t5": config["cross_attention_dim_t5"],
    }
    if config["use_style_cond_and_image_meta_size"]:
        described |= {"image_model": "hydit1", "size_cond": True, "use_style_cond": True}
    return patcher_of(described, weights)


def patcher_of(described, weights):
    architecture = comfy.model_detection.model_config_from_unet_config(described, weights)
    architecture.set_inference_dtype(torch.float32, None)
    model = architecture.get_model(weights, "")
    model.load_model_weights(dict(weights), "")
    place = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=place, offload_device=torch.device("cpu"))


def clip_of(folder):
    bert, t5 = read(folder, "text_encoder"), read(folder, "text_encoder_2")
    state = {f"hydit_clip.transformer.bert.{key}": tensor for key, tensor in bert[1].items()}
    state |= {f"mt5xl.transformer.{key}": tensor for key, tensor in t5[1].items()}
    options = {
        "dtype": torch.float32,
        "hydit_clip_model_config": bert[0],
        "mt5xl_model_config": t5[0] | {"model_type": "mt5", "dense_act_fn": "gelu_pytorch_tanh"},
    }
    pieces = torch.tensor(list((folder / "spiece.model").read_bytes()), dtype=torch.uint8)
    hydit = comfy.text_encoders.hydit
    target = comfy.supported_models_base.ClipTarget(hydit.HyditTokenizer, hydit.HyditModel)
    words = {"mt5xl.spiece_model": pieces}
    return comfy.sd.CLIP(target, state_dict=state, model_options=options, tokenizer_data=words)


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


class Hunyuan:
    """The base in a folder of the input folder, as a checkpoint loader gives it."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "run", ("MODEL", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"folder": ("STRING", {})}}

    def run(self, folder):
        base = Path(folder_paths.get_input_directory()) / folder
        return model_of(base), clip_of(base), vae_of(base)


class DenoiseHunyuan:
    """The denoiser's answer with the MODEL's patches, a picture after the other as the host's own nodes tell sizes."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "probe", "run", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "file": ("STRING", {}), "out": ("STRING", {})}}

    def run(self, model, file, out):
        given = load_file(f"{folder_paths.get_input_directory()}/{file}")
        comfy.model_management.load_models_gpu([model], force_patch_weights=True)
        answers = []
        for row in range(len(given["noisy"])):
            one = {name: tensor[row : row + 1] for name, tensor in given.items()}
            height, width, _, _, *target = given["time_ids"][row].tolist()
            told = model.model.extra_conds(
                cross_attn=one["text"],
                attention_mask=one["text_mask"],
                conditioning_mt5xl=one["text_t5"],
                attention_mask_mt5xl=one["text_t5_mask"],
                height=height,
                width=width,
                target_height=target[0],
                target_width=target[1],
                noise=one["noisy"],
                device=one["noisy"].device,
            )
            told = {name: told[name].cond for name in told}
            # The host's model writes its padding into what it is given.
            context = told.pop("c_crossattn").clone()
            answers.append(model.model.diffusion_model(one["noisy"], one["timesteps"].float(), context, **told))
        save_file({"answer": torch.cat(answers)}, f"{folder_paths.get_output_directory()}/{out}")
        return {"ui": {"text": [str(answers[0].dtype)]}}


NODE_CLASS_MAPPINGS = {
    "ProbeHunyuan": Hunyuan,
    "ProbeDenoiseHunyuan": DenoiseHunyuan,
}
