"""The host's CLIP and VAE behind the engine's encoder: what the graph has wired encodes captions and pictures."""

from collections.abc import Callable
from typing import Any

import comfy.model_management
import torch

from ...trainer_core.errors import BadInput
from ...trainer_core.families.base import Conditioning, Family
from ...trainer_core.families.identities import hash_of
from . import memory

PROBE_CAPTION = "a red ball on green grass, evening light, 35mm photograph"
PROBE_SIDE = 64
PROJECTIONS = 8


class HostEncoder:
    """Implements `families.base.Encoder` with the CLIP and the VAE of a graph.

    The host decides where their weights are; they are called in inference mode, as it calls them.
    """

    device = torch.device("cpu")
    """Where they are when they are not asked for: off the device."""

    def __init__(self, clip, vae, base, family: Family):
        """
        Args:
            clip, vae: comfy.sd.CLIP and comfy.sd.VAE.
            base: comfy.model_base.BaseModel, which knows how latents are scaled.

        Raises:
            BadInput: CLIP or VAE are missing, or of another family than the model.
        """
        missing = [name for name, part in (("clip", clip), ("vae", vae)) if part is None]
        if missing:
            raise BadInput(
                f"{' and '.join(missing)}: not wired. A MODEL is trained with the CLIP and VAE of its checkpoint: wire "
                "them to TrainLoRA (a TRAINING_MODEL brings its own)"
            )
        self.clip, self.vae, self._base, self._family = clip, vae, base, family
        self.pixel_step = vae.spacial_compression_encode()
        self._empty: Conditioning | None = None
        self.identity = self._probed()

    def to(self, device: torch.device | str) -> "HostEncoder":
        if torch.device(device).type == "cpu":
            memory.release()
        return self

    def encode_pictures(self, pixels: torch.Tensor) -> torch.Tensor:
        return memory.own(_whole(lambda: self._base.process_latent_in(self.vae.encode(pixels))))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return memory.own(_whole(lambda: self.vae.decode(self._base.process_latent_out(latents)))).clamp(0, 1)

    def encode_captions(self, captions: list[str]) -> list[Conditioning]:
        if self._empty is None:
            self._empty = self._encoded("")
        return [self._encoded(caption) for caption in captions]

    def stack(self, entries: list[Conditioning]) -> Conditioning:
        if self._empty is None:
            self.encode_captions([])
        return self._family.stack(entries, self._empty)

    def _encoded(self, caption: str) -> Conditioning:
        # Captions are no prompts: their parentheses are parentheses, and weigh nothing.
        tokens = self.clip.tokenize(caption, disable_weights=True)
        (text, extras), *_ = _whole(lambda: self.clip.encode_from_tokens_scheduled(tokens, show_pbar=False))
        told = {"text": text[0], "pooled": extras.get("pooled_output")}
        return {name: memory.own(told[name]) for name in self._family.conditioned_on}

    def _probed(self) -> str:
        """What the encoders make of a caption and a picture: clip-skip, LoRAs and replaced parts included."""
        ramp = torch.linspace(0, 1, PROBE_SIDE)
        across, down = ramp.expand(PROBE_SIDE, -1), ramp[:, None].expand(-1, PROBE_SIDE)
        picture = torch.stack([across, down, across.flip(1) * down], -1)
        latents, told = self.encode_pictures(picture[None]), self._encoded(PROBE_CAPTION)
        self._check(latents, told)
        return hash_of(_signature(latents), {name: _signature(tensor) for name, tensor in told.items()})

    def _check(self, latents: torch.Tensor, told: Conditioning) -> None:
        """That CLIP and VAE are those of the model's kind, as far as sizes tell."""
        channels, wanted = latents.shape[1], self._family.latent_channels
        if channels != wanted:
            raise BadInput(f"vae: gives {channels} channels, the model takes {wanted}; wire the VAE of its checkpoint")
        width, wanted = told["text"].shape[-1], self._base.model_config.unet_config.get("context_dim")
        if wanted is not None and width != wanted:
            raise BadInput(
                f"clip: gives text states of width {width}, the model takes {wanted}; wire the CLIP of its checkpoint"
            )


def _whole(call: Callable[[], Any]) -> Any:
    """What a part of the host answers, called as the host calls it.

    Its layers end in the midst of the work when the user cancels. A run that is torn there could not come to its own
    end, so the work, one picture or caption, is done again and the cancellation waits until the run looks for it.
    """
    cancelled = False
    while True:
        try:
            with torch.inference_mode():
                answer = call()
            break
        except comfy.model_management.InterruptProcessingException:
            cancelled = True  # raising it has taken the request back
    if cancelled:
        comfy.model_management.interrupt_current_processing(True)
    return answer


def _signature(tensor: torch.Tensor) -> list[float]:
    """A few rounded projections: the last bits, in which processors and numbers of threads differ, do not show."""
    flat = tensor.double().flatten()
    signs = torch.randint(0, 2, (PROJECTIONS, flat.numel()), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    spread = float(flat.square().mean().sqrt()) or 1.0
    projected = (signs.double() @ flat) / (spread * flat.numel() ** 0.5)
    return [float(f"{spread:.4g}"), *(round(float(value), 3) for value in projected)]
