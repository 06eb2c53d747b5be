"""The built-in base as MODEL, CLIP and VAE of the host's own classes, so that KSampler draws with it."""

import json

import comfy.clip_model
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from comfy import sd1_clip
from safetensors.torch import load_file

from ...trainer_core.assets import SCION_TINY


def scion_tiny() -> tuple:
    """MODEL, CLIP and VAE: what `CheckpointLoaderSimple` gives for a checkpoint file."""
    return _model(), _clip(), _vae()


def _read(part: str) -> tuple[dict, dict[str, torch.Tensor]]:
    (weights,) = (SCION_TINY / part).glob("*.safetensors")
    return json.loads((SCION_TINY / part / "config.json").read_text(encoding="utf-8")), load_file(weights)


def _model(disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """
    Args:
        disable_dynamic: part of the host's call of a loader; this model is never streamed.
    """
    config, weights = _read("unet")
    channels, blocks = config["block_out_channels"], config["layers_per_block"]
    levels = len(channels)
    described = {
        "use_checkpoint": False,
        "image_size": 32,
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "use_spatial_transformer": True,
        "legacy": False,
        "adm_in_channels": None,
        "dtype": torch.float32,
        "model_channels": channels[0],
        "channel_mult": [width // channels[0] for width in channels],
        "num_res_blocks": [blocks] * levels,
        "transformer_depth": [1] * blocks * levels,
        "transformer_depth_output": [1] * (blocks + 1) * levels,
        "transformer_depth_middle": 1,
        "use_linear_in_transformer": False,
        "context_dim": config["cross_attention_dim"],
        "num_heads": config["attention_head_dim"],
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
    }
    architecture = comfy.supported_models.SD15(described)
    architecture.set_inference_dtype(torch.float32, None)
    names = comfy.utils.unet_to_diffusers(architecture.unet_config)
    renamed = {names[name]: tensor for name, tensor in weights.items()}
    offload = comfy.model_management.unet_offload_device()
    model = architecture.get_model(renamed, "", device=offload)
    model.load_model_weights(renamed, "")
    patcher = comfy.model_patcher.ModelPatcher(
        model, load_device=comfy.model_management.get_torch_device(), offload_device=offload
    )
    # By this the host's own training node gets a copy with weights of its own.
    patcher.cached_patcher_init = (_model, ())
    return patcher


def _vae() -> comfy.sd.VAE:
    config, weights = _read("vae")
    channels = config["block_out_channels"]
    described = {
        "double_z": True,
        "z_channels": config["latent_channels"],
        "resolution": config["sample_size"],
        "in_channels": config["in_channels"],
        "out_ch": config["out_channels"],
        "ch": channels[0],
        "ch_mult": [width // channels[0] for width in channels],
        "num_res_blocks": config["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    config = {"params": {"ddconfig": described, "embed_dim": config["latent_channels"]}}
    return comfy.sd.VAE(sd=weights, config=config, dtype=torch.float32)


def _clip() -> comfy.sd.CLIP:
    config, weights = _read("text_encoder")
    width = config["hidden_size"]
    special = {"start": config["bos_token_id"], "end": config["eos_token_id"], "pad": config["pad_token_id"]}

    class Text(comfy.clip_model.CLIPTextModel):
        def __init__(self, described, dtype, device, operations):
            super().__init__(described, dtype, device, operations)
            # The host's own has CLIP's 49,408 rows, whatever the configuration says.
            rows = operations.Embedding(described["vocab_size"], width, dtype=dtype, device=device)
            self.text_model.embeddings.token_embedding = rows

    class Encoder(sd1_clip.SDClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            super().__init__(
                device=device,
                dtype=dtype,
                model_options=model_options or {},
                return_projected_pooled=False,
                textmodel_json_config=dict(config),
                model_class=Text,
                special_tokens=special,
            )

    class Model(sd1_clip.SD1ClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            super().__init__(device=device, dtype=dtype, model_options=model_options or {}, clip_model=Encoder)

    class Words(sd1_clip.SDTokenizer):
        def __init__(self, embedding_directory=None, tokenizer_data=None):
            super().__init__(
                tokenizer_path=str(SCION_TINY / "tokenizer"),
                embedding_directory=embedding_directory,
                embedding_size=width,
                tokenizer_data=tokenizer_data or {},
            )

    class Tokenizer(sd1_clip.SD1Tokenizer):
        def __init__(self, embedding_directory=None, tokenizer_data=None):
            super().__init__(embedding_directory, tokenizer_data or {}, tokenizer=Words)

    state = {f"clip_l.transformer.text_model.{key.removeprefix('text_model.')}": v for key, v in weights.items()}
    state["clip_l.transformer.text_projection.weight"] = torch.eye(width)
    state["clip_l.logit_scale"] = torch.tensor(4.6055)
    target = comfy.supported_models_base.ClipTarget(Tokenizer, Model)
    # In the host's usual half precision text states are 2.5e-3 off; this encoder is too small for that to pay.
    known = folder_paths.get_folder_paths("embeddings")
    return comfy.sd.CLIP(target, known, state_dict=state, model_options={"dtype": torch.float32})
