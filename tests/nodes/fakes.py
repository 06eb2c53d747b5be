"""Strict stand-ins for what the pack uses of ComfyUI: only what is used, with the original's signatures."""

import contextlib
import importlib.machinery
import importlib.util
import os
import sys
import types
from pathlib import Path

HERE = Path(__file__).parent
FOLDERS = (
    "filename_list_cache",
    "folder_names_and_paths",
    "get_filename_list",
    "get_folder_paths",
    "get_full_path_or_raise",
    "get_input_directory",
    "get_output_directory",
    "get_user_directory",
)
WORK = (
    "get_torch_device",
    "interrupt_current_processing",
    "processing_interrupted",
    "throw_exception_if_processing_interrupted",
)


def beside(name):
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"fakes_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


io = types.SimpleNamespace()
for part in map(beside, ("fake_inputs", "fake_nodes")):
    vars(io).update({name: getattr(part, name) for name in part.__all__})


class PreviewImage:
    def __init__(self, image, animated=False, cls=None, **kwargs):
        assert not kwargs, kwargs
        self.shape, self.animated = tuple(image.shape), animated


class ExecutionBlocker:
    def __init__(self, message):
        self.message = message


class FolderPaths:
    """folder_paths over a folder; the list of a kind's files is kept until it is dropped, however the folder changes.

    The original looks at folders' times, which some file systems keep only to the second.
    """

    KINDS = {
        "checkpoints": {".safetensors"},
        "loras": {".safetensors"},
        "embeddings": {".safetensors"},
        "diffusers": {"folder"},
    }

    def __init__(self):
        self.filename_list_cache, self.folder_names_and_paths = {}, {}

    def reset(self, base):
        self.base = base
        self.filename_list_cache.clear()
        self.folder_names_and_paths.clear()
        for kind, endings in self.KINDS.items():
            self.folder_names_and_paths[kind] = [str(base / "models" / kind)], endings
        for folder in ("input", "output", "temp", "user", *(f"models/{kind}" for kind in self.KINDS)):
            (base / folder).mkdir(parents=True)

    def get_input_directory(self):
        return str(self.base / "input")

    def get_output_directory(self):
        return str(self.base / "output")

    def get_user_directory(self):
        return str(self.base / "user")

    def get_folder_paths(self, folder_name):
        return self.folder_names_and_paths[folder_name][0][:]

    def get_filename_list(self, folder_name):
        if folder_name not in self.filename_list_cache:
            roots, endings = self.folder_names_and_paths[folder_name]
            found = {
                os.path.relpath(os.path.join(place, name), root)
                for root in roots
                for place, _, files in os.walk(root, followlinks=True)
                for name in files
                if os.path.splitext(name)[1].lower() in endings
            }
            self.filename_list_cache[folder_name] = sorted(found)
        return list(self.filename_list_cache[folder_name])

    def get_full_path_or_raise(self, folder_name, filename):
        name = os.path.relpath(os.path.join("/", filename), "/")
        for root in self.get_folder_paths(folder_name):
            if os.path.isfile(os.path.join(root, name)):
                return os.path.join(root, name)
        raise FileNotFoundError(f"Model in folder '{folder_name}' with filename '{filename}' not found.")


class NoRoutes:
    """Takes routes that nobody asks, where aiohttp, which the host brings, is not installed."""

    def __getattr__(self, method):
        return lambda path: lambda handler: handler


def routes():
    try:
        from aiohttp import web
    except ModuleNotFoundError:
        return NoRoutes()
    return web.RouteTableDef()


class PromptServer:
    def __init__(self):
        self.routes, self.client_id = routes(), "page"

    def reset(self):
        """The routes stay: the pack adds them once, when it is loaded."""
        self.sent, self.texts = [], []

    def send_sync(self, event, data, sid=None):
        # What is told of a run goes to all pages, of a saved file to the one that queued.
        assert sid == (self.client_id if event == "scion.saved" else None), (event, sid)
        self.sent.append((event, data))

    def send_progress_text(self, text, node_id, sid=None):
        assert isinstance(text, str) and sid == self.client_id, (text, sid)
        self.texts.append((node_id, text))


class InterruptProcessingException(BaseException):
    pass


class Work:
    """comfy.model_management and comfy.utils, on the CPU."""

    def reset(self):
        self.interrupted, self.progress = False, []

    def get_torch_device(self):
        import torch

        return torch.device("cpu")

    def processing_interrupted(self):
        return self.interrupted

    def interrupt_current_processing(self, value=True):
        self.interrupted = value

    def throw_exception_if_processing_interrupted(self):
        if self.interrupted:
            self.interrupted = False
            raise InterruptProcessingException()

    def bar(self):
        work = self

        class ProgressBar:
            def __init__(self, total, node_id=None):
                self.total, self.node_id = total, node_id

            def update_absolute(self, value, total=None, preview=None):
                work.progress.append((self.node_id, value, total))

        return ProgressBar


class Host:
    """The fakes as tests see them: one for all tests, set back for each, so that the pack is imported once."""

    def __init__(self, base: Path):
        self.folders, self.server, self.work = FolderPaths(), PromptServer(), Work()
        self.reset(base)
        PromptServer.instance = self.server
        self.modules = self._modules()

    def reset(self, base: Path):
        self.base = base
        self.folders.reset(base)
        self.server.reset()
        self.work.reset()

    def _modules(self):
        contents = {
            "comfy_api": {},
            "comfy_api.latest": {
                "io": io,
                "ui": types.SimpleNamespace(PreviewImage=PreviewImage),
                "ComfyExtension": io.ComfyExtension,
            },
            "comfy_execution": {},
            "comfy_execution.graph_utils": {"ExecutionBlocker": ExecutionBlocker},
            "comfy_execution.utils": {"get_executing_context": lambda: None},
            "folder_paths": {name: getattr(self.folders, name) for name in FOLDERS},
            "server": {"PromptServer": PromptServer},
            "comfy": {},
            "comfy.model_management": {
                **{name: getattr(self.work, name) for name in WORK},
                "InterruptProcessingException": InterruptProcessingException,
            },
            "comfy.utils": {"ProgressBar": self.work.bar()},
        }
        if importlib.util.find_spec("aiohttp") is None:
            names = ("Request", "Response", "StreamResponse", "RouteTableDef")
            contents["aiohttp"] = {"BodyPartReader": object}
            contents["aiohttp.web"] = dict.fromkeys(names, object)
        made = {}
        for name, content in contents.items():
            module = made[name] = types.ModuleType(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
            module.__path__ = []
            vars(module).update(content)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(made[parent], child, module)
        return made


@contextlib.contextmanager
def installed(host: Host):
    """The host can be imported while this lasts."""
    before = {name: sys.modules.get(name) for name in host.modules}
    sys.modules.update(host.modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
