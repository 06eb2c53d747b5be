"""LoRA through peft: which modules it targets, putting it in, taking its tensors out, removing it without a trace."""

import contextlib
import re
from collections.abc import Iterator

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from .. import randomness
from ..errors import BadInput
from ..lora_file.lora import LoraPair, module_shapes
from .lora_config import PATTERN, LoRAConfig


def targeted_modules(model: nn.Module, config: LoRAConfig, presets: dict[str, str]) -> list[str]:
    """Paths of the linear and convolution modules that get a LoRA, in the model's order.

    Raises:
        BadInput: an entry of `targets` matches nothing, or nothing is left.
    """
    paths = list(module_shapes(model))
    chosen: set[str] = set()
    for entry in config.targets:
        matched = matching(entry, paths, presets)
        if not matched:
            raise BadInput(
                f"adapter.targets: {entry!r} matches no module of this base; presets are {', '.join(presets)}, "
                f"module names are such as {', '.join(_some_names(paths))}"
            )
        chosen |= matched
    for entry in config.exclude:
        chosen -= matching(entry, paths, presets)
    if not chosen:
        raise BadInput("adapter.exclude: leaves no module to train; exclude less")
    return [path for path in paths if path in chosen]


def _some_names(paths: list[str]) -> list[str]:
    names = (path.removesuffix(".0").split(".")[-1] for path in paths[3:40:6])
    return [name for name in dict.fromkeys(names) if not name.isdigit()]


def matching(entry: str, paths: list[str], presets: dict[str, str]) -> set[str]:
    """The paths that a preset, a module's name or a `re:` pattern stands for."""
    if entry in presets:
        pattern = presets[entry]
    elif entry.startswith(PATTERN):
        pattern = entry.removeprefix(PATTERN)
    else:
        # A name stands for a module and for what lies in it: to_out is to_out.0 in diffusers.
        pattern = rf"(.*\.)?{re.escape(entry)}(\..*)?"
    return {path for path in paths if re.fullmatch(pattern, path)}


def inject(model: nn.Module, config: LoRAConfig, paths: list[str], seed: int) -> None:
    """Puts a new LoRA into the modules at `paths`: A random (keyed by the seed), B zero, both fp32 and trainable.

    Everything else in the model is frozen; its weights are not touched.
    """
    model.requires_grad_(False)
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.strength,
        target_modules=paths,
        lora_dropout=config.dropout,
        use_rslora=config.rslora,
        bias="none",
    )
    device = next(model.parameters()).device
    with randomness.reseeded(device, seed, "lora init"):
        inject_adapter_in_model(settings, model, NAME)
    for parameter in parameters(model).values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)


NAME = "default"
"""peft's name for the one adapter; a LoRA in several parts would need several."""


def layers(model: nn.Module) -> dict[str, LoraLayer]:
    """peft's layers by the path of the module that they wrap."""
    return {path: module for path, module in model.named_modules() if isinstance(module, LoraLayer)}


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """What trains, by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if ".lora_A." in name or ".lora_B." in name}


def extract(model: nn.Module) -> dict[str, LoraPair]:
    """The pairs as they are, fp32 copies on the CPU, by module path; alpha / rank gives the scale of the training."""

    def copy(linear: nn.Module) -> torch.Tensor:
        return linear.weight.detach().to("cpu", torch.float32, copy=True)

    return {
        path: LoraPair(copy(layer.lora_A[NAME]), copy(layer.lora_B[NAME]), layer.scaling[NAME] * layer.r[NAME])
        for path, layer in layers(model).items()
    }


@torch.no_grad()
def fill(model: nn.Module, pairs: dict[str, LoraPair]) -> None:
    """Sets the injected LoRA's tensors; paths, ranks and scales must be the injected ones.

    Raises:
        BadInput: they are not; what differs is named.
    """
    here = layers(model)
    different = _differences(pairs, {path: (layer.r[NAME], layer.scaling[NAME]) for path, layer in here.items()})
    if different:
        raise BadInput(different)
    for path, layer in here.items():
        layer.lora_A[NAME].weight.copy_(pairs[path].down)
        layer.lora_B[NAME].weight.copy_(pairs[path].up)


def _differences(pairs: dict[str, LoraPair], expected: dict[str, tuple[int, float]]) -> str:
    """In words, how pairs differ from the expected (rank, scale) by path; empty if they do not."""
    problems = [f"no pair for {path}" for path in expected if path not in pairs]
    problems += [f"{path} is not among the targets" for path in pairs if path not in expected]
    for path, (rank, scale) in expected.items():
        pair = pairs.get(path)
        if pair and pair.rank != rank:
            problems.append(f"{path} has rank {pair.rank} instead of {rank}")
        elif pair and abs(pair.scale - scale) > 1e-6 * abs(pair.scale):
            problems.append(f"{path} has alpha {pair.alpha:g} instead of {scale * rank:g}")
    return "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")


def check_start(pairs: dict[str, LoraPair], paths: list[str], config: LoRAConfig) -> None:
    """That `fill` will take the pairs of `config.start_from`, once a LoRA is in the modules at `paths`.

    Raises:
        BadInput: the file was made with other targets, rank or alpha.
    """
    different = _differences(pairs, dict.fromkeys(paths, (config.rank, config.scale)))
    if different:
        raise BadInput(
            f"adapter.start_from: {config.start_from} does not fit these settings: {different}. Set adapter.rank, "
            "adapter.alpha and adapter.targets to the file's (see `scion inspect`)"
        )


def apply(model: nn.Module, pairs: dict[str, LoraPair], strength: float = 1.0) -> None:
    """Puts a finished LoRA of any ranks into a model for sampling; frozen, in the model's precision."""
    settings = LoraConfig(
        r=1,
        target_modules=list(pairs),
        rank_pattern={f"^{re.escape(path)}": pair.rank for path, pair in pairs.items()},
        alpha_pattern={f"^{re.escape(path)}": pair.alpha * strength for path, pair in pairs.items()},
        bias="none",
    )
    dtype = next(model.parameters()).dtype
    inject_adapter_in_model(settings, model, NAME)
    for path, layer in layers(model).items():
        for half, tensor in ((layer.lora_A[NAME], pairs[path].down), (layer.lora_B[NAME], pairs[path].up)):
            half.weight.data = tensor.to(half.weight.device, dtype, copy=True)
    model.requires_grad_(False)


@contextlib.contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """The base alone, inside the block."""
    changed = list(layers(model).values())
    for layer in changed:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in changed:
            layer.enable_adapters(True)


def remove(model: nn.Module) -> None:
    """Takes the LoRA out: the very modules that were there before stand in their places again."""
    for path, layer in layers(model).items():
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, layer.get_base_layer())
    # peft's note on the model, by which diffusers would take the LoRA for still there.
    vars(model).pop("peft_config", None)
