"""A pack of nodes that look into what a graph holds, or bend it; tests put it beside the pack. It runs in the host."""

import copy
import hashlib
import json

import comfy.model_management
import comfy.supported_models
import folder_paths
import torch
from safetensors.torch import load_file, save_file


class Probe:
    CATEGORY = "probe"
    FUNCTION = "run"
    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def IS_CHANGED(cls, **_):
        return float("nan")  # differs from itself: looked at anew by every prompt


def in_input(name):
    return f"{folder_paths.get_input_directory()}/{name}"


def in_output(name):
    return f"{folder_paths.get_output_directory()}/{name}"


def digest(module):
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


class Weights(Probe):
    """The digests of all weights, once the host has taken its own patches out of them."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "clip": ("CLIP",), "vae": ("VAE",)}}

    def run(self, model, clip, vae):
        comfy.model_management.unload_all_models()
        modules = {"model": model.model, "clip": clip.cond_stage_model, "vae": vae.first_stage_model}
        return {"ui": {"text": [json.dumps({name: digest(module) for name, module in modules.items()})]}}


class Denoise(Probe):
    """The denoiser's answer with the MODEL's patches, from tensors in a file of the input folder to one of output."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "file": ("STRING", {})}}

    def run(self, model, file):
        given = load_file(in_input(file))
        comfy.model_management.load_models_gpu([model], force_patch_weights=True)
        answer = model.model.diffusion_model(given["noisy"], timesteps=given["timesteps"], context=given["text"])
        save_file({"answer": answer.clone()}, in_output(file))
        return {"ui": {"text": [str(answer.dtype)]}}


class Conditioning(Probe):
    """A CONDITIONING's text states into a file of the output folder."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",), "file": ("STRING", {})}}

    def run(self, conditioning, file):
        save_file({"text": conditioning[0][0].float().clone()}, in_output(file))
        return {"ui": {"text": [file]}}


class Pictures(Probe):
    """An IMAGE's numbers into a file of the output folder."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"images": ("IMAGE",), "file": ("STRING", {})}}

    def run(self, images, file):
        save_file({"images": images.clone().contiguous()}, in_output(file))
        return {"ui": {"text": [file]}}


class Strings:
    """A STRING list."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_IS_LIST = "probe", "run", ("STRING",), (True,)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"json": ("STRING", {})}}

    def run(self, json):
        return (globals()["json"].loads(json),)


class AnyString(str):
    """A type that may be linked to every input."""

    def __ne__(self, other):
        return False


class Name:
    """A name that no list was asked about."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "run", (AnyString("*"),)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": ("STRING", {})}}

    def run(self, name):
        return (name,)


class PlainLora:
    """A LORA_MODEL as the host's own node makes it: a dict of tensors; of a file in the input folder."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "run", ("LORA_MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"file": ("STRING", {})}}

    def run(self, file):
        return (load_file(in_input(file)),)


class Bent:
    """A MODEL that cannot be trained."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "run", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "how": (["architecture", "replaced"],)}}

    def run(self, model, how):
        bent = model.clone()
        if how == "architecture":
            bent.model = copy.copy(bent.model)
            bent.model.model_config = comfy.supported_models.SDXLRefiner(bent.model.model_config.unet_config)
        else:
            bent.add_object_patch("diffusion_model.out", torch.nn.Identity())
        return (bent,)


class WideVae:
    """A VAE of 16 channels, as newer models have."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "run", ("VAE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"vae": ("VAE",)}}

    def run(self, vae):
        wide = copy.copy(vae)
        wide.encode = lambda pixels: vae.encode(pixels).repeat(1, 4, 1, 1)
        return (wide,)


NODE_CLASS_MAPPINGS = {
    f"Probe{kind.__name__}": kind
    for kind in (Weights, Denoise, Conditioning, Pictures, Strings, Name, PlainLora, Bent, WideVae)
}
