"""How fast a run goes, how long it will take, how much memory it holds."""

import time

import psutil
import torch

from .events import Steps

SMOOTHING = 0.9


class Meter:
    """Measures steps; what happens between them (previews, saving) does not count as a step's time."""

    def __init__(self, device: torch.device, total: int):
        self.device, self.total = device, total
        self._process = psutil.Process()
        self._average, self._weight, self._started = 0.0, 0.0, 0.0

    def begin(self) -> None:
        self._started = time.perf_counter()

    def end(self) -> None:
        # A mean that forgets, corrected for its beginning as Adam's are (Kingma & Ba 2015, section 3).
        self._average = SMOOTHING * self._average + (1 - SMOOTHING) * (time.perf_counter() - self._started)
        self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)

    def steps(self, last: int, losses: list[float], rate: float, epoch: int) -> Steps:
        """The event for the last `len(losses)` steps."""
        seconds = self._average / self._weight
        return Steps(
            last - len(losses) + 1,
            losses,
            rate,
            self.total,
            epoch,
            seconds,
            seconds * (self.total - last),
            self._memory(),
        )

    def _memory(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return self._process.memory_info().rss
