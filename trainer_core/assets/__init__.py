"""The built-in base model, the example dataset, and the scripts that made both."""

from pathlib import Path

SCION_TINY = Path(__file__).parent / "scion_tiny"
EXAMPLE_DATASET = Path(__file__).parent / "example"
