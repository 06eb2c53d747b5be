"""A real ComfyUI is told the same of the nodes as the fakes are, and takes what the fakes take."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
NODES = list(json.loads((HERE / "widgets.json").read_text()))
MINUTES = 3

pytestmark = pytest.mark.host


def find_home():
    """As the tests in a real host find it."""
    before = set(sys.modules)
    spec = importlib.util.spec_from_file_location("nodes_host_conftest", HERE.parent / "host" / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    beside = sys.modules.get("host_server")
    try:
        spec.loader.exec_module(module)
        return module.find_home()
    finally:
        for name in set(sys.modules) - before:
            if name.startswith(("host_", "nodes_host_")):
                del sys.modules[name]
        if beside is not None:
            sys.modules["host_server"] = beside


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """What describe.py says in a real ComfyUI that has no models."""
    home = find_home()
    if isinstance(home, str):
        pytest.skip(home)
    done = subprocess.run(
        [home.python, HERE / "describe.py", ROOT, tmp_path_factory.mktemp("base")],
        cwd=home.code,
        capture_output=True,
        text=True,
        timeout=60 * MINUTES,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_nodes_are_the_same(pack, real):
    assert list(real["nodes"]) == list(pack.described()) == NODES


@pytest.mark.parametrize("node", NODES)
def test_inputs_are_the_same_in_order_kind_and_bounds(pack, real, node):
    assert real["nodes"][node]["inputs"] == pack.described()[node]["inputs"]


@pytest.mark.parametrize("node", NODES)
def test_texts_outputs_and_flags_are_the_same(pack, real, node):
    told, expected = real["nodes"][node], pack.described()[node]
    assert {**told, "inputs": None} == {**expected, "inputs": None}


def test_the_fakes_take_nothing_that_the_real_ones_do_not(signatures, real):
    more = {name: set(taken) - set(real["signatures"][name]) for name, taken in signatures.items()}
    assert {name: keywords for name, keywords in more.items() if keywords} == {}
