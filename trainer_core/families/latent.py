"""What families share whose denoiser is a module of diffusers over the latents of an AutoencoderKL."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping

import torch
from diffusers import AutoencoderKL
from torch import nn

from ..errors import BadInput
from .base import Encoder, Family, Model
from .folder import Parts, read_parts
from .identities import hash_of, sampled_hash, unusual_settings
from .process import Process
from .sources import Source
from .weights import State, assemble

OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class LatentFamily(Family):
    """A family says what its folders hold, and makes the encoder and the process of its own; the rest is here."""

    denoiser_class: type[nn.Module]
    """diffusers' class; its folder is called as `component`."""
    text_parts: tuple[str, ...]
    """The text encoders' folders."""
    tokenizers: Mapping[str, Iterable[tuple[str, ...]]]
    """The tokenizers' folders, and the sets of files of which each must have one."""

    def load(self, source: Source, dtype: torch.dtype) -> Model:
        parts = self._read_file(source) if source.is_file else self._read_folder(source)
        vae_state = current_vae_names(parts.states["vae"])
        label = f"the vae of {source.path}"
        vae = assemble(AutoencoderKL, parts.configs["vae"], vae_state, torch.float32, label)
        encoder = self._encoder(vae, parts, source)
        try:
            process = self._process(parts.configs["scheduler"])
        except ValueError as error:
            raise BadInput(f"base: {source.path}: {error}") from None
        denoiser = parts.states[self.component], parts.configs[self.component]
        return self._over(*denoiser, dtype, encoder, process, source.name, str(source.path))

    @abstractmethod
    def _process(self, config: dict) -> Process:
        """From a scheduler's configuration.

        Raises:
            ValueError: it is none that trains; says why.
        """

    @abstractmethod
    def _encoder(self, vae: AutoencoderKL, parts: Parts, source: Source) -> Encoder:
        """
        Raises:
            BadInput: the text encoders or tokenizers do not fit.
        """

    @abstractmethod
    def _check(self, denoiser: nn.Module, where: str) -> None:
        """
        Raises:
            BadInput: the denoiser is of the family's class, but not one that trains here.
        """

    def _read_folder(self, source: Source) -> Parts:
        return read_parts(source.path, (self.component, "vae", *self.text_parts), self.tokenizers, self.title)

    def _read_file(self, source: Source) -> Parts:
        """A checkpoint's parts.

        Raises:
            BadInput: the family has no such files, or this is none.
        """
        raise BadInput(f"base: {source.path} is one file; {self.title} is read from a diffusers folder")

    def _resolution(self, denoiser: nn.Module, encoder: Encoder) -> int:
        """The side of the pictures that it was made for, in pixels."""
        return denoiser.config.sample_size * encoder.pixel_step

    def _over(
        self,
        weights: State,
        config: dict,
        dtype: torch.dtype | None,
        encoder: Encoder,
        process: Process,
        name: str,
        where: str,
    ) -> Model:
        """The base over its denoiser's weights in diffusers' names."""
        denoiser = assemble(self.denoiser_class, config, weights, dtype, f"the {self.component} of {where}")
        self._check(denoiser, where)
        settings = unusual_settings(self.denoiser_class, denoiser.config)
        identity = hash_of(sampled_hash(weights), settings, process.identity, encoder.identity)
        return Model(self, denoiser, encoder, process, self._resolution(denoiser, encoder), identity, name)


def current_vae_names(state: State) -> State:
    """A VAE's weights with its attention named as diffusers names it now.

    The folders of the first Stable Diffusions have older names, and in some the matrices are still 1×1 convolutions.
    """
    renamed = {}
    for key, tensor in state.items():
        if ".attentions." in key:
            path, _, kind = key.rpartition(".")
            place, _, name = path.rpartition(".")
            key = f"{place}.{OLD_ATTENTION.get(name, name)}.{kind}"
            if tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
                tensor = tensor[:, :, 0, 0]
        renamed[key] = tensor
    return renamed
