"""The page's scripts: their data handling under node, its parts in a real browser where there is a host's frontend."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NODE = shutil.which("node")
SECONDS = 600
FRONTEND = "import importlib.util as i; print(i.find_spec('comfyui_frontend_package').submodule_search_locations[0])"

needs_node = pytest.mark.skipif(NODE is None, reason="no node")


def of_the_host(name):
    spec = importlib.util.spec_from_file_location("web_host_conftest", HERE.parent / "host" / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def node_tests(files, **environment):
    """What node says of the tests in these files; the test fails with it where they do."""
    # One file after the other: frames are counted, and browsers share the cores.
    command = [NODE, "--test", "--test-concurrency=1", "--test-reporter=tap", *map(str, files)]
    ran = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=SECONDS)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    assert "# fail 0" in ran.stdout and "# pass 0\n" not in ran.stdout, ran.stdout[-2000:]


@needs_node
def test_the_chart_s_data_the_store_and_the_words_behave_as_their_node_tests_say():
    node_tests(sorted(HERE.glob("*.test.mjs")))


@needs_node
@pytest.mark.host
def test_the_parts_behave_in_the_host_s_real_page():
    """PLAYWRIGHT_MODULES is the folder of a node_modules with playwright-core; SHOTS is one for screenshots."""
    home = of_the_host("find_home")()
    if isinstance(home, str):
        pytest.skip(home)
    package = subprocess.run([home.python, "-c", FRONTEND], capture_output=True, text=True)
    if package.returncode:
        pytest.skip("the host's interpreter has no comfyui_frontend_package")
    tools = {"FRONTEND": str(Path(package.stdout.strip()) / "static"), "STUB_PYTHON": str(home.python)}
    reason = subprocess.run([NODE, HERE / "browser.mjs"], env=os.environ | tools, capture_output=True, text=True).stdout
    if reason:
        pytest.skip(reason.strip())
    node_tests(sorted((HERE / "browser").glob("*.test.mjs")), **tools)
