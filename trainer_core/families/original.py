"""Models in one file under their original names: their parts, and a transformer's weights as diffusers names them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from ..errors import BadInput
from ..lora_file.fused import unstacked
from .weights import State

Called = Mapping[str, tuple[str, str]]
"""By part, as diffusers' folders call it: what it is for a person, and how its keys begin."""


def under(state: State, prefix: str) -> State:
    """What of a file has keys that begin so, without that beginning."""
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def parts_of(state: State, called: Called, path: Path, remedy: str, bare: str = "") -> dict[str, State]:
    """The parts of a file, under their own names.

    Args:
        remedy: what a file is that has them all, for the message.
        bare: a part whose keys may stand without their beginning; it is all that is of no other part.

    Raises:
        BadInput: a part is missing; all that are, are named.
    """
    own = {part: under(state, prefix) for part, (_, prefix) in called.items()}
    if bare and not own[bare]:
        others = tuple(prefix for _, prefix in called.values())
        own[bare] = {key: tensor for key, tensor in state.items() if not key.startswith(others)}
    missing = [f"{title} ({prefix}…)" for part, (title, prefix) in called.items() if not own[part]]
    if missing:
        raise BadInput(f"base: {path} lacks {', '.join(missing)}{remedy}")
    return own


@contextmanager
def readable(label: str) -> Iterator[None]:
    """Inside the block configurations are read off keys and shapes that nobody has checked yet.

    Args:
        label: what to call the weights in a message.

    Raises:
        BadInput: a weight that tells something is missing, or has a shape that no such model has.
    """
    try:
        yield
    except KeyError as error:
        raise BadInput(f"base: {label} lacks {error}, so its shape cannot be read; is the file whole?") from None
    except (IndexError, ValueError, ZeroDivisionError) as error:
        raise BadInput(f"base: {label} has weights of shapes that no such model has; is the file whole?") from error


def in_diffusers_names(
    weights: State, names: ModuleType, config: dict, label: str, others: Mapping[str, str] | None = None
) -> State:
    """A transformer's weights in diffusers' names: views of what is given, but for modules whose rows stand in another
    order, which are copied.

    Args:
        weights: in their original names.
        names: the module of `lora_file` that has the `original_names` and `stacks` of such a transformer.
        config: diffusers'.
        label: what to call the weights in a message.
        others: diffusers' keys of weights that are no module's weight or bias, and the original ones.

    Raises:
        BadInput: a stacked weight has another shape than the configuration says.
    """
    whole = {theirs: ours for ours, theirs in (others or {}).items()}
    paths = {theirs: ours for ours, theirs in names.original_names(config).items()}
    stacks, found = names.stacks(config), {}
    for key, tensor in weights.items():
        path, _, kind = key.rpartition(".")
        if path in stacks:
            try:
                found |= {f"{ours}.{kind}": rows for ours, rows in unstacked(stacks[path], tensor).items()}
            except ValueError as error:
                raise BadInput(f"base: {label}: {key} has {error}") from None
        elif key in whole:
            found[whole[key]] = tensor
        else:
            # What has no other name keeps its own, and is named where it is found to be too much.
            found[f"{paths[path]}.{kind}" if path in paths else key] = tensor
    return found
