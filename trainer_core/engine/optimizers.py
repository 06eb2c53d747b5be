"""What steps: optimisers from their libraries, made with our settings."""

import contextlib
import difflib
import importlib
import inspect
import io
from typing import Any

import torch

from ..adapters.words_config import WordsConfig
from ..errors import BadInput
from . import optimizer_state
from .optimizer_config import DEFAULTS, OURS, OptimizerConfig
from .optimizer_habits import averages, stepping
from .optimizer_limits import REFUSED


def check(config: OptimizerConfig, device: torch.device) -> None:
    """That the optimiser can be made; before a base or pictures are loaded.

    Raises:
        BadInput: its library is missing (the pip line is named), it does not work on the device, or does not take what
            the settings give it.
    """
    chosen, kind, setting = config.chosen, config.kind, _setting(config)
    if config.custom in REFUSED:
        raise BadInput(f"{setting}: {chosen} does not work here: {REFUSED[config.custom]}")
    if kind.device and device.type != kind.device:
        raise BadInput(
            f"{setting}: {chosen!r} needs a {kind.device.upper()} device, and this run is on the {device.type}; "
            f"take {chosen.removeprefix('paged_')!r}"
        )
    given = arguments(config)
    try:
        _trial(config, given, device)
    except Exception as error:  # whatever the library says
        said = str(error).strip() or type(error).__name__
        raise BadInput(f"{setting}: {chosen} cannot be used with these settings: {said}") from error


def _trial(config: OptimizerConfig, keywords: dict[str, Any], device: torch.device) -> None:
    """One step on a pair of small matrices, and its state as a checkpoint keeps it."""
    pair = {
        name: torch.nn.Parameter(torch.zeros(shape, device=device)) for name, shape in (("A", (4, 8)), ("B", (8, 4)))
    }
    optimizer = _make(config, list(pair.values()), keywords)
    if averages(optimizer):
        optimizer.train()
    for parameter in pair.values():
        parameter.grad = torch.ones_like(parameter)
    with stepping(config.kind, pair["A"].device, "trial"):
        optimizer.step()
    optimizer_state.pack(optimizer, pair)


def check_words(config: OptimizerConfig, words: WordsConfig) -> None:
    """
    Raises:
        BadInput: new words are to decay, and the optimiser has no weight decay.
    """
    if words.weight_decay and "weight_decay" not in _accepted(config):
        raise BadInput(f"words.weight_decay: {words.weight_decay:g}, but {config.chosen} has none; set it to 0")


def build_optimizer(
    config: OptimizerConfig, parameters: list[torch.nn.Parameter] | list[dict]
) -> torch.optim.Optimizer:
    """The optimiser over parameters, or over `groups`.

    Raises:
        BadInput: as `check`, but for the device.
    """
    return _make(config, parameters, arguments(config))


def averages_itself(config: OptimizerConfig) -> bool:
    """Whether the optimiser averages the weights, as schedule-free ones do.

    Raises:
        BadInput: as `check`.
    """
    return averages(_class(config))


def _make(config: OptimizerConfig, parameters: list, keywords: dict[str, Any]) -> torch.optim.Optimizer:
    first = parameters[0]["params"][0] if isinstance(parameters[0], dict) else parameters[0]
    # prodigyopt prints what it was told; some of adv_optm's draw vectors to begin with.
    with contextlib.redirect_stdout(io.StringIO()), stepping(config.kind, first.device, "made"):
        return _class(config)(parameters, lr=config.learning_rate, **keywords)


def arguments(config: OptimizerConfig) -> dict[str, Any]:
    """Our settings and the user's own arguments as the optimiser's keywords, without the learning rate.

    Raises:
        BadInput: the library is missing, or the optimiser has no such argument (those that it has are named).
    """
    kind, typed = config.kind, config.keywords()
    accepted = _accepted(config)
    unknown = [name for name in typed if name not in accepted]
    if unknown:
        near = difflib.get_close_matches(unknown[0], accepted, 1)
        raise BadInput(
            f"optimizer.arguments: {config.chosen} has no {unknown[0]!r}"
            + (f"; did you mean {near[0]!r}?" if near else "")
            + f" It takes {', '.join(name for name in accepted if name not in OURS)}"
        )
    found = {**kind.fixed, **_translated(config, accepted, typed), **typed}
    missing = [
        name
        for name, parameter in accepted.items()
        if parameter.default is parameter.empty and name not in found and name not in OURS
    ]
    if missing:
        raise BadInput(f"optimizer.arguments: {config.chosen} needs {', '.join(missing)}: write {missing[0]}=… there")
    return found


def _translated(config: OptimizerConfig, accepted: dict, typed: dict) -> dict[str, Any]:
    """weight_decay, beta1, beta2 and epsilon as the optimiser calls them.

    The last three are passed on only where they were changed: 0.999 is AdamW's own beta2, but not Lion's.
    """
    found: dict[str, Any] = {}
    if "weight_decay" in accepted:
        found["weight_decay"] = config.weight_decay
    elif config.weight_decay not in (0, OptimizerConfig().weight_decay):
        raise BadInput(f"optimizer.weight_decay: {config.chosen} has none; leave it at its default")
    changed = [a != b for a, b in zip((config.beta1, config.beta2, config.epsilon), DEFAULTS, strict=True)]
    betas = accepted["betas"].default if "betas" in accepted else ()
    for place, name in enumerate(("beta1", "beta2")):
        if changed[place] and "betas" not in typed:
            if not isinstance(betas, (tuple, list)) or place >= len(betas):
                raise BadInput(f"optimizer.{name}: {config.chosen} has none; leave it at its default")
            betas = tuple(getattr(config, name) if i == place else beta for i, beta in enumerate(betas))
            found["betas"] = betas
    if changed[2] and "eps" not in typed:
        if "eps" not in accepted or not isinstance(accepted["eps"].default, float):
            raise BadInput(
                f"optimizer.epsilon: {config.chosen} has no single one; leave it at its default"
                + (", and write eps=(…) into optimizer.arguments" if "eps" in accepted else "")
            )
        found["eps"] = config.epsilon
    return found


def _setting(config: OptimizerConfig) -> str:
    return "optimizer.custom" if config.custom else "optimizer.name"


def _class(config: OptimizerConfig) -> type[torch.optim.Optimizer]:
    kind, setting = config.kind, _setting(config)
    library = kind.module.partition(".")[0]
    try:
        module = importlib.import_module(kind.module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != library:
            raise BadInput(f"{setting}: the package {kind.package} cannot be loaded ({error})") from error
        raise BadInput(
            f"{setting}: {config.chosen!r} needs the package {kind.package}, which is not installed; "
            f"pip install {kind.package}"
        ) from None
    except Exception as error:  # what a binary library says that does not fit this machine
        raise BadInput(f"{setting}: the package {kind.package} cannot be loaded ({error})") from error
    found = getattr(module, kind.class_name, None)
    if not isinstance(found, type) or not issubclass(found, torch.optim.Optimizer):
        known = [name for name, one in vars(module).items() if isinstance(one, type) and _usable(library, name, one)]
        near = difflib.get_close_matches(kind.class_name, known, 1, 0.4)
        raise BadInput(
            f"{setting}: {library} has no optimiser {kind.class_name!r}"
            + (f"; did you mean {library}.{near[0]}?" if near else "")
        )
    return found


def _usable(library: str, name: str, one: type) -> bool:
    return issubclass(one, torch.optim.Optimizer) and f"{library}.{name}" not in REFUSED


def _accepted(config: OptimizerConfig) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(_class(config)).parameters
    return {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
