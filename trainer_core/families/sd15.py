"""Stable Diffusion 1: UNet2DConditionModel with CLIP-L and an 8× VAE, and every model of its shape (scion-tiny too)."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..errors import BadInput
from . import sd_checkpoint
from .base import Conditioning, Encoder, Family, Model
from .clip_vae import ClipVaeEncoder, stack_windows
from .clip_vocabulary.tokenizer import clip_tokenizer
from .diffusion import Diffusion
from .identities import hash_of, sampled_hash, unusual_settings
from .sources import Source
from .weights import State, assemble, read_folder, read_weights

SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
"""Stable Diffusion 1's noise schedule, for checkpoints that are a single file and bring no configuration."""

VOCABULARIES = (("vocab.json", "merges.txt"), ("tokenizer.json",))
"""Files, either of which sets make a tokenizer."""

ATTENTION = r"(.*\.)?attn\d\.(to_q|to_k|to_v|to_out\.0)"


class StableDiffusion1(Family):
    name = "sd15"
    component = "unet"
    base_version = "sd_v1"
    architecture = "stable-diffusion-v1"
    default_dialect = "kohya"
    schedule = SCHEDULE
    latent_channels = 4
    conditioned_on = ("text",)
    targets = {
        "attention": ATTENTION,
        "attention+ff": rf"({ATTENTION}|(.*\.)?ff\.net\.(0\.proj|2))",
        "all": r".*",
    }

    def load(self, source: Source, dtype: torch.dtype) -> Model:
        return (self._from_file if source.is_file else self._from_folder)(source, dtype)

    def from_original(
        self, weights: State, encoder: Encoder, diffusion: Diffusion, resolution: int | None, name: str
    ) -> Model:
        config, unet = sd_checkpoint.unet_of(weights, f"the UNet of {name}")
        if resolution:
            config["sample_size"] = resolution // encoder.pixel_step
        return self._over(unet, config, None, encoder, diffusion, name, name)

    def stack(self, entries: list[Conditioning], empty: Conditioning) -> Conditioning:
        return stack_windows(entries, empty)

    def predict(
        self, denoiser: nn.Module, noisy: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        return denoiser(noisy, timesteps, encoder_hidden_states=conditioning["text"], return_dict=False)[0]

    def _from_folder(self, source: Source, dtype: torch.dtype) -> Model:
        folder = source.path
        wanted = ("unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json")
        missing = [name for name in wanted if not (folder / name).exists()]
        if not (folder / "tokenizer").is_dir():
            missing.append("tokenizer")
        elif not any(all((folder / "tokenizer" / name).is_file() for name in names) for names in VOCABULARIES):
            missing.append(f"tokenizer/{' or '.join(' + '.join(names) for names in VOCABULARIES)}")
        if missing:
            raise BadInput(f"base: {folder} lacks {', '.join(missing)}; a Stable Diffusion 1 folder has them all")
        tokenizer = _read_tokenizer(folder / "tokenizer")
        states = {part: read_folder(folder / part) for part in ("unet", "vae", "text_encoder")}
        configs = {name.split("/")[0]: _read_config(folder / name) for name in wanted}
        return self._model(source, states, configs, tokenizer, dtype)

    def _from_file(self, source: Source, dtype: torch.dtype) -> Model:
        states, configs, marks = sd_checkpoint.split(read_weights(source.path), source.path)
        configs["scheduler"] = SCHEDULE | marks
        return self._model(source, states, configs, clip_tokenizer(), dtype)

    def _model(
        self, source: Source, states: dict[str, State], configs: dict[str, dict], tokenizer, dtype: torch.dtype
    ) -> Model:
        def part(module_class, config, name, precision):
            return assemble(module_class, config, states[name], precision, f"the {name} of {source.path}")

        states["vae"] = sd_checkpoint.current_vae_names(states["vae"])
        vae = part(AutoencoderKL, configs["vae"], "vae", torch.float32)
        text_config = CLIPTextConfig.from_dict(configs["text_encoder"])
        states["text_encoder"] = sd_checkpoint.fit_prefix(states["text_encoder"], text_config)
        text_encoder = part(CLIPTextModel, text_config, "text_encoder", torch.float32)
        _check_tokenizer(tokenizer, text_config, source)
        encoder = ClipVaeEncoder(vae, text_encoder, tokenizer)
        try:
            diffusion = Diffusion(configs["scheduler"])
        except ValueError as error:
            raise BadInput(f"base: {source.path}: {error}") from None
        return self._over(states["unet"], configs["unet"], dtype, encoder, diffusion, source.name, str(source.path))

    def _over(
        self,
        weights: State,
        config: dict,
        dtype: torch.dtype | None,
        encoder: Encoder,
        diffusion: Diffusion,
        name: str,
        where: str,
    ) -> Model:
        """The base over its UNet's weights in diffusers' names."""
        unet = assemble(UNet2DConditionModel, config, weights, dtype, f"the unet of {where}")
        if unet.config.in_channels != self.latent_channels:
            raise BadInput(
                f"base: the UNet of {where} takes {unet.config.in_channels} channels instead of "
                f"{self.latent_channels}: it is made for inpainting or editing, which is not trained here"
            )
        side = unet.config.sample_size * encoder.pixel_step
        settings = unusual_settings(UNet2DConditionModel, unet.config)
        identity = hash_of(sampled_hash(weights), settings, diffusion.identity, encoder.identity)
        return Model(self, unet, encoder, diffusion, side, identity, name)


def _read_tokenizer(folder: Path) -> CLIPTokenizer:
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises nothing more exact
        raise BadInput(
            f"base: {folder} cannot be read as CLIP's tokenizer ({error}); is the download complete?"
        ) from None


def _check_tokenizer(tokenizer: CLIPTokenizer, text_config: CLIPTextConfig, source: Source) -> None:
    """Every id needs its embedding. Tables may be padded to a round length, but are never twice as long: that is the
    tokenizer of another model, whose ids mean other words.

    A tokenizer that does not say how long its windows are takes the text encoder's length.
    """
    tokens, embeddings = len(tokenizer), text_config.vocab_size
    if not embeddings < 2 * tokens <= 2 * embeddings:
        raise BadInput(
            f"base: the tokenizer of {source.path} has {tokens} tokens and its text encoder {embeddings} embeddings; "
            "they do not belong together"
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, text_config.max_position_embeddings)


def _read_config(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"base: {path} is not readable JSON ({error})") from None
