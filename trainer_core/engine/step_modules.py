"""The modules of a training step as accelerate has prepared them: the denoiser, and what learns in front of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import nn

from ..adapters import lora
from ..families.base import Conditioning, Model, Tokens
from . import learning_parts
from .learning_decorator import NAME as DECORATOR


class StepModules:
    """
    Args:
        model: with its adapters in place.
        dtype: of the computation.
    """

    def __init__(self, model: Model, accelerator: Accelerator, device: torch.device, dtype: torch.dtype):
        self._model, self._accelerator, self._device, self._dtype = model, accelerator, device, dtype
        self.text_encoders = learning_parts.learning(model)
        """Those that learn, as they are in the model; where there are any, captions come as tokens."""
        self._words = bool(model.encoder.words)
        self._adapters_learn = True
        """Whether the adapters in the text encoders still do."""
        self._plain = {"": model.denoiser, **self.text_encoders}
        if model.decorator is not None:
            self._plain[DECORATOR] = model.decorator
        self._attributes = {name: set(vars(module)) for name, module in self._plain.items()}
        self._prepared: dict[str, nn.Module] = {}

    def prepare(self, optimizer: torch.optim.Optimizer):
        """Has accelerate prepare the modules; the optimiser as it has prepared that."""
        given = [*self._plain.values(), optimizer]
        *modules, prepared = self._accelerator.prepare(*given, device_placement=[False] * len(given))
        self._prepared = dict(zip(self._plain, modules, strict=True))
        return prepared

    @property
    def denoiser(self) -> nn.Module:
        return self._prepared[""]

    @property
    def all(self) -> list[nn.Module]:
        return list(self._prepared.values())

    def train(self) -> None:
        """Dropout on, where something learns."""
        for name, module in self._plain.items():
            module.train(self.text_learns or name not in self.text_encoders)
            if name in self.text_encoders:
                self._dropout(module)

    @property
    def text_learns(self) -> bool:
        """Whether anything in the text encoders still learns: their adapters, or new words, which learn to the end."""
        return self._adapters_learn or self._words

    def set_text_learns(self, learns: bool) -> None:
        """Adapters in text encoders that learn no more have no gradients, and optimisers pass over what has none."""
        if learns == self._adapters_learn:
            return
        self._adapters_learn = learns
        for module in self.text_encoders.values():
            # Gradient checkpointing works in training alone.
            module.train(self.text_learns)
            self._dropout(module)
            for parameter in lora.parameters(module).values():
                parameter.requires_grad_(learns)

    def _dropout(self, module: nn.Module) -> None:
        """Of adapters that learn no more none."""
        if not self._adapters_learn:
            for layer in lora.layers(module).values():
                layer.eval()

    def conditioning(self, told: Conditioning | Tokens, taught: torch.Tensor) -> Conditioning:
        """On the device, in the precision of the computation; tokens are encoded, with gradients if that learns, and
        the decorator follows.

        Args:
            told: a batch's.
            taught: as in `Batch`: whom the decorator follows, where zeros follow the others.
        """
        if self.text_encoders:
            tokens = {name: told[name].to(self._device, non_blocking=True) for name in self.text_encoders}
            others = {name: value for name, value in told.items() if name not in tokens}
            # Without gradients there is nothing for other processes to hear of.
            called = {name: self._prepared[name] for name in self.text_encoders} if self.text_learns else None
            with torch.set_grad_enabled(self.text_learns and torch.is_grad_enabled()):
                told = self._model.encoder.encode_tokens(tokens, called) | others
        told = {
            key: value.to(self._device, self._dtype if value.is_floating_point() else None, non_blocking=True)
            for key, value in told.items()
        }
        if DECORATOR not in self._prepared:
            return told
        vectors = self._prepared[DECORATOR](taught.to(self._device, non_blocking=True))
        return self._model.family.with_tokens(told, vectors)

    @torch.no_grad()
    def entries(self, captions: list[str]) -> list[Conditioning]:
        """Captions as text encoders that learn encode them now: float32 on the CPU, without a batch axis and of one
        length, so that nothing of an earlier step continues the shorter ones."""
        encoder = self._model.encoder
        tokens = encoder.stack_tokens(encoder.tokens(captions))
        told = encoder.encode_tokens({name: ids.to(self._device) for name, ids in tokens.items()})
        return [{key: value[i].float().cpu() for key, value in told.items()} for i in range(len(captions))]

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """No dropout inside the block."""
        before = {name: module.training for name, module in self._plain.items()}
        for module in self._plain.values():
            module.eval()
        try:
            yield
        finally:
            for name, module in self._plain.items():
                module.train(before[name])
                if name in self.text_encoders:
                    self._dropout(module)

    def release(self) -> None:
        """Gives the modules back as they were before accelerate prepared them, and no longer training."""
        for name, module in self._plain.items():
            self._accelerator.unwrap_model(self._prepared[name], keep_fp32_wrapper=False)
            for attribute in set(vars(module)) - self._attributes[name]:
                delattr(module, attribute)
            module.eval()
