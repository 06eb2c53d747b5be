"""How much memory a training step or an encoding takes: rehearsed on tensors that have shapes and hold no numbers."""

import copy
import weakref
from collections import OrderedDict
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..families.base import Conditioning, Model
from . import attention, learning_parts, objective
from .learning_decorator import NAME as DECORATOR
from .objective_config import ObjectiveConfig
from .optimizer_state import pack

if TYPE_CHECKING:
    from .trainer import Trainer

BYTES_OF_ADAMW = 8
"""Of state for each number that trains: two means in fp32."""
DENOISER = "denoiser"
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class StepMemory:
    """What a step holds at its peak, in bytes."""

    weights: int
    """The base's, frozen."""
    trained: int
    """What trains, and the optimiser's state."""
    passing: int
    """What forward and backward hold at their peak beside these: activations, and gradients as they come."""

    @property
    def total(self) -> int:
        return self.weights + self.trained + self.passing


class Rehearsal:
    """Steps that compute nothing: each operation answers with a tensor that has a shape, a precision and
    no storage, and what would be held is counted as it comes and goes.

    So the choice of kernels, autocast, the adapters' layers and what gradient checkpointing computes again are those of
    the real step. The modules are only read.
    """

    def __init__(self, model: Model, config: ObjectiveConfig, device: torch.device, beside: int = 0):
        """
        Args:
            model: with its adapters in place; what requires a gradient is what trains.
            device: where it computes; its kernels are asked what they answer with, it holds nothing.
            beside: frozen numbers that a step needs and the model's modules do not hold: an assistant's. What passes
                through them does not count: it is gone when the next layer answers.
        """
        self.model, self.config, self.device, self.beside = model, config, device, beside
        self._text = learning_parts.learning(model)
        # Registering them here changes nothing in them.
        self._modules = nn.ModuleDict({DENOISER: model.denoiser, **self._text})
        if model.decorator is not None:
            self._modules[DECORATOR] = model.decorator
        self._mode = FakeTensorMode()
        self._twins: dict[torch.dtype, nn.ModuleDict] = {}
        self._peaks: dict[tuple, int] = {}

    def step(
        self,
        latents: tuple[int, ...],
        conditioning: Conditioning,
        dtype: torch.dtype,
        checkpointing: bool,
        accumulates: bool = False,
        state: int = 0,
        backend: str = attention.AUTO,
        text: bool = True,
    ) -> StepMemory:
        """The memory of one batch, forward and backward.

        Args:
            latents: their shape, [N, C, h, w].
            conditioning: of any number of items, or tokens where text encoders learn; only shapes count.
            dtype: in which the base computes.
            checkpointing: whether gradient checkpointing is on.
            accumulates: whether the gradients of an earlier batch are there when this one begins.
            state: bytes of the optimiser's state.
            backend: of the denoiser's attention.
            text: whether text encoders that learn do so; else they are as good as gone, as after captions are cached.
        """
        twin = self._twin(dtype)
        told = tuple((name, value.dtype, value.shape[1:]) for name, value in conditioning.items())
        key = (latents, told, dtype, checkpointing, accumulates, backend, text)
        if key not in self._peaks:
            with attention.using(twin[DENOISER], backend):
                self._peaks[key] = self._peak(twin, latents, conditioning, dtype, checkpointing, accumulates, text)
        held = self._held(twin, text)
        weights = sum(size_of(parameter) for parameter in held if not parameter.requires_grad)
        weights += self.beside * dtype.itemsize
        trained = sum(size_of(parameter) for parameter in held if parameter.requires_grad)
        if not text:
            state = (
                state * trained // sum(size_of(parameter) for parameter in twin.parameters() if parameter.requires_grad)
            )
        return StepMemory(weights, trained + state, self._peaks[key])

    def _held(self, twin: nn.ModuleDict, text: bool) -> list[nn.Parameter]:
        """Of all modules, or of all but the text encoders."""
        names = [name for name in twin if text or name not in self._text]
        return [parameter for name in names for parameter in twin[name].parameters()]

    def _peak(
        self,
        twin: nn.ModuleDict,
        latents: tuple[int, ...],
        conditioning: Conditioning,
        dtype: torch.dtype,
        checkpointing: bool,
        accumulates: bool,
        text: bool,
    ) -> int:
        for name, module in twin.items():
            if name != DECORATOR:  # which computes nothing
                learning_parts.recomputing(module, checkpointing)
        parameters = list(twin.parameters())
        learn = set(map(id, self._held(twin, text)))
        ledger = Ledger([*parameters, *twin.buffers()])
        with self._mode, ledger:
            for parameter in parameters:
                begun = accumulates and parameter.requires_grad and id(parameter) in learn
                parameter.grad = torch.empty_like(parameter) if begun else None
            self._pass(twin, latents, conditioning, dtype, text)
            for parameter in parameters:
                parameter.grad = None
        return ledger.peak

    def _pass(
        self, twin: nn.ModuleDict, shape: tuple[int, ...], conditioning: Conditioning, dtype: torch.dtype, text: bool
    ) -> None:
        noisy, target = (torch.empty(shape, device=self.device) for _ in range(2))
        timesteps = torch.empty(shape[0], dtype=torch.int64, device=self.device)
        told = {
            key: torch.empty(
                (shape[0], *value.shape[1:]), dtype=dtype if value.is_floating_point() else value.dtype,
                device=self.device,
            )
            for key, value in conditioning.items()
        }  # fmt: skip
        with torch.enable_grad(), self._autocast(dtype):
            if self._text:
                tokens = {name: told.pop(name) for name in self._text}
                with torch.set_grad_enabled(text):
                    made = self.model.encoder.encode_tokens(tokens, {name: twin[name] for name in self._text})
                told |= {key: value.to(dtype) for key, value in made.items()}
            if DECORATOR in twin:
                everyone = torch.ones(shape[0], dtype=torch.bool, device=self.device)
                told = self.model.family.with_tokens(told, twin[DECORATOR](everyone))
            told = self.model.told_guidance(told, 1.0)
            predicted = self.model.family.predict(twin[DENOISER], noisy, timesteps, told).float()
        objective.errors(self.config, predicted, target).sum().backward()

    def _autocast(self, dtype: torch.dtype) -> AbstractContextManager:
        return nullcontext() if dtype == torch.float32 else torch.autocast(self.device.type, dtype)

    def _twin(self, dtype: torch.dtype) -> nn.ModuleDict:
        if dtype not in self._twins:
            self._twins[dtype] = twin_of(self._modules, self._mode, self.device, dtype).train()
        return self._twins[dtype]


class TrainerMemory:
    """The memory of a trainer's step: as it is, and as other settings would make it."""

    def __init__(self, trainer: "Trainer"):
        """
        Raises:
            ValueError: no batch has come yet, by whose shape to go.
        """
        recipe, model = trainer.recipe, trainer.model
        if trainer.batch is None:
            raise ValueError("no batch has come yet")
        self.trainer, self.state, self.again = trainer, _state(trainer), recipe.run.accumulation > 1
        beside = trainer.assistant.numbers if trainer.assistant else 0
        self.rehearsal = Rehearsal(model, recipe.objective, trainer.device, beside)

    def step(
        self,
        checkpointing: bool | None = None,
        batch_size: int | None = None,
        accumulates: bool | None = None,
        dtype: torch.dtype | None = None,
        scale: float = 1.0,
        state: int | None = None,
        backend: str | None = None,
        text: bool = True,
    ) -> StepMemory:
        """What is not given stays as it is.

        Args:
            batch_size: of a batch on its way, at most `run.batch_size`.
            scale: of the pictures' sides.
            state: bytes of the optimiser's state.
            backend: of the denoiser's attention.
            text: False = no text encoder learns.
        """
        trainer, batch = self.trainer, self.trainer.batch
        count, channels, height, width = batch.latents.shape
        smaller = (round(height * scale), round(width * scale))
        return self.rehearsal.step(
            (batch_size or count, channels, *smaller),
            batch.conditioning,
            dtype or trainer.compute_dtype,
            trainer.recipe.run.gradient_checkpointing if checkpointing is None else checkpointing,
            self.again if accumulates is None else accumulates,
            self.state if state is None else state,
            backend or trainer.recipe.run.attention_backend,
            text,
        )


def _state(trainer: "Trainer") -> int:
    """Bytes of the optimiser's state; before its first step, of AdamW's."""
    optimizer = trainer.optimizer.optimizer
    if not optimizer.state:
        return BYTES_OF_ADAMW * sum(parameter.numel() for parameter in trainer.parameters.values())
    return sum(map(size_of, pack(optimizer, trainer.parameters)[1].values()))


def encoding_memory(vae: nn.Module, width: int, height: int) -> int:
    """Bytes that encoding one picture of this size, in pixels, holds at its peak beside the weights."""
    mode, device = FakeTensorMode(), next(vae.parameters()).device
    twin = twin_of(vae, mode, device).eval()
    ledger = Ledger([*twin.parameters(), *twin.buffers()])
    with mode, ledger, torch.no_grad():
        twin.encode(torch.empty(1, 3, height, width, device=device)).latent_dist.mode()
    return ledger.peak


def twin_of(
    module: nn.Module, mode: FakeTensorMode, device: torch.device, dtype: torch.dtype | None = None
) -> nn.Module:
    """A module of the same layers on `device`, whose tensors have no storage; without hooks and wrappers.

    Args:
        dtype: of frozen weights; None = as they are.
    """
    memo: dict[int, Any] = {}
    with mode:
        for part in module.modules():
            # What others hung on the modules may hold real tensors, which would be copied.
            memo |= {id(getattr(part, hooks)): OrderedDict() for hooks in HOOKS}
            for tensor in (*part._parameters.values(), *part._buffers.values()):
                if tensor is not None:
                    memo[id(tensor)] = _hollow(tensor, device, dtype)
        twin = copy.deepcopy(module, memo)
    for part in twin.modules():
        # accelerate's or `attention.using`'s, which would lead back to the module.
        vars(part).pop("forward", None)
        vars(part).pop("_original_forward", None)
    return twin


def _hollow(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype | None) -> torch.Tensor:
    weight = isinstance(tensor, nn.Parameter)
    cast = dtype if dtype and weight and not tensor.requires_grad and tensor.is_floating_point() else tensor.dtype
    made = torch.empty(tensor.shape, dtype=cast, device=device)
    return nn.Parameter(made, tensor.requires_grad) if weight else made


class Ledger(TorchDispatchMode):
    """Counts the bytes of storages that operations make inside it, from their making to their end."""

    def __init__(self, known: list[torch.Tensor]):
        """
        Args:
            known: tensors that were there before and do not count.
        """
        super().__init__()
        self.held = self.peak = 0
        self._known = [tensor.untyped_storage() for tensor in known]
        self._live: dict[int, weakref.ref | None] = {id(storage): None for storage in self._known}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            # There is no number to tell. peft's LoHa and LoKr draw whether a module takes part: it does.
            return True if args[0].dtype == torch.bool else 1
        answer = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(answer):
            if isinstance(tensor, torch.Tensor):
                self._enter(tensor.untyped_storage())
        return answer

    def _enter(self, storage: torch.UntypedStorage) -> None:
        # A view or an operation in place answers with a storage that is known.
        key, size = id(storage), storage.nbytes()
        if key in self._live:
            return

        def leave(_: weakref.ref) -> None:
            self.held -= size
            del self._live[key]

        self._live[key] = weakref.ref(storage, leave)
        self.held += size
        self.peak = max(self.peak, self.held)


def size_of(tensor: torch.Tensor) -> int:
    """In bytes."""
    return tensor.numel() * tensor.element_size()
