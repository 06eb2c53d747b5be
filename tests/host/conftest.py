"""A real ComfyUI with this pack, a checkpoint of random weights and a small dataset; without a ComfyUI, all skip.

The host is found by COMFYUI_PATH, else in comfy-cli's default workspace; its interpreter by COMFYUI_PYTHON, else in the
virtual environments that are usual in and beside it.
"""

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from diffusers import FluxTransformer2DModel, HunyuanDiT2DModel, SD3Transformer2DModel
from safetensors.torch import save_file
from transformers import T5TokenizerFast

from trainer_core.families.clip_vocabulary.tokenizer import clip_tokenizer
from trainer_core.families.t5_vocabulary.tokenizer import t5_tokenizer

HERE = Path(__file__).parent
WORKSPACE = Path.home() / "comfy" / "ComfyUI"
INTERPRETERS = (".venv/bin/python", "venv/bin/python", "../venv/bin/python")
CHECKPOINT = "random-sd15.safetensors"
DATASET = "things"
PROBES = (
    "probe.py",
    "conditioned_probe.py",
    "sdxl_probe.py",
    "sd3_probe.py",
    "hunyuan_probe.py",
    "flux_probe.py",
)


@dataclass(frozen=True)
class Home:
    """Where a host is installed: the folder of its main.py, and the interpreter it runs with."""

    code: Path
    python: Path


def find_home() -> Home | str:
    """The host's installation, or why there is none."""
    code = Path(os.environ.get("COMFYUI_PATH") or WORKSPACE).expanduser()
    if not (code / "main.py").is_file():
        return f"no ComfyUI in {code}; COMFYUI_PATH names its folder"
    named = os.environ.get("COMFYUI_PYTHON")
    for python in [Path(named).expanduser()] if named else [code / place for place in INTERPRETERS]:
        if python.is_file():
            # Made absolute without following links: a virtual environment's interpreter is a link out of it.
            return Home(Path(os.path.abspath(code)), Path(os.path.abspath(python)))
    looked = named or ", ".join(INTERPRETERS)
    return f"no interpreter for the ComfyUI in {code} ({looked}); COMFYUI_PYTHON names it"


def pytest_collection_modifyitems(items):
    own = [item for item in items if item.path.is_relative_to(HERE)]
    home = find_home()
    for item in own:
        item.add_marker(pytest.mark.host)
        if isinstance(home, str):
            item.add_marker(pytest.mark.skip(reason=home))


def beside(name: str):
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"host_{Path(name).name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


listener = beside("listener")  # before server.py, which imports it as host_listener
server = beside("server")


@pytest.fixture(scope="session")
def host_home() -> Home:
    home = find_home()
    return pytest.skip(home) if isinstance(home, str) else home


@pytest.fixture(scope="session")
def write_checkpoint():
    """checkpoint.write(path, seed, dtype, v_pred, ztsnr)."""
    return beside("checkpoint").write


@pytest.fixture(scope="session")
def sd15_checkpoint(write_checkpoint, tmp_path_factory):
    """The checkpoint that all hosts have, half a gigabyte: it is not kept when the tests are over."""
    path = write_checkpoint(tmp_path_factory.mktemp("checkpoint") / CHECKPOINT)
    yield path
    path.unlink()


@pytest.fixture(scope="session")
def make_host(host_home, sd15_checkpoint, pictures):
    """Builds a HostServer over a folder, not started, with the checkpoint and the dataset in place."""

    def make(base, *arguments, pack=True, environment=None):
        host = server.HostServer(host_home.code, host_home.python, base, arguments, pack, environment)
        try:
            os.link(sd15_checkpoint, base / "models" / "checkpoints" / CHECKPOINT)
        except OSError:
            shutil.copyfile(sd15_checkpoint, base / "models" / "checkpoints" / CHECKPOINT)
        shutil.copytree(pictures, base / "input" / DATASET)
        for probe in PROBES if pack else ():
            shutil.copyfile(HERE / probe, base / "custom_nodes" / probe)
        return host

    return make


def end(host):
    host.stop()
    (host.base / "models" / "checkpoints" / CHECKPOINT).unlink(missing_ok=True)


@pytest.fixture(scope="session")
def sdxl_folder(save_random_sdxl, tmp_path_factory):
    """A random Stable Diffusion XL for sdxl_probe.py. The host's CLIP-G has a projection as wide as itself."""
    return save_random_sdxl(tmp_path_factory.mktemp("sdxl") / "base", clip_tokenizer(), clip_tokenizer("!"), 64)


@pytest.fixture(scope="session")
def sd3_folder(tmp_path_factory):
    """A random Stable Diffusion 3.5 without T5 for sd3_probe.py, its transformer under the original names, too.

    The host widens the states of both CLIPs to 4,096, whatever the model takes, and T5's would have to be as wide.
    """
    models = beside("../families/sd3_models")
    folder, words = tmp_path_factory.mktemp("sd3") / "base", (clip_tokenizer(), clip_tokenizer("!"))
    models.save(folder, words, projection=64, joint_attention_dim=4096, **models.MEDIUM_35)
    transformer = SD3Transformer2DModel.from_pretrained(folder / "transformer")
    save_file(models.original(transformer), folder / "original.safetensors")
    return folder


@pytest.fixture(scope="session")
def hunyuan_folders(host_home, save_random_hunyuan, in_hunyuan_names, tmp_path_factory):
    """Random HunyuanDiTs for hunyuan_probe.py, "1.1" and "1.2", over the vocabulary that the host brings; their
    transformers lie under the original names beside them."""
    vocabulary = host_home.code / "comfy" / "text_encoders" / "hydit_clip_tokenizer" / "vocab.txt"
    place, found = tmp_path_factory.mktemp("hunyuan"), {}
    for version in ("1.1", "1.2"):
        folder = save_random_hunyuan(place / version, version == "1.1", vocabulary)
        model = HunyuanDiT2DModel.from_pretrained(folder / "transformer")
        save_file(in_hunyuan_names(model.state_dict(), model.config), folder / "original.safetensors")
        found[version] = folder
    return found


@pytest.fixture(scope="session")
def flux_folders(tmp_path_factory):
    """Random FLUX.1 dev and schnell for flux_probe.py, their transformers under the original names, too."""
    models, words = beside("../families/flux_models"), tmp_path_factory.mktemp("t5-words")
    t5_tokenizer().save_pretrained(words)
    found = {}
    for name in ("dev", "schnell"):
        found[name] = folder = tmp_path_factory.mktemp("flux") / name
        t5_words = T5TokenizerFast.from_pretrained(words)
        transformer = models.save(folder, clip_tokenizer(), t5_words, guided=name == "dev") / "transformer"
        module = FluxTransformer2DModel.from_pretrained(transformer)
        save_file(models.original(module.state_dict(), module.config), folder / "original.safetensors")
    return found


@pytest.fixture(scope="session")
def connect():
    """Listener(port, client_id): a websocket client of any server on this machine."""
    return listener.Listener


@pytest.fixture(scope="session")
def host(make_host, tmp_path_factory):
    """A running host that the tests share. Who stops it, frees it or adds arguments takes `fresh_host`."""
    shared = make_host(tmp_path_factory.mktemp("host"))
    try:
        yield shared.start()
    finally:
        end(shared)


@pytest.fixture
def fresh_host(make_host, tmp_path):
    """Builds hosts of the test's own: fresh_host(*arguments, pack=True, environment=None, start=True)."""
    made = []

    def build(*arguments, start=True, **settings):
        own = make_host(tmp_path / f"host-{len(made)}", *arguments, **settings)
        made.append(own)
        return own.start() if start else own

    yield build
    for own in made:
        end(own)


@pytest.fixture(scope="module")
def module_host(make_host, tmp_path_factory):
    """A running host that one file's tests share, in their order; they may free and restart it."""
    own = make_host(tmp_path_factory.mktemp("module-host"))
    try:
        yield own.start()
    finally:
        end(own)


@pytest.fixture(scope="session")
def graph():
    """graph.py: builds prompts that train and draw, and reads run folders. All hosts have the nodes of probe.py."""
    return beside("graph")


@pytest.fixture(scope="session")
def text_to_image():
    """Builds the host's own picture-making graph; nodes are named by what they do.

    `model` and `clip` are links that replace the checkpoint's, `more` is merged in.
    """

    def build(steps=2, seed=0, side=64, model=("checkpoint", 0), clip=("checkpoint", 1), prefix="picture", **more):
        def node(kind, **inputs):
            return {"class_type": kind, "inputs": inputs}

        sampler = {"sampler_name": "euler", "scheduler": "normal", "steps": steps, "cfg": 2.0, "denoise": 1.0}
        conditions = {"positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0]}
        return {
            "checkpoint": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
            "positive": node("CLIPTextEncode", text="a red thing", clip=list(clip)),
            "negative": node("CLIPTextEncode", text="", clip=list(clip)),
            "latent": node("EmptyLatentImage", width=side, height=side, batch_size=1),
            "sample": node("KSampler", model=list(model), seed=seed, **sampler, **conditions),
            "decode": node("VAEDecode", samples=["sample", 0], vae=["checkpoint", 2]),
            "save": node("SaveImage", images=["decode", 0], filename_prefix=prefix),
            **more,
        }

    return build
