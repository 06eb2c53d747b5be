"""Which pictures are kept out of training, to measure the validation loss on."""

from collections.abc import Callable

from .. import randomness
from ..errors import BadInput
from .items import Item


def split(items: list[Item], holdout: int, is_prior: Callable[[Item], bool]) -> tuple[list[Item], list[Item]]:
    """Training items and held-out ones, chosen by the content of the pictures: the same whatever the seed or the names.

    Copies of one picture go to the same side, so that the holdout never holds what is trained on.

    Args:
        holdout: how many to hold out.
        is_prior: whether an item is a regularisation picture; all of those are trained on.

    Raises:
        BadInput: there are no items, or none would be left to train on.
    """
    if not items:
        raise BadInput("dataset: there is no picture to train on.")
    prior = {item.digest for item in items if is_prior(item)}
    free = [item for item in items if item.digest not in prior]
    if not holdout or not free:
        return items, []
    ranked = sorted(free, key=lambda item: (randomness.key("holdout", item.digest), item.key))
    chosen = {item.digest for item in ranked[:holdout]}
    training = [item for item in items if item.digest not in chosen]
    if all(map(is_prior, training)):
        raise BadInput(
            f"dataset.holdout: {holdout} of {len(free)} pictures leaves none to train on; hold out at most "
            f"{len(free) - 1}."
        )
    return training, [item for item in items if item.digest in chosen]
