"""What an installed Scion brings beside its code: a wheel holds what pyproject.toml's patterns match."""

import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_every_file_of_the_package_that_is_no_code_is_matched_by_a_pattern():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "trainer_core"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    tracked = {ROOT / name for name in listed.stdout.split("\0") if name and not name.endswith(".py")}
    assert ROOT / "trainer_core/families/clip_vocabulary/merges.txt.gz" in tracked
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    package = ROOT / "trainer_core"
    matched = {path for pattern in patterns["trainer_core"] for path in package.glob(pattern)}
    assert sorted(tracked - matched) == []
