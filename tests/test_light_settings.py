"""The settings, and the help that is made of them, import nothing heavy: ComfyUI reads them while it starts."""

import subprocess
import sys
from pathlib import Path

import pytest

from trainer_core.engine.preview_config import PreviewConfig
from trainer_core.families.diffusion import SAMPLERS
from trainer_core.options import options_of

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "numpy", "PIL", "diffusers", "peft", "transformers", "accelerate", "safetensors"}

SETTINGS = """
from trainer_core import recipe
recipe.settings()
assert recipe.Recipe().validate() == []
recipe.to_toml(recipe.from_dict({"base": "scion-tiny", "adapter": {"rank": 8, "targets": ["re:mid.*"]}}))
"""
HELP = """
import sys
from trainer_core import cli
try:
    cli.main(%r)
except SystemExit as leaving:
    assert leaving.code == 0
else:
    raise AssertionError("went on after the help")
"""
PARSING = """
from trainer_core.cli import build_parser
build_parser().parse_args(["train", "recipe.toml", "--set", "adapter.rank=8"])
build_parser().parse_args(["sample", "--prompt", "a ring", "--sampler", "ddim"])
"""


def imported_by(code: str) -> set[str]:
    """The top-level modules that a fresh Python has loaded after the code."""
    said = "import sys\nprint('\\nloaded:', *{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code + said], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.rpartition("\nloaded: ")[2].split())
    assert "trainer_core" in loaded
    return loaded


@pytest.mark.parametrize(
    "code",
    [SETTINGS, HELP % ["train", "--help"], HELP % ["--help"], PARSING],
    ids=["settings", "train --help", "--help", "parsing"],
)
def test_nothing_heavy_is_imported_by(code):
    assert imported_by(code) & HEAVY == set()


@pytest.mark.parametrize("package", ["data", "adapters", "engine", "families", "families.clip_vocabulary", "lora_file"])
def test_a_package_alone_imports_nothing_heavy(package):
    assert imported_by(f"import trainer_core.{package}\n") & HEAVY == set()


def test_the_samplers_that_can_be_chosen_are_those_that_are_there():
    assert options_of(PreviewConfig)["sampler"].choices == tuple(SAMPLERS)
