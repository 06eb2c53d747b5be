"""What the pack tells its host of its nodes; the same code asks the fakes and, run as a script, a real ComfyUI.

python describe.py PACK FOLDER, in ComfyUI's folder and with its interpreter: the last line is JSON. FOLDER is empty:
it becomes the host's base directory, so that no models and datasets are offered but the built-in ones.
"""

import asyncio
import functools
import importlib
import importlib.util
import inspect
import json
import sys

WIDGETS = ("COMBO", "INT", "FLOAT", "BOOLEAN", "STRING")
CALLED = (
    *(f"comfy_api.latest:io.{kind}.Input" for kind in ("Boolean", "Int", "Float", "String", "Combo", "MultiType")),
    *(f"comfy_api.latest:io.{kind}.Input" for kind in ("Image", "Model", "Clip", "Vae")),
    "comfy_api.latest:io.Image.Output",
    "comfy_api.latest:io.Custom",
    "comfy_api.latest:io.NodeOutput",
    "comfy_api.latest:io.Schema",
    "comfy_api.latest:ui.PreviewImage",
    "comfy_execution.graph_utils:ExecutionBlocker",
    "comfy_execution.utils:get_executing_context",
    "folder_paths:get_filename_list",
    "folder_paths:get_folder_paths",
    "folder_paths:get_full_path_or_raise",
    "folder_paths:get_input_directory",
    "folder_paths:get_output_directory",
    "folder_paths:get_user_directory",
    "server:PromptServer.send_sync",
    "server:PromptServer.send_progress_text",
    "comfy.utils:ProgressBar",
    "comfy.utils:ProgressBar.update_absolute",
    "comfy.model_management:get_torch_device",
    "comfy.model_management:interrupt_current_processing",
    "comfy.model_management:processing_interrupted",
    "comfy.model_management:throw_exception_if_processing_interrupted",
)


def load(root):
    """The pack's module, imported as the host imports it: by its path, which is its name, too."""
    name = str(root).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, f"{root}/__init__.py", submodule_search_locations=[str(root)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


async def nodes_of(module):
    extension = await module.comfy_entrypoint()
    await extension.on_load()
    return await extension.get_node_list()


def describe(nodes):
    """By node id: its texts, and inputs and outputs in the page's order (required inputs, then optional ones)."""
    return json.loads(json.dumps({node.GET_SCHEMA().node_id: _described(node.GET_NODE_INFO_V1()) for node in nodes}))


def _described(info):
    inputs = []
    for group in ("required", "optional"):
        for name in info["input_order"].get(group, []):
            kind, told = info["input"][group][name]
            widget = kind in WIDGETS and not told.get("forceInput")
            inputs.append({"name": name, "kind": kind, "optional": group == "optional", "widget": widget, "told": told})
    texts = ("display_name", "description", "category", "search_aliases", "output_node", "is_input_list")
    outputs = zip(info["output_name"], info["output"], info["output_is_list"], info["output_tooltips"], strict=True)
    return {
        **{name: info[name] for name in texts},
        "inputs": inputs,
        "outputs": [list(output) for output in outputs],
        "hidden": info["input_order"].get("hidden", []),
    }


def signatures():
    """The parameters of what the pack calls, by name."""
    return {name: _parameters(name) for name in CALLED}


def _parameters(name):
    module, path = name.split(":")
    thing = functools.reduce(getattr, path.split("."), importlib.import_module(module))
    return [one for one in inspect.signature(thing).parameters if one != "self"]


def main(pack, folder):
    sys.path.insert(0, ".")
    sys.argv = ["main.py", "--cpu", "--base-directory", folder]
    import comfy.options

    comfy.options.enable_args_parsing()
    print(json.dumps({"nodes": describe(asyncio.run(nodes_of(load(pack)))), "signatures": signatures()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
