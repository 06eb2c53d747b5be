"""The host's CLIP and VAE behind the engine's encoder: what the graph has wired encodes captions and pictures."""

import re
import threading
from collections.abc import Callable
from typing import Any

import comfy.model_management
import torch

from ...trainer_core.errors import BadInput
from ...trainer_core.families.base import Conditioning, Family
from ...trainer_core.families.identities import hash_of
from . import memory
from .originals import identity

PROBE_CAPTION = "a red ball on green grass, evening light, 35mm photograph"
PROBE_SIDE = 64
PROJECTIONS = 8
EMBEDDING = re.compile(r"(^|\s)embedding:")
"""Where the host's tokenizer looks for a textual inversion."""


class HostEncoder:
    """Implements `families.base.Encoder` with the CLIP and the VAE of a graph.

    The host decides where their weights are; they are called in inference mode, as it calls them.
    """

    device = torch.device("cpu")
    """Where they are when they are not asked for: off the device."""
    text_encoders: dict[str, torch.nn.Module] = {}
    """The host's own are not trained."""

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
                f"{' and '.join(missing)}: not wired, or not in the checkpoint. A MODEL is trained with the CLIP and "
                "VAE of its checkpoint: wire them to Train LoRA (a TRAINING_MODEL brings its own)"
            )
        self.clip, self.vae, self._base, self._family = clip, vae, base, family
        # Prefetching threads encode while the run previews: the host's models are not made for two at once.
        self._alone = threading.RLock()
        self.pixel_step = vae.spacial_compression_encode()
        self._empty: Conditioning | None = None
        self.identity = self._identified()

    def to(self, device: torch.device | str) -> "HostEncoder":
        if torch.device(device).type == "cpu":
            with self._alone:
                memory.release()
        return self

    def encode_pictures(self, pixels: torch.Tensor) -> torch.Tensor:
        return memory.own(self._whole(lambda: self._base.process_latent_in(self.vae.encode(pixels))))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return memory.own(self._whole(lambda: self.vae.decode(self._base.process_latent_out(latents)))).clamp(0, 1)

    def encode_captions(self, captions: list[str]) -> list[Conditioning]:
        if self._empty is None:
            self._empty = self._encoded("")
        return [self._encoded(caption) for caption in captions]

    def forget_text(self) -> None:
        """They are the host's, which frees them itself."""

    def stack(self, entries: list[Conditioning]) -> Conditioning:
        if self._empty is None:
            self.encode_captions([])
        return self._family.stack(entries, self._empty)

    def _encoded(self, caption: str) -> Conditioning:
        if EMBEDDING.search(caption):
            raise BadInput(
                f"caption {caption[:80]!r}: holds 'embedding:', by which the host would put a textual inversion in its "
                "place; leave it out"
            )
        # Captions are no prompts: their parentheses are parentheses, and weigh nothing.
        tokens = self.clip.tokenize(caption, disable_weights=True)
        (text, extras), *_ = self._whole(lambda: self.clip.encode_from_tokens_scheduled(tokens, show_pbar=False))
        told = {"text": text, "pooled": extras.get("pooled_output")}
        if any(told[name] is None for name in self._family.conditioned_on):
            raise BadInput("clip: gives no pooled state, which the model takes; wire the CLIP of its checkpoint")
        return {name: memory.own(told[name][0]) for name in self._family.conditioned_on}

    def _whole(self, call: Callable[[], Any]) -> Any:
        """What a part of the host answers, called as the host calls it.

        Its layers end in the midst of the work when the user cancels. A run that is torn there could not come to its
        own end, so the work, one picture or caption, is done once more and the cancellation waits until the run looks
        for it. Who cancels again meanwhile wants it to end here.
        """
        with self._alone, torch.inference_mode():
            try:
                return call()
            except comfy.model_management.InterruptProcessingException:  # raising it has taken the request back
                try:
                    return call()
                finally:
                    comfy.model_management.interrupt_current_processing(True)

    def _identified(self) -> str:
        """By weights and patches, clip-skip included; a part whose weights are not plain numbers by what it makes of a
        probe, whose last bits may differ from one machine to the next."""
        latents, told = self._probed()
        self._check(latents, told)
        text = identity(self.clip.patcher) or {name: _signature(tensor) for name, tensor in told.items()}
        settings = [self.clip.layer_idx, sorted(self.clip.tokenizer_options.items())]
        return hash_of(text, settings, identity(self.vae.patcher) or _signature(latents))

    def _probed(self) -> tuple[torch.Tensor, Conditioning]:
        """What the encoders make of a picture and a caption."""
        ramp = torch.linspace(0, 1, PROBE_SIDE)
        across, down = ramp.expand(PROBE_SIDE, -1), ramp[:, None].expand(-1, PROBE_SIDE)
        picture = torch.stack([across, down, across.flip(1) * down], -1)
        return self.encode_pictures(picture[None]), self._encoded(PROBE_CAPTION)

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


def _signature(tensor: torch.Tensor) -> list[float]:
    """A few rounded projections: the last bits, in which processors and numbers of threads differ, do not show."""
    flat = tensor.double().flatten()
    signs = torch.randint(0, 2, (PROJECTIONS, flat.numel()), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    spread = float(flat.square().mean().sqrt()) or 1.0
    projected = (signs.double() @ flat) / (spread * flat.numel() ** 0.5)
    return [float(f"{spread:.4g}"), *(round(float(value), 3) for value in projected)]
