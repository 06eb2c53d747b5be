"""HunyuanDiT 1.1 and 1.2: a diffusion transformer that reads Chinese and English through BERT and mT5."""

from contextlib import nullcontext

import torch
from diffusers import AutoencoderKL, HunyuanDiT2DModel
from torch import nn

from ..errors import BadInput
from . import bert_text, hunyuan_file, masked_slots, t5_text
from .base import Conditioning, Encoder, Model
from .bert_t5_vae import BertT5VaeEncoder
from .diffusion import Diffusion
from .folder import Parts
from .hunyuan_blocks import let_recompute
from .hunyuan_checkpoint import transformer_of
from .hunyuan_rotary import rotary
from .latent import LatentFamily
from .process import Process
from .sources import Source
from .stacking import side_by_side
from .unet import ATTENTION
from .weights import State

TOKENS, TOKENS_T5 = 77, 256
"""Of a caption, for BERT and for mT5; the transformer has learnt something to put in the place of each that is padding.
"""
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.018,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "steps_offset": 1,
    "prediction_type": "v_prediction",
}
"""Of version 1.2; a folder's own configuration counts."""
OLDER = SCHEDULE | {"beta_end": 0.03}
"""Of the versions up to 1.1."""


class HunyuanDiT(LatentFamily):
    name = "hunyuan_dit"
    title = "HunyuanDiT"
    in_files = "HunyuanDiT"
    pipeline = "HunyuanDiTPipeline"
    comfyui = ("HunyuanDiT", "HunyuanDiT1")
    captions = "Chinese BERT (77 tokens) and mT5-XL (256) with their masks; Chinese and English"
    base_version = "hunyuan_dit"
    architecture = "hunyuan-dit"
    component = "transformer"
    denoiser_class = HunyuanDiT2DModel
    default_dialect = "kohya-ldm"
    schedule = SCHEDULE
    schedules = (SCHEDULE, OLDER)
    latent_channels = 4
    patch = 2
    conditioned_on = ("text", "text_mask", "text_t5", "text_t5_mask")
    # Version 1.2 is not told sizes, and passes over them.
    sized = True
    targets = {
        "attention": ATTENTION,
        "attention+ff": rf"({ATTENTION}|(.*\.)?ff\.net\.(0\.proj|2))",
        # The pooler's weights are used without calling its layers, so that nothing put into these would learn.
        "all": r"(?!time_extra_emb\.pooler\.).*",
    }
    text_parts = ("text_encoder", "text_encoder_2")
    tokenizers = {"tokenizer": bert_text.VOCABULARIES, "tokenizer_2": t5_text.VOCABULARIES}

    def from_original(
        self, weights: State, encoder: Encoder, process: Process, resolution: int | None, name: str
    ) -> Model:
        config, transformer = transformer_of(weights, f"the transformer of {name}")
        if resolution:
            config["sample_size"] = resolution // encoder.pixel_step
        return self._over(transformer, config, None, encoder, process, name, name)

    def stack(self, entries: list[Conditioning], empty: Conditioning) -> Conditioning:
        return side_by_side(entries)

    def predict(
        self, denoiser: nn.Module, noisy: torch.Tensor, times: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """What the first half of the answer's channels predict; the other half is the variance, which nobody uses."""
        height, width = (side // self.patch for side in noisy.shape[-2:])
        original, cut, target = conditioning["time_ids"].reshape(-1, 3, 2).unbind(1)
        # The model computes in the precision of the times, and bf16 would round them.
        half = noisy.dtype != torch.float32
        with torch.autocast(noisy.device.type, noisy.dtype) if half else nullcontext():
            answer = denoiser(
                noisy,
                times.float(),
                encoder_hidden_states=conditioning["text"],
                text_embedding_mask=conditioning["text_mask"],
                encoder_hidden_states_t5=conditioning["text_t5"],
                text_embedding_mask_t5=conditioning["text_t5_mask"],
                image_meta_size=torch.cat([original, target, cut], dim=1),
                style=torch.zeros(len(noisy), dtype=torch.long, device=noisy.device),
                image_rotary_emb=rotary(_head(denoiser), height, width, noisy.device),
                return_dict=False,
            )[0]
        return answer[:, : self.latent_channels]

    def text_width(self, denoiser: nn.Module) -> int:
        """Of mT5's, among which vectors have places."""
        return denoiser.config.cross_attention_dim_t5

    def with_tokens(self, conditioning: Conditioning, vectors: torch.Tensor) -> Conditioning:
        """The number of tokens is fixed: vectors take places of mT5's padding, and are unmasked."""
        text, mask = masked_slots.filled(conditioning["text_t5"], conditioning["text_t5_mask"], vectors)
        return conditioning | {"text_t5": text, "text_t5_mask": mask}

    def _process(self, config: dict) -> Diffusion:
        return Diffusion(config)

    def _check(self, denoiser: nn.Module, where: str) -> None:
        config = denoiser.config
        if (config.in_channels, config.patch_size) != (self.latent_channels, self.patch):
            raise BadInput(
                f"base: the transformer of {where} takes {config.in_channels} channels in patches of "
                f"{config.patch_size} instead of {self.latent_channels} in patches of {self.patch}, which is not "
                "trained here"
            )
        if (config.text_len, config.text_len_t5) != (TOKENS, TOKENS_T5):
            raise BadInput(
                f"base: the transformer of {where} reads {config.text_len} and {config.text_len_t5} tokens instead of "
                f"{TOKENS} and {TOKENS_T5}, which is not trained here"
            )

    def _over(self, *parts, **more) -> Model:
        model = super()._over(*parts, **more)
        let_recompute(model.denoiser)
        return model

    def _read_file(self, source: Source) -> Parts:
        return hunyuan_file.read(source.path, SCHEDULE, OLDER)

    def _encoder(self, vae: AutoencoderKL, parts: Parts, source: Source) -> BertT5VaeEncoder:
        if source.is_file:
            tokenizer, words = hunyuan_file.tokenizers(parts, source.path)
        else:
            tokenizer = bert_text.read_tokenizer(source.path / "tokenizer")
            words = t5_text.read_words(source.path / "tokenizer_2")
        states, configs, where = parts.states, parts.configs, source.path
        bert = bert_text.bert_text(
            states["text_encoder"],
            configs["text_encoder"],
            tokenizer,
            TOKENS,
            self.title,
            f"the text_encoder of {where}",
        )
        t5 = t5_text.t5_text(
            states["text_encoder_2"],
            configs["text_encoder_2"],
            words,
            TOKENS_T5,
            self.title,
            f"the text_encoder_2 of {where}",
            masked=True,
        )
        return BertT5VaeEncoder(vae, bert, t5)


def _head(denoiser: nn.Module) -> int:
    """Channels of an attention head, also of a denoiser that accelerate has wrapped."""
    return getattr(denoiser, "module", denoiser).config.attention_head_dim
