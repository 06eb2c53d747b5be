"""What pages ask about settings: presets, widgets that do nothing beside others, and where datasets may lie."""

from aiohttp import web

from ... import told_widgets
from .. import datasets
from .answers import answering


def register(routes: web.RouteTableDef) -> None:
    routes.get("/scion/widgets")(answering(_widgets))
    routes.get("/scion/settings")(answering(_settings))


async def _widgets(request: web.Request) -> web.Response:
    return web.json_response(told_widgets.told())


async def _settings(request: web.Request) -> web.Response:
    """Paths, for a person to read: nothing takes one."""
    return web.json_response(
        {"roots": [str(root) for root in datasets.dataset_roots()], "file": str(datasets.local_settings())}
    )
