"""Which kernels compute a denoiser's attention: checked on this machine before the training, and put back after it.

diffusers' own switch (`ModelMixin.set_attention_backend`) is obeyed by processors that have an `_attention_backend`,
such as Flux's. Those of UNets, Stable Diffusion 3 and HunyuanDiT call torch's `scaled_dot_product_attention`
themselves, and the switch passes them over in silence; here that call is led to the backend instead.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend, dispatch_attention_fn
from torch import nn
from torch.overrides import TorchFunctionMode

from ..errors import BadInput, ScionError
from .attention_kinds import DEVICES, INSTALLED_BY, WITHOUT_MASKS

AUTO = "auto"
SETTING = "run.attention_backend"
SWITCH = "_attention_backend"
"""Of the processors that obey diffusers' own."""


def check(name: str, device: torch.device) -> None:
    """That a backend is installed here, before anything is loaded.

    Raises:
        BadInput: it is not, or the device has none of its kernels.
    """
    kinds = DEVICES.get(name, (device.type,))
    if device.type not in kinds:
        raise BadInput(f"{SETTING}: {name} computes on {' and '.join(kinds)}, this run trains on {device}; choose auto")
    if name not in INSTALLED_BY:
        return
    try:
        with attention_backend(name):
            pass
    except RuntimeError:
        raise BadInput(
            f"{SETTING}: {name} is not installed here, is too old, or cannot be imported: {INSTALLED_BY[name]} (of the "
            f"version that is made for torch {torch.__version__}), or choose auto"
        ) from None


def try_out(name: str, denoiser: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """That a backend computes heads as wide as the denoiser's, forward and backward, on this device.

    Args:
        dtype: in which the run computes.

    Raises:
        BadInput: it does not.
    """
    if name == AUTO:
        return
    modules = attentions(denoiser)
    deaf = {type(module.processor).__name__ for module in modules if not _can_be_led(module.processor)}
    if deaf or not modules:
        has = f"an attention of its own ({', '.join(sorted(deaf))})" if deaf else "no attention of diffusers'"
        raise BadInput(f"{SETTING}: {name}, but {type(denoiser).__name__} has {has}; choose auto")
    for width in sorted({module.inner_dim // module.heads for module in modules}):
        reason = _failure(name, width, dtype, device)
        if reason:
            other = ", or set run.precision to bf16" if dtype == torch.float32 and device.type == "cuda" else ""
            raise BadInput(
                f"{SETTING}: {name} cannot train this model here ({device}, {str(dtype).removeprefix('torch.')}, heads "
                f"{width} wide: {reason}); choose auto{other}"
            )


def attentions(denoiser: nn.Module) -> list[nn.Module]:
    """diffusers' attention modules: those whose processor can be set."""
    return [module for module in denoiser.modules() if hasattr(module, "set_processor")]


@contextmanager
def using(denoiser: nn.Module, name: str) -> Iterator[None]:
    """Inside the block the denoiser's attention is computed by a backend, in forward and backward, and when gradient
    checkpointing computes it again.

    Args:
        name: diffusers'; "auto" = what the denoiser takes by itself.
    """
    undo = [_lead(module, None if name == AUTO else AttentionBackendName(name)) for module in attentions(denoiser)]
    try:
        yield
    finally:
        # Modules may share a processor, which the first of them found as it was.
        for back in reversed(undo):
            back()


def _can_be_led(processor) -> bool:
    """Whether a processor obeys diffusers' switch, or calls torch's attention."""
    code = getattr(type(processor).__call__, "__code__", None)
    calls = code is not None and F.scaled_dot_product_attention.__name__ in code.co_names
    return calls or hasattr(processor, SWITCH)


def _lead(module: nn.Module, backend: AttentionBackendName | None) -> Callable[[], None]:
    """Has a module's attention computed by a backend; gives back what undoes it."""
    processor, own = module.processor, vars(module)
    if hasattr(processor, SWITCH):
        before = getattr(processor, SWITCH)
        setattr(processor, SWITCH, backend)
        return lambda: setattr(processor, SWITCH, before)
    if backend in (None, AttentionBackendName.NATIVE):  # which is what they call
        return lambda: None
    led, forward, replaced = _Led(backend), module.forward, own.get("forward")

    # Around each module and not the whole denoiser: what checkpointing computes again runs in another thread on a GPU.
    @functools.wraps(forward)
    def within(*args, **kwargs):
        with led:
            return forward(*args, **kwargs)

    module.forward = within
    return lambda: own.update(forward=replaced) if replaced else own.pop("forward")


class _Led(TorchFunctionMode):
    """Inside it, this thread's calls of torch's `scaled_dot_product_attention` go to a backend of diffusers."""

    def __init__(self, backend: AttentionBackendName):
        super().__init__()
        self._backend = backend

    def __torch_function__(self, function, types, args=(), kwargs=None):
        called = self._attend if function is F.scaled_dot_product_attention else function
        return called(*args, **(kwargs or {}))

    def _attend(self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        """The arguments and shapes are torch's, [N, heads, tokens, width]; diffusers' [N, tokens, heads, width]."""
        name = self._backend.value
        if attn_mask is not None and name in WITHOUT_MASKS:
            raise ScionError(f"{SETTING}: {name} takes no masks, which this model's attention has; choose auto")
        query, key, value, mask = _as_autocast((query, key, value, attn_mask))
        if mask is not None:
            # One of two dimensions would be read as [N, tokens].
            mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
        turned = (tensor.transpose(1, 2) for tensor in (query, key, value))
        told = {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
        return dispatch_attention_fn(*turned, attn_mask=mask, **told, backend=self._backend).transpose(1, 2)


def _as_autocast(tensors: tuple[torch.Tensor | None, ...]) -> list[torch.Tensor | None]:
    """Autocast does this for torch's own attention, and knows nothing of other packages' kernels."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return list(tensors)
    dtype = torch.get_autocast_dtype(kind)
    return [t.to(dtype) if t is not None and t.is_floating_point() else t for t in tensors]


def _failure(name: str, width: int, dtype: torch.dtype, device: torch.device) -> str:
    """Why a backend computes no heads of this width, among latents or over a caption; empty if it does."""
    for length in (64, 77):
        query, key, value = (
            torch.ones(1, tokens, 2, width, dtype=dtype, device=device, requires_grad=True)
            for tokens in (64, length, length)
        )
        try:
            attended = dispatch_attention_fn(query, key, value, backend=name)
            if not attended.requires_grad:
                return "it has no backward pass"
            attended.sum().backward()
        except Exception as error:  # each package has its own
            return (str(error).splitlines() or [type(error).__name__])[0][:200]
    return ""
