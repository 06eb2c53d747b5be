"""The pack imports quickly and only in a host; the fakes of one test are not seen by the next."""

import asyncio
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LIGHT = f"""
import asyncio, importlib.util, pathlib, sys, tempfile
sys.path.insert(0, {str(HERE)!r})
import describe, fakes
host = fakes.Host(pathlib.Path(tempfile.mkdtemp(dir=".")) / "comfy")
for name in [name for name in host.modules if name.partition(".")[0] == "comfy"]:
    del host.modules[name]
with fakes.installed(host):
    nodes = asyncio.run(describe.nodes_of(describe.load({str(ROOT)!r})))
    described = describe.describe(nodes)
assert len(described) == 8, described
print("loaded:", *sys.modules)
"""
BARE = f"""
import importlib.util, sys
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("pack", {str(ROOT / "__init__.py")!r})
module = importlib.util.module_from_spec(spec)
sys.modules["pack"] = module
spec.loader.exec_module(module)
assert not hasattr(module, "comfy_entrypoint") and not hasattr(module, "WEB_DIRECTORY")
print("loaded:", *(set(sys.modules) - before))
"""


def loaded_by(code, folder):
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("loaded:")[2].split())


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The modules in a fresh Python after the pack was imported and every node described."""
    return loaded_by(LIGHT, tmp_path_factory.mktemp("elsewhere"))


@pytest.mark.parametrize("library", ["diffusers", "peft", "transformers", "accelerate"])
def test_importing_the_pack_leaves_out(loaded, library):
    assert library not in loaded


def test_importing_the_pack_needs_nothing_that_loads_models(loaded):
    assert {name for name in loaded if name.partition(".")[0] == "comfy"} == set()


def test_the_pack_imports_its_own_engine_and_none_that_is_installed(loaded):
    assert {name for name in loaded if name.partition(".")[0] == "trainer_core"} == set()
    assert f"{str(ROOT).replace('.', '_x_')}.trainer_core.recipe" in loaded


def test_without_a_host_the_entrance_imports_nothing(tmp_path):
    assert loaded_by(BARE, tmp_path) == {"pack"}


def test_the_entrance_gives_an_extension_and_the_folder_of_the_page_s_scripts(pack, fake_io):
    assert pack.module.WEB_DIRECTORY == "./web"
    assert list((ROOT / "web").rglob("*.js"))
    assert asyncio.iscoroutinefunction(pack.module.comfy_entrypoint)
    assert issubclass(pack("nodes").Scion, fake_io.ComfyExtension)


def test_every_route_is_the_packs_own_and_names_runs_and_datasets(pack, host):
    pytest.importorskip("aiohttp.test_utils")
    runs, datasets = "/scion/runs/{run}", "/scion/datasets/{name}"
    assert sorted((route.method, route.path) for route in host.server.routes) == [
        ("DELETE", runs),
        ("GET", "/scion/active"),
        ("GET", f"{datasets}/items"),
        ("GET", f"{datasets}/thumbnails/{{key:.+}}"),
        ("GET", "/scion/runs"),
        ("GET", runs),
        ("GET", f"{runs}/previews/{{name}}"),
        ("GET", f"{runs}/workflow"),
        ("GET", "/scion/settings"),
        ("GET", "/scion/widgets"),
        ("POST", f"{datasets}/files"),
        ("POST", f"{runs}/commands"),
        ("POST", f"{runs}/continue"),
        ("PUT", f"{datasets}/captions/{{key:.+}}"),
    ]


def test_the_fakes_are_gone_when_they_are_no_longer_needed(install):
    name = str(ROOT).replace(".", "_x_")
    assert importlib.util.find_spec("comfy_api") is None
    with install():
        assert importlib.util.find_spec("comfy_api.latest") is not None
    for module in ("comfy_api", "comfy", "folder_paths", "comfy_execution"):
        assert importlib.util.find_spec(module) is None, module
    assert [found for found in sys.modules if found == name or found.startswith(f"{name}.")] == []


@pytest.mark.parametrize("kind", ["Int", "Float", "String", "Combo", "Boolean", "Image", "MultiType"])
def test_the_fakes_refuse_a_keyword_that_the_host_does_not_know(fake_io, kind):
    more = {"Combo": {"options": []}, "MultiType": {"types": []}}.get(kind, {})
    getattr(fake_io, kind).Input("one", **more)
    with pytest.raises(TypeError, match="defualt"):
        getattr(fake_io, kind).Input("one", defualt=1, **more)


def test_the_fakes_refuse_two_inputs_of_one_name(fake_io):
    schema = fake_io.Schema("Node", inputs=[fake_io.Int.Input("one"), fake_io.Image.Input("one")])
    with pytest.raises(ValueError, match=r"Input ids must be unique, but \['one'\] are not"):
        schema.validate()
