"""A pack of one node that asks a denoiser what it answers to a CONDITIONING; a test puts it beside the pack."""

import comfy.model_management
import folder_paths
import torch
from safetensors.torch import load_file, save_file


class Conditioned:
    """The denoiser's answer with the MODEL's patches, told of the prompt as the host's samplers tell it: to tensors in
    a file of the input folder, into one of the output folder, for each entry of the CONDITIONING."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "probe", "run", (), True

    @classmethod
    def INPUT_TYPES(cls):
        strings = {name: ("STRING", {}) for name in ("file", "out")}
        return {"required": {"model": ("MODEL",), "conditioning": ("CONDITIONING",), **strings}}

    @classmethod
    def IS_CHANGED(cls, **_):
        return float("nan")  # differs from itself: looked at anew by every prompt

    def run(self, model, conditioning, file, out):
        given = load_file(f"{folder_paths.get_input_directory()}/{file}")
        comfy.model_management.load_models_gpu([model], force_patch_weights=True)
        noisy, side, answers = given["noisy"], given["noisy"].shape[-1] * 8, {}
        for number, (states, extras) in enumerate(conditioning):
            told = {"width": side, "height": side, **extras, "cross_attn": states}
            conds = model.model.extra_conds(noise=noisy, device=torch.device("cpu"), **told)
            conds = {name: one.process_cond(batch_size=len(noisy)).cond for name, one in conds.items()}
            context = conds.pop("c_crossattn")
            options = {"transformer_options": {}}
            answer = model.model.diffusion_model(noisy, given["times"], context=context, **options, **conds)
            answers[f"answer-{number}"] = answer.float().clone()
        save_file(answers, f"{folder_paths.get_output_directory()}/{out}")
        return {"ui": {"text": [str([extras.get("start_percent") for _, extras in conditioning])]}}


NODE_CLASS_MAPPINGS = {"ProbeConditioned": Conditioned}
