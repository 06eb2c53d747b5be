"""The pack without a host: loaded as ComfyUI loads it, among strict fakes that are gone when a test is over."""

import asyncio
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def by_path(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


fakes = by_path("nodes_fakes", HERE / "fakes.py")
describe = by_path("nodes_describe", HERE / "describe.py")


class Pack:
    """The loaded pack: its nodes by id, its modules by their names in the repository."""

    def __init__(self, module, nodes, host):
        self.module, self.nodes, self.host = module, nodes, host

    def __call__(self, name):
        """pack("nodes.host.paths"): one of its modules."""
        return importlib.import_module(f"{self.module.__name__}.{name}")

    def described(self):
        return describe.describe(self.nodes.values())

    @property
    def BadInput(self):
        return self("trainer_core.errors").BadInput

    def settings(self):
        return self("trainer_core.recipe").settings()

    def widgets(self):
        """The widgets that stand for settings, by node id."""
        modules = {
            "ScionLoadImageCaptionDataset": "load_dataset",
            "ScionLoRATrainConfig": "train_config",
            "ScionTrainLoRA": "train_lora",
            "ScionSampleTrainingModel": "sample",
        }
        return {node: self(f"nodes.{module}").WIDGETS for node, module in modules.items()}

    def run(self, node, **inputs):
        """What a node gives for inputs that its schema has; where it takes lists, a value that is none becomes one."""
        schema = self.nodes[node].GET_SCHEMA()
        known = {one.id for one in schema.inputs}
        assert set(inputs) <= known, set(inputs) - known
        if schema.is_input_list:
            inputs = {name: value if isinstance(value, list) else [value] for name, value in inputs.items()}
        # The host gives each run a class of its own, so that nothing can be left behind in the node.
        hidden = fakes.io.HiddenHolder(unique_id="7" if fakes.io.Hidden.unique_id in schema.hidden else None)
        own = type("Clone", (self.nodes[node],), {"hidden": hidden})
        return own.execute(**inputs)

    def validate(self, node, **inputs):
        """What a node's own check says of a prompt's inputs; None stands for a link, as in the host."""
        check = self.nodes[node].validate_inputs
        spec = inspect.getfullargspec(check)
        asked = {name: value for name, value in inputs.items() if spec.varkw or name in spec.args}
        if self.nodes[node].GET_SCHEMA().is_input_list:
            # The host keeps a link as a tuple, what was typed in as a list.
            asked = {name: (None,) if value is None else [value] for name, value in asked.items()}
        return check(**asked)


@pytest.fixture(scope="session")
def shared_host(tmp_path_factory):
    return fakes.Host(tmp_path_factory.mktemp("host") / "comfy")


@pytest.fixture
def host(shared_host, tmp_path):
    """The fakes, importable: host.base (its folder), host.folders, host.server, host.work."""
    shared_host.reset(tmp_path / "comfy")
    with fakes.installed(shared_host):
        yield shared_host


@pytest.fixture(scope="session")
def imported():
    """The pack's modules by name and its nodes, kept from test to test."""
    return SimpleNamespace(modules={}, nodes=None)


@pytest.fixture
def pack(host, imported):
    """The pack in the fake host; see Pack."""
    name = str(ROOT).replace(".", "_x_")
    sys.modules.update(imported.modules)
    try:
        if imported.nodes is None:
            nodes = asyncio.run(describe.nodes_of(describe.load(ROOT)))
            imported.nodes = {node.define_schema().node_id: node for node in nodes}
            host.folders.filename_list_cache.clear()
        yield Pack(sys.modules[name], imported.nodes, host)
    finally:
        for module in [found for found in sys.modules if found == name or found.startswith(f"{name}.")]:
            imported.modules[module] = sys.modules.pop(module)


@pytest.fixture
def paths(pack):
    return pack("nodes.host.paths")


@pytest.fixture
def install(shared_host):
    """install() is a context in which the fakes can be imported; without the pack."""
    return lambda: fakes.installed(shared_host)


@pytest.fixture
def fake_io():
    return fakes.io


@pytest.fixture
def signatures(host):
    """What the fakes take, by name."""
    return describe.signatures()


@pytest.fixture
def ask(pack, host):
    """ask("GET", path): the answer of the pack's routes, with its JSON, or its bytes, as `body`."""
    web, test = pytest.importorskip("aiohttp.web"), pytest.importorskip("aiohttp.test_utils")
    yarl = pytest.importorskip("yarl")

    async def answer(method, path, most, given):
        app = web.Application(client_max_size=most)
        app.add_routes(host.server.routes)
        async with test.TestClient(test.TestServer(app)) as client:
            async with client.request(method, yarl.URL(path, encoded=True), **given) as got:
                body = await (got.json() if got.content_type == "application/json" else got.read())
                return SimpleNamespace(status=got.status, body=body, headers=got.headers)

    return lambda method, path, most=2**20, **given: asyncio.run(answer(method, path, most, given))


@pytest.fixture
def picture():
    """Writes a small picture, and a caption beside it."""
    from PIL import Image

    def write(path, caption="a thing", colour=(200, 30, 40), size=(64, 64)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(path)
        if caption is not None:
            path.with_suffix(".txt").write_text(caption, encoding="utf-8")
        return path

    return write
