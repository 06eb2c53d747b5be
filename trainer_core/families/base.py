"""What a model family is to the rest of the engine: how its models are loaded, encoded, noised, called and named."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from ..adapters.decorator import Decorator
from ..errors import BadInput
from .new_words import Vocabulary
from .process import Process
from .sources import Source
from .weights import State

Conditioning = dict[str, torch.Tensor]
"""What a denoiser is told beside latents and timestep; each tensor's first axis is the batch."""
Tokens = dict[str, torch.Tensor]
"""Captions for text encoders, by the encoder's name: int64, each window's ids behind the other's."""

BY_TWO_ANSWERS = "two answers"
"""Classifier-free guidance (Ho & Salimans 2022): the denoiser answers with the caption and without it."""
TOLD = "told"
"""The denoiser was distilled from such a pair, and is told the scale of the guidance."""
UNGUIDED = "unguided"
"""It was distilled from it at one scale."""


class Encoder(Protocol):
    """Pictures to latents and back, captions to conditioning. The host's CLIP and VAE stand behind the same calls."""

    identity: str
    """Equal for encoders that make the same of everything; part of the key of what is cached."""
    pixel_step: int
    """Pixels a side to one latent."""
    device: torch.device
    """Where its weights are."""
    text_encoders: Mapping[str, nn.Module]
    """The modules that captions go through and that can learn, by the name that kohya's keys have for them ("te"; "te1"
    and "te2"); empty where none can."""
    words: Vocabulary
    """New words, for which captions have ids that are not of the tokenizer."""

    def to(self, device: torch.device | str, text: bool = True) -> "Encoder":
        """Moves its weights; an encoder whose host decides where they are does nothing.

        Args:
            text: whether `text_encoders` go along; those that learn are where the denoiser is.
        """

    def set_text_precision(self, precision: str) -> None:
        """In what the text encoders compute: "auto" = as they are, "fp32", "bf16", "fp16", or "int8" (weights alone).

        Raises:
            BadInput: their host decides that, or what makes int8 is not installed.
        """

    def encode_pictures(self, pixels: torch.Tensor) -> torch.Tensor:
        """float32 [N, H, W, 3] in 0..1 to latents, float32 [N, C, h, w], scaled as the denoiser expects them."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [N, C, h, w] to pictures, float32 [N, H, W, 3] in 0..1."""

    def encode_captions(self, captions: list[str]) -> list[Conditioning]:
        """One entry a caption, its tensors float32 without a batch axis."""

    def forget_text(self) -> None:
        """Lets go of the text encoders, whose weights may be many times the denoiser's: nothing is encoded after it."""

    def stack(self, entries: list[Conditioning]) -> Conditioning:
        """Entries as a batch; captions of different length are padded as the family's text encoder would."""

    def tokens(self, captions: list[str]) -> list[Tokens]:
        """One entry a caption, without a batch axis: what `encode_tokens` encodes."""

    def ids(self, text: str) -> dict[str, list[int]]:
        """The tokens of a text as each of `text_encoders` has them, by its name; new words are none here."""

    def stack_tokens(self, entries: list[Tokens]) -> Tokens:
        """Entries as a batch; shorter captions are continued by windows without words."""

    def encode_tokens(self, tokens: Tokens, modules: Mapping[str, nn.Module] | None = None) -> Conditioning:
        """What `encode_captions` and `stack` give, with gradients, where the text encoders are.

        Args:
            tokens: a batch.
            modules: `text_encoders`, or what is to be called in their places.
        """


@dataclass(frozen=True)
class Part:
    """A module of a base that an adapter can be put into."""

    module: nn.Module
    component: str
    """What LoRA files call it: "unet", "transformer", "text_encoder", "text_encoder_2"."""
    targets: dict[str, str]
    """Presets of its modules: a name and a regular expression for the whole path."""


@dataclass
class Model:
    """A loaded base model: what trains is put into its parts, everything else stays as it was."""

    family: "Family"
    denoiser: nn.Module
    encoder: Encoder
    process: Process
    resolution: int
    """The side of the square pictures that the base was made for, in pixels."""
    identity: str
    """Equal for bases that train the same LoRA in the same precision: a hash over the denoiser's weights as they are
    stored, its configuration, the noise schedule and the encoder."""
    name: str
    decorator: Decorator | None = None
    """Vectors that follow every prompt's text states."""

    def decorated(self, conditioning: Conditioning, on: bool) -> Conditioning:
        """A batch's conditioning with the decorator behind its text states; as it is where there is none.

        Args:
            on: whether it is of prompts; zeros follow where it is of the unconditional half.
        """
        if self.decorator is None:
            return conditioning
        count, place = len(next(iter(conditioning.values()))), self.decorator.weight.device
        vectors = self.decorator(torch.full((count,), on, device=place))
        return self.family.with_tokens(conditioning, vectors)

    @contextmanager
    def encoder_on(self, device: torch.device, text: bool = True) -> Iterator[None]:
        """The encoder's weights on a device inside the block, and where they were after it.

        Args:
            text: as for `Encoder.to`.
        """
        before = self.encoder.device
        self.encoder.to(device, text)
        try:
            yield
        finally:
            self.encoder.to(before, text)

    @property
    def guided_by(self) -> str:
        """See `Family.guided_by`."""
        return self.family.guided_by(self.denoiser)

    def told_guidance(self, conditioning: Conditioning, scale: float) -> Conditioning:
        """A batch's conditioning, with the guidance scale where the denoiser is told it: "guidance", float32 [N]."""
        if self.guided_by != TOLD:
            return conditioning
        some = next(iter(conditioning.values()))
        return conditioning | {"guidance": torch.full((len(some),), scale, device=some.device)}

    @property
    def side_step(self) -> int:
        """Sides of pictures must be multiples of this, in pixels."""
        return self.encoder.pixel_step * self.family.patch

    @property
    def parts(self) -> "dict[str, Part]":
        """All that adapters can be put into, by name: the denoiser, whose name is empty, and the text encoders."""
        parts = {"": Part(self.denoiser, self.family.component, self.family.targets)}
        for number, (name, module) in enumerate(self.encoder.text_encoders.items(), 1):
            component = "text_encoder" if number == 1 else f"text_encoder_{number}"
            parts[name] = Part(module, component, self.family.text_targets)
        return parts

    @property
    def components(self) -> dict[str, nn.Module]:
        """The modules that a LoRA may belong to, as its file calls them."""
        return {part.component: part.module for part in self.parts.values()}


class Family(ABC):
    """One file a family; it knows modules and numbers, and nothing of the trainer."""

    name: str
    title: str
    """For a person."""
    in_files: str
    """What `lora_file.foreign.guess_family` calls it; of several versions the first."""
    pipeline: str
    """diffusers' class, by which a folder says that it is of the family."""
    comfyui: tuple[str, ...] = ()
    """ComfyUI's architectures (comfy.supported_models) whose MODEL is of the family; empty where it has none."""
    captions: str
    """What captions are read by, and how much of them; for the documentation."""
    component: str
    """How LoRA files call the denoiser: "unet" or "transformer"."""
    base_version: str
    """kohya's `ss_base_model_version`, by which managers sort files."""
    architecture: str
    """ModelSpec's architecture."""
    targets: dict[str, str]
    """Presets of LoRA targets: a name and a regular expression for the whole path of a module."""
    text_targets: dict[str, str] = {}
    """The same of its text encoders; empty where they cannot learn."""
    default_dialect: str
    schedule: dict
    """The noise schedule that the family was trained with, as a diffusers scheduler configuration."""
    schedules: tuple[dict, ...] = ()
    """Those of its versions, where they differ; `schedule` among them."""
    latent_channels: int
    patch: int = 1
    """So many latents a side are one token of the denoiser."""
    even_levels: bool = False
    """Of a flow: see `Flow`."""
    conditioned_on: tuple[str, ...]
    """Names of the tensors that a caption's conditioning has."""
    sized: bool = False
    """Whether the denoiser is told each picture's size and crop, too: "time_ids", [N, 6], see `data.views.time_ids`."""

    def guided_by(self, denoiser: nn.Module) -> str:
        """What gives captions their weight in sampling: `BY_TWO_ANSWERS`, `TOLD` or `UNGUIDED`."""
        return BY_TWO_ANSWERS

    @abstractmethod
    def load(self, source: Source, dtype: torch.dtype) -> Model:
        """The base from its source, on the CPU, weights frozen, denoiser in `dtype`.

        Raises:
            BadInput: the source lacks a part, or its weights do not fit; all that is missing is named.
        """

    def from_original(
        self, weights: State, encoder: Encoder, process: Process, resolution: int | None, name: str
    ) -> Model:
        """A base over a denoiser's weights that are in memory already, in their original names and any precision.

        The weights' storage is shared wherever it can be, and must not be written to. The encoder is somebody else's.

        Args:
            resolution: in pixels; None = the family's own.

        Raises:
            BadInput: the weights do not fit, or the family has no other names than diffusers'.
        """
        raise BadInput(f"base: {name}: {self.title} is trained from its diffusers folder; Load Training Model reads it")

    def described(self, denoiser: nn.Module) -> tuple[str, str]:
        """What LoRA files say of the base: kohya's `ss_base_model_version` and ModelSpec's architecture."""
        return self.base_version, self.architecture

    @abstractmethod
    def stack(self, entries: list[Conditioning], empty: Conditioning) -> Conditioning:
        """Conditioning of several captions as a batch.

        Args:
            entries: without a batch axis.
            empty: of the empty caption, which continues those that are shorter than others.
        """

    def text_width(self, denoiser: nn.Module) -> int:
        """Of the text states that the denoiser is told."""
        return denoiser.config.joint_attention_dim

    def with_tokens(self, conditioning: Conditioning, vectors: torch.Tensor) -> Conditioning:
        """A batch's conditioning with vectors behind its text states, as if more words had been written.

        Args:
            vectors: float [N, n, width], on any device.
        """
        text = conditioning["text"]
        return conditioning | {"text": torch.cat([text, vectors.to(text)], dim=1)}

    def encode_tokens(self, tokens: Tokens, modules: Mapping[str, nn.Module], length: int, layer: int) -> Conditioning:
        """What its text encoders make of a batch of captions, on their device and with gradients.

        Args:
            modules: the text encoders by name.
            length: tokens of a window.
            layer: whose hidden states to take, counted from the end; None = the family's own.
        """
        raise BadInput(f"adapter.text_encoder: the text encoders of {self.title} do not learn here; set it to off")

    @abstractmethod
    def predict(
        self, denoiser: nn.Module, noisy: torch.Tensor, times: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """The denoiser's answer, shaped as `noisy`.

        Args:
            times: what `Process.told` or a sampler says of the time, [N].
        """
