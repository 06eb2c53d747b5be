"""One line a while about how a part's training goes, and the learning rate that all parts share."""

import math
import time


class Progress:
    """Prints a part's averaged numbers every `every` steps."""

    def __init__(self, part: str, steps: int, every: int = 50, begin: int = 0):
        self.part, self.steps, self.every, self.begin = part, steps, every, begin
        self.start, self.sums = time.monotonic(), {}

    def __call__(self, step: int, **numbers) -> None:
        for name, value in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        if (step + 1) % self.every == 0:
            seconds = time.monotonic() - self.start
            means = "  ".join(f"{name} {total / self.every:.4f}" for name, total in self.sums.items())
            left = seconds / (step + 1 - self.begin) * (self.steps - step - 1)
            print(f"{self.part} {step + 1}/{self.steps}  {means}  {seconds:.0f} s, {left:.0f} s left", flush=True)
            self.sums = {}


def warm_cosine(step: int, steps: int, warmup: int = 100, floor: float = 0.01) -> float:
    """Factor of the learning rate: linear warm-up, then a half cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
