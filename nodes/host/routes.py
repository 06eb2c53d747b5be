"""What the host's server answers for us: a run's history, by the run's id."""

import asyncio

from aiohttp import web
from server import PromptServer

from ...trainer_core.engine import metrics
from ...trainer_core.engine.run_folder import RunFolder
from ...trainer_core.errors import ScionError
from . import paths


def register() -> None:
    """Adds the routes to the host's server, once."""
    server = getattr(PromptServer, "instance", None)
    if server is None:  # the host's code is used without its server
        return
    server.routes.get("/scion/runs/{run}")(_history)


async def _history(request: web.Request) -> web.Response:
    """A run's state and its history, as the page needs them after a reload."""
    folder = paths.run_by_id(request.match_info["run"])
    if folder is None:
        return web.json_response({"error": "no such run"}, status=404)
    try:
        # Of a long run this is much to read; the server goes on meanwhile.
        told = await asyncio.to_thread(_told, RunFolder(folder))
    except ScionError as error:
        return web.json_response({"error": str(error)}, status=409)
    return web.json_response(told or {"error": "no such run"}, status=200 if told else 404)


def _told(run: RunFolder) -> dict | None:
    """None where the run was deleted meanwhile."""
    state = run.state()
    if state is None:
        return None
    history = metrics.read(run.metrics)
    return {
        "run": run.path.name,
        "status": state.status,
        # The state is written with checkpoints only; while a run trains, its history is further.
        "step": max([state.step, *(line["step"] for line in history[-1:])]),
        "total": state.total,
        "lora": state.lora,
        "history": history,
    }
