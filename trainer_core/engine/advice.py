"""What a person is told to do next: how to go on with a run, begin it otherwise, or make it fit into memory."""

from collections.abc import Mapping
from pathlib import Path

from ..families.base import Model


class CommandLine:
    """Advice for a person at a terminal. The graph gives its own, in the same two sentences."""

    def go_on(self, recipe: Path) -> str:
        """How to go on with the run whose recipe this is."""
        return f'Go on with: scion train "{recipe}"'

    def begin_lower(self, recipe: Path, rate: str, start: Mapping[str, str]) -> str:
        """How to begin it with a lower learning rate.

        Args:
            rate: that learning rate.
            start: settings by dotted name that begin at the last good weights; empty if there are none.
        """
        words = "Begin another run from there" if start else "Begin anew"
        changes = {"run.existing": "new", "optimizer.learning_rate": rate, **start}
        said = " ".join(f"--set {name}={value}" for name, value in changes.items())
        return f'{words} with a lower learning rate: scion train "{recipe}" {said}'


def memory_advice(recipe, model: Model, precision: str, encoding: bool = False) -> str:
    """What a person can lower when memory runs out, with the present values, the least painful first.

    Args:
        precision: the one that "auto" became.
    """
    run, side = recipe.run, recipe.dataset.resolution or model.resolution
    if recipe.dataset.width:
        side = f"{recipe.dataset.width}×{recipe.dataset.height} by dataset.width and height"
    if encoding:
        first = "a smaller dataset.resolution first: pictures are encoded one at a time"
    elif not run.gradient_checkpointing:
        first = "run.gradient_checkpointing=true first: slower, but the same run goes on"
    elif run.batch_size > 1:
        half = run.batch_size // 2
        again = -(-run.batch_size * run.accumulation // half)
        first = f"run.batch_size={half} with run.accumulation={again} first: almost the same training"
    elif precision == "fp32":
        first = "run.precision=bf16 first: half the memory"
    else:
        first = "a smaller dataset.resolution first"
    return (
        f"out of memory. Try {first}. Memory is taken by run.batch_size (now {run.batch_size}), dataset.resolution "
        f"(now {side}), run.gradient_checkpointing (now {str(run.gradient_checkpointing).lower()}) and run.precision "
        f"(now {precision}); all but run.gradient_checkpointing make it another run, which run.existing=new begins"
    )
