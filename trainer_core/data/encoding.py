"""Encoding one picture or one caption, and what of an encoder is used for it."""

from typing import Protocol

import torch

from ..errors import BadInput
from . import masks
from .cache import Tensors, own
from .items import Item, shown
from .pictures import open_picture
from .views import View, render_view

Conditioning = dict[str, torch.Tensor]
Rendered = tuple[torch.Tensor, torch.Tensor | None]
"""The pixels of a view, float32 [H, W, 3], and its mask, [H, W]; None where all of it counts."""


class Encoder(Protocol):
    """What of a family's encoder is used here."""

    identity: str

    def encode_pictures(self, pixels: torch.Tensor) -> torch.Tensor: ...
    def encode_captions(self, captions: list[str]) -> list[Conditioning]: ...
    def stack(self, entries: list[Conditioning]) -> Conditioning: ...
    def tokens(self, captions: list[str]) -> list[Conditioning]: ...
    def stack_tokens(self, entries: list[Conditioning]) -> Conditioning: ...


class NotFinite(BadInput):
    """An encoder made numbers that no training survives."""


def rendered(item: Item, view: View) -> Rendered:
    """
    Raises:
        BadInput: picture or mask can no longer be read, or are others than when they were scanned.
    """
    return render_view(open_picture(item), view), masks.render_mask(item, view)


def encode_picture(encoder: Encoder, item: Item, given: Rendered) -> Tensors:
    """ "latents", float32 [C, h, w], and where there is a mask "mask", [h, w] in 0..1.

    Raises:
        NotFinite: the latents are not.
    """
    pixels, mask = given
    with torch.no_grad():
        latents = encoder.encode_pictures(pixels[None])[0].float()
    if not torch.isfinite(latents).all():
        raise NotFinite(
            f"{shown(item.key)}: its latents are not finite (NaN or infinity). The VAE overflows in half precision: "
            "run it in float32 (ComfyUI: --fp32-vae), or use a VAE that is made for fp16."
        )
    return {"latents": own(latents), **({} if mask is None else {"mask": own(masks.at_latents(mask, latents))})}


def encode_text(encoder: Encoder, name: str, text: str) -> Tensors:
    """The conditioning of a caption, without a batch axis.

    Raises:
        NotFinite: it is not.
    """
    with torch.no_grad():
        (conditioning,) = encoder.encode_captions([text])
    broken = [key for key, tensor in conditioning.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise NotFinite(
            f"{shown(name)}: the conditioning of its caption is not finite ({', '.join(broken)}; caption: "
            f"{text[:60]!r}). Run the text encoder in bfloat16 or float32."
        )
    return {key: own(tensor) for key, tensor in conditioning.items()}
