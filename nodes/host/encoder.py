"""The host's CLIP and VAE behind the engine's encoder: what the graph has wired encodes captions and pictures."""

import copy
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

import comfy.model_management
import comfy.sd1_clip
import torch
from torch import nn

from ...trainer_core.errors import BadInput
from ...trainer_core.families import clip_tokens
from ...trainer_core.families.base import Conditioning, Family, Tokens
from ...trainer_core.families.identities import hash_of
from ...trainer_core.families.new_words import NO_WORDS
from . import hunyuan, memory
from .originals import identity
from .text_encoders import letters_of
from .words import applied_to, framed, ids_of

PROBE_CAPTION = "a red ball on green grass, evening light, 35mm photograph"
PROBE_SIDE = 64
PROJECTIONS = 8
WINDOW = 77
"""Tokens that CLIP takes at once."""
NEAR = 1e-3
"""So much of the largest number two computations of the same may differ by."""
EXTRAS = {
    "pooled": ("pooled_output", "pooled state"),
    "text_mask": ("attention_mask", "mask of words"),
    "text_t5": ("conditioning_mt5xl", "states of mT5"),
    "text_t5_mask": ("attention_mask_mt5xl", "mask of mT5's words"),
}
"""What captions are beside their text states: the host's key for it, and what it is."""
EMBEDDING = re.compile(r"(^|\s)embedding:")
"""Where the host's tokenizer looks for a textual inversion."""


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
                f"{' and '.join(missing)}: not wired, or not in the checkpoint. A MODEL is trained with the CLIP and "
                "VAE of its checkpoint: wire them to Train LoRA (a TRAINING_MODEL brings its own)"
            )
        self.clip, self.vae, self._base, self._family = clip, vae, base, family
        # Prefetching threads encode while the run previews: the host's models are not made for two at once.
        self._alone = threading.RLock()
        self.pixel_step = vae.spacial_compression_encode()
        self._empty: Conditioning | None = None
        self.text_encoders: dict[str, nn.Module] = {}
        self.words = NO_WORDS
        self.identity = self._identified()

    def to(self, device: torch.device | str, text: bool = True) -> "HostEncoder":
        if torch.device(device).type == "cpu":
            with self._alone:
                memory.release()
        return self

    def set_text_precision(self, precision: str) -> None:
        if precision != "auto":
            raise BadInput(
                f"run.text_encoder_precision: {precision}, but a CLIP of the graph computes as its loader made it; set "
                "it to auto, and choose the precision in the CLIP's loader, or train a TRAINING_MODEL"
            )

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

    def let_learn(self, text_encoders: dict[str, nn.Module]) -> None:
        """Takes modules over the CLIP's weights, which answer as it does.

        Raises:
            BadInput: they do not.
        """
        applied = applied_to(self.clip)
        if applied:
            raise BadInput(
                f"clip: has new words in it ({', '.join(applied)}), and learns on its own alone. Wire the CLIP from "
                "before Apply LoRA"
            )
        self.text_encoders = text_encoders
        precise = {name: copy.deepcopy(module).float() for name, module in text_encoders.items()}
        with torch.no_grad():
            told = self.encode_tokens(self.stack_tokens(self.tokens([PROBE_CAPTION])), precise)
        for name, expected in self._encoded(PROBE_CAPTION).items():
            if not torch.allclose(told[name][0], expected, rtol=0, atol=NEAR * float(expected.abs().max())):
                raise BadInput(
                    f"clip: does more with a caption than its weights tell ({name} differs), so it cannot learn. Wire "
                    "the CLIP from before the nodes that changed it, or set text_encoder to 'off'"
                )

    def tokens(self, captions: list[str]) -> list[Tokens]:
        found = []
        for caption in captions:
            with self._alone:
                windows = self._tokenised(caption)
                if self.words.held(caption):
                    ids = {name: framed(part, caption, self.words) for name, part in self._tokenizers().items()}
                else:
                    letters = {name: windows[letter] for name, letter in letters_of(self._family).items()}
                    ids = {name: [[token for token, _ in window] for window in held] for name, held in letters.items()}
            found.append({name: torch.tensor(held).flatten() for name, held in ids.items()})
        return found

    def ids(self, text: str) -> dict[str, list[int]]:
        return {name: ids_of(part, text) for name, part in self._tokenizers().items()}

    def _tokenizers(self) -> dict[str, comfy.sd1_clip.SDTokenizer]:
        """The host's, by our names of the text encoders."""
        letters = letters_of(self._family)
        return {name: getattr(self.clip.tokenizer, f"clip_{letter}") for name, letter in letters.items()}

    def stack_tokens(self, entries: list[Tokens]) -> Tokens:
        return clip_tokens.stack_tokens(entries, self.tokens([""])[0])

    def encode_tokens(self, tokens: Tokens, modules: Mapping[str, nn.Module] | None = None) -> Conditioning:
        layer = self.clip.layer_idx
        # The host takes the last layer where a CLIP has fewer than are asked for.
        if layer is not None and abs(layer) > len(self._layers()):
            layer = -1
        return self._family.encode_tokens(tokens, modules or self.text_encoders, WINDOW, layer)

    def _layers(self) -> nn.ModuleList:
        first = next(iter(self.text_encoders.values()))
        return getattr(first, "text_model", first).encoder.layers

    def _tokenised(self, caption: str) -> dict[str, list]:
        if EMBEDDING.search(caption):
            raise BadInput(
                f"caption {caption[:80]!r}: holds 'embedding:', by which the host would put a textual inversion in its "
                "place; leave it out"
            )
        # Captions are no prompts: their parentheses are parentheses, and weigh nothing.
        return hunyuan.cut(self.clip.tokenize(caption, disable_weights=True), caption)

    def _encoded(self, caption: str) -> Conditioning:
        tokens = self._tokenised(caption)
        (text, extras), *_ = self._whole(lambda: self.clip.encode_from_tokens_scheduled(tokens, show_pbar=False))
        told = {"text": text, **{name: extras.get(key) for name, (key, _) in EXTRAS.items()}}
        for name in self._family.conditioned_on:
            if told[name] is None:
                raise BadInput(
                    f"clip: gives no {EXTRAS[name][1]}, which the model takes; wire the CLIP of its checkpoint"
                )
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
        applied = applied_to(self.clip)
        settings += [sorted(applied.items())] if applied else []
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
        width, wanted = told["text"].shape[-1], _text_width(self._base.model_config.unet_config)
        if wanted is not None and width != wanted:
            raise BadInput(
                f"clip: gives text states of width {width}, the model takes {wanted}; wire the CLIP of its checkpoint"
            )


def _text_width(config: dict) -> int | None:
    """The width of text that a model takes, as the host's description of it says; None where it does not."""
    if "context_embedder_config" in config:
        return config["context_embedder_config"]["params"]["in_features"]
    return config.get("context_dim", config.get("context_in_dim"))


def _signature(tensor: torch.Tensor) -> list[float]:
    """A few rounded projections: the last bits, in which processors and numbers of threads differ, do not show."""
    flat = tensor.double().flatten()
    signs = torch.randint(0, 2, (PROJECTIONS, flat.numel()), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    spread = float(flat.square().mean().sqrt()) or 1.0
    projected = (signs.double() @ flat) / (spread * flat.numel() ** 0.5)
    return [float(f"{spread:.4g}"), *(round(float(value), 3) for value in projected)]
