"""LoRA and its relatives in a model: which modules are targeted, putting it in, taking its tensors out, removing it
without a trace."""

import contextlib
import math
import re
from collections.abc import Iterator, Mapping

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from .. import randomness
from ..errors import BadInput
from ..lora_file.kinds import KINDS as FILE_KINDS
from ..lora_file.lora import ModuleWeights, Shapes, module_shapes
from .kind import Kind
from .kinds import KINDS
from .lora_config import PAIRS, PATTERN, LoRAConfig


def targeted_modules(
    model: nn.Module, config: LoRAConfig, presets: dict[str, str], setting: str = "adapter.targets"
) -> list[str]:
    """Paths of the linear and convolution modules that get a LoRA, in the model's order.

    Args:
        setting: where the user has written the targets.

    Raises:
        BadInput: an entry of `targets` matches nothing, or nothing is left.
    """
    paths = list(module_shapes(model))
    chosen: set[str] = set()
    for entry in config.targets:
        matched = matching(entry, paths, presets)
        if not matched:
            raise BadInput(
                f"{setting}: {entry!r} matches no module of this base; presets are {', '.join(presets)}, "
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


def check_rank(model: nn.Module, config: LoRAConfig, paths: list[str], setting: str = "adapter.rank") -> str:
    """What a person should know of a rank above the width of modules: the product of a pair has at most that rank.
    (Relatives without pairs are told by their rank, too, but not bound by it.)

    A module's width is the smaller side of its weight as a matrix, [outputs, inputs * kernel].

    Args:
        setting: where the user has written the rank.

    Returns:
        One sentence; empty if every module at `paths` is at least as wide.

    Raises:
        BadInput: none of them is.
    """
    if config.kind not in PAIRS:
        return ""
    rank, shapes = config.rank, module_shapes(model)
    widths = {path: min(shapes[path][0], math.prod(shapes[path][1:])) for path in paths}
    widest = max(widths, key=widths.__getitem__)
    if rank > widths[widest]:
        raise BadInput(
            f"{setting}: {rank} is above the width of every targeted module; the widest, {widest}, has "
            f"{widths[widest]} (the smaller of its inputs and outputs), and more can learn nothing more. Set at most "
            f"{widths[widest]}"
        )
    narrow = [path for path, width in widths.items() if width < rank]
    if not narrow:
        return ""
    return (
        f"{setting}: {rank} is above the width of {len(narrow)} of {len(paths)} targeted modules (such as "
        f"{narrow[0]}, of {widths[narrow[0]]}); there it learns no more than its width would, and weighs more"
    )


def inject(model: nn.Module, config: LoRAConfig, paths: list[str], seed: int, name: str = "") -> None:
    """Puts a new LoRA, or what `config.kind` names, into the modules at `paths`, fp32 and trainable.

    It changes nothing yet; what is random in it is keyed by the seed. Everything else in the model is frozen; its
    weights are not touched.

    Args:
        name: of the part of the base; each has random numbers of its own.

    Raises:
        BadInput: the kind cannot train one of the modules; the model is as it was.
    """
    model.requires_grad_(False)
    device = next(model.parameters()).device
    try:
        with randomness.reseeded(device, seed, "lora init", *filter(None, [name])):
            KINDS[config.kind].put(model, paths, config)
    except BaseException:  # an interrupt too leaves no half adapter in the base
        remove(model)
        raise
    for parameter in parameters(model).values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)


def kind_of(layer: nn.Module) -> Kind | None:
    """The kind of a layer; None for any other module."""
    return next((kind for kind in KINDS.values() if kind.owns(layer)), None)


def layers(model: nn.Module) -> dict[str, BaseTunerLayer]:
    """The adapter's layers by the path of the module that they wrap."""
    return {path: module for path, module in model.named_modules() if kind_of(module)}


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """What trains, by name, in the model's order."""
    return {
        f"{path}.{name}": parameter
        for path, layer in layers(model).items()
        for name, parameter in layer.named_parameters()
        if not name.startswith("base_layer.")
    }


def module_of(name: str) -> str:
    """The path of the module that a parameter of `parameters` belongs to."""
    return re.split(r"\.(?=(?:lora|hada|lokr|oft)_)", name, maxsplit=1)[0]


def extract(model: nn.Module) -> dict[str, ModuleWeights]:
    """What each layer holds, as it is, fp32 copies on the CPU, by module path."""
    return {path: kind_of(layer).take(layer) for path, layer in layers(model).items()}


@torch.no_grad()
def fill(model: nn.Module, weights: Mapping[str, ModuleWeights]) -> None:
    """Sets the injected layers' tensors; paths, kind, ranks and scales must be the injected ones.

    Raises:
        BadInput: they are not; what differs is named.
    """
    here = layers(model)
    different = _differences(weights, {path: kind_of(layer).take(layer) for path, layer in here.items()})
    if different:
        raise BadInput(different)
    for path, layer in here.items():
        kind_of(layer).set(layer, weights[path])


def _differences(found: Mapping[str, ModuleWeights], expected: Mapping[str, ModuleWeights]) -> str:
    """In words, how weights differ in form from the expected ones by path; empty if they do not."""
    problems = [f"no {expected[path].word} for {path}" for path in expected if path not in found]
    problems += [f"{path} is not among the targets" for path in found if path not in expected]
    for path in expected:
        if path in found:
            problems += _different_form(path, found[path].form, expected[path].form)
    return "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")


def _different_form(path: str, found: Mapping[str, str | float], expected: Mapping[str, str | float]) -> list[str]:
    """The first word of a form that differs, as a list of one sentence or none."""
    for word in expected | found:
        is_, should = found.get(word), expected.get(word)
        numbers = isinstance(is_, float) and isinstance(should, float)
        if abs(is_ - should) > 1e-6 * abs(is_) if numbers else is_ != should:
            return [f"{path} has {_said(word, is_)} instead of {_said(word, should, again=True)}"]
    return []


def _said(word: str, value: str | float | None, again: bool = False) -> str:
    if value is None:
        return "none" if again else f"no {word}"
    number = f"{value:g}" if isinstance(value, float) else str(value)
    return number if again else f"{word} {number}"


def check_start(
    weights: Mapping[str, ModuleWeights], shapes: Shapes, config: LoRAConfig, of_text_encoder: bool = False
) -> None:
    """That `fill` will take what is in the file `config.start_from`, once an adapter is in the modules.

    Args:
        weights: the file's, by module path.
        shapes: of the targeted modules' weights, by path.
        of_text_encoder: whose rank and targets are settings of their own.

    Raises:
        BadInput: the file is of another kind, or was made with other targets, rank or alpha.
    """
    kind = next(iter(weights.values())).kind
    if kind != config.kind:
        raise BadInput(
            f"adapter.start_from: {config.start_from} holds {FILE_KINDS[kind].title}, but adapter.kind is "
            f"{config.kind}; set it to {kind}, or start from another file"
        )
    different = _differences(weights, _forms(shapes, config))
    if different:
        settings = [f"adapter.{name}" for name in (*config.shaping, "targets")]
        if of_text_encoder:
            settings = ["adapter.text_encoder_rank", "adapter.text_encoder_targets"]
        raise BadInput(
            f"adapter.start_from: {config.start_from} does not fit these settings: {different}. Set "
            f"{', '.join(settings[:-1])} and {settings[-1]} to the file's (see `scion inspect`)"
        )


def _forms(shapes: Shapes, config: LoRAConfig) -> dict[str, ModuleWeights]:
    """What an adapter would hold in modules of these shapes; made once for each shape."""
    made: dict[tuple[int, ...], ModuleWeights] = {}
    for shape in set(shapes.values()):
        outputs, inputs, *kernel = shape
        sizes = (inputs, outputs, tuple(kernel)) if kernel else (inputs, outputs)
        # Not initialised in torch's way, which would draw from its global state.
        module = nn.utils.skip_init(nn.Conv2d if kernel else nn.Linear, *sizes, bias=False)
        nn.init.ones_(module.weight)
        stand_in = nn.ModuleDict({"module": module})
        inject(stand_in, config, ["module"], seed=0)
        made[shape] = extract(stand_in)["module"]
    return {path: made[shape] for path, shape in shapes.items()}


def apply(model: nn.Module, weights: Mapping[str, ModuleWeights], strength: float = 1.0) -> None:
    """Puts a finished LoRA, or relative, of any form into a model for sampling; frozen.

    Args:
        strength: the share of the change; 1 = as trained.
    """
    of_kind: dict[str, dict[str, ModuleWeights]] = {}
    for path, held in weights.items():
        of_kind.setdefault(held.kind, {})[path] = held
    for kind, held in of_kind.items():
        KINDS[kind].put_finished(model, held, strength)
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
