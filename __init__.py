"""The entrance for ComfyUI: it imports this file by its path and asks `comfy_entrypoint` for the nodes."""

import importlib.util

# pytest imports a root __init__.py whatever it is told; outside the host there is nothing to enter.
if importlib.util.find_spec("comfy_api") is not None:
    from .nodes import comfy_entrypoint

    WEB_DIRECTORY = "./web"

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
