"""A run's history as a chart needs it: the columns of its metrics file, thinned to as many points as can be seen."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Points = list[tuple[int, float]]
SHORTEST_WINDOW, LONGEST_WINDOW, WINDOW_SHARE = 5, 500, 1 / 50
"""Steps over which a run's loss is averaged: that part of all its steps, within these bounds."""


@dataclass
class Thinned:
    """The loss by buckets of equal width in steps; where no bucket holds more than one step, the loss itself."""

    step: list[int] = field(default_factory=list)
    """The last step of each bucket that has a loss."""
    loss: list[float] = field(default_factory=list)
    """Mean of the bucket."""
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)


class History:
    """Columns of a metrics file, in the order of the steps.

    Args:
        lines: as `metrics.read` gives them.
    """

    def __init__(self, lines: Iterable[dict[str, Any]]):
        steps, losses, rates = [], [], []
        self.validation: list[tuple[int, float | None]] = []
        self.best: int = 0
        """The step with the lowest validation loss; 0 = none."""
        self.previews: list[dict[str, Any]] = []
        self.checkpoints: list[int] = []
        self.seconds_per_step: float | None = None
        self.last = 0
        """The last step that is told of."""
        for line in lines:
            self.last = max(self.last, line["step"])
            if "loss" in line:
                steps.append(line["step"])
                losses.append(np.nan if line["loss"] is None else line["loss"])
                rates.append(line.get("learning_rate", np.nan))
                self.seconds_per_step = line.get("seconds", self.seconds_per_step)
            elif "validation" in line:
                self.validation.append((line["step"], line["validation"]))
                self.best = line.get("best_step", self.best)
            elif "preview" in line:
                self.previews.append(_preview(line))
            elif "checkpoint" in line:
                self.checkpoints.append(line["step"])
        self.steps = np.array(steps, dtype=np.int64)
        self.losses, self.rates = np.array(losses, dtype=np.float64), np.array(rates, dtype=np.float64)

    def thinned(self, points: int, after: int = 0) -> Thinned:
        """The losses of the steps after one.

        Args:
            points: at most so many buckets; at least 1.
        """
        told = (self.steps > after) & np.isfinite(self.losses)
        steps, losses = self.steps[told], self.losses[told]
        if not len(steps):
            return Thinned()
        width = -(-int(steps[-1] - steps[0] + 1) // points) if len(steps) > points else 1
        buckets = (steps - steps[0]) // width
        starts = np.flatnonzero(np.diff(buckets, prepend=-1))
        ends = np.append(starts[1:], len(steps))
        return Thinned(
            steps[ends - 1].tolist(),
            (np.add.reduceat(losses, starts) / (ends - starts)).tolist(),
            np.minimum.reduceat(losses, starts).tolist(),
            np.maximum.reduceat(losses, starts).tolist(),
        )

    def learning_rate(self, points: int, after: int = 0) -> Points:
        """Step and rate wherever it changed, at most so many times; the last step with its own, too."""
        told = (self.steps > after) & np.isfinite(self.rates)
        steps, rates = self.steps[told], self.rates[told]
        if not len(steps):
            return []
        changed = np.flatnonzero(np.diff(rates, prepend=np.nan))
        if len(changed) > points:
            changed = changed[np.linspace(0, len(changed) - 1, points).astype(int)]
        kept = np.unique(np.append(changed, len(steps) - 1))
        return list(zip(steps[kept].tolist(), rates[kept].tolist(), strict=True))

    def smoothed_loss(self, total: int) -> float | None:
        """The loss of a run as a person is told it: the end of its exponential moving average; None where it has none.

        After the first finite loss, of step a, the loss x of step k moves the average s by
        (1 - exp(-d / min(k - a, w))) (x - s), where d steps have passed since the finite loss before it and w is the
        window. web/js/lib/series.js computes the same for the chart.

        Args:
            total: steps of the run, which the window hangs on.
        """
        told = np.isfinite(self.losses)
        steps, losses = self.steps[told], self.losses[told]
        if not len(steps):
            return None
        gaps = np.diff(steps) / np.minimum(steps[1:] - steps[0], smoothing_window(total))
        smoothed = float(losses[0])
        for weight, loss in zip((-np.expm1(-gaps)).tolist(), losses[1:].tolist(), strict=True):
            smoothed += weight * (loss - smoothed)
        return smoothed

    @property
    def best_validation(self) -> dict[str, Any] | None:
        loss = dict(self.validation).get(self.best)
        return None if loss is None else {"step": self.best, "loss": loss}


def smoothing_window(total: int) -> int:
    """Time constant, in steps, of the average over a run of so many steps."""
    return min(LONGEST_WINDOW, max(SHORTEST_WINDOW, math.floor(total * WINDOW_SHARE + 0.5)))


def _preview(line: dict[str, Any]) -> dict[str, Any]:
    told = {key: line.get(key) for key in ("prompts", "count", "width", "height")}
    # An older Scion told the name alone.
    return {"step": line["step"], "name": line["preview"], **told, "prompts": told["prompts"] or []}
