"""What pages ask about runs, by their ids: what trains now, all runs, one's history; commands, going on, deleting."""

import asyncio
import io
import re
from pathlib import Path

from aiohttp import web
from PIL import Image

from ....trainer_core.engine.charts import side_by_side
from ....trainer_core.engine.requests import FINISH, KINDS
from ....trainer_core.engine.run_folder import RunFolder
from .. import active, paths, run_list, workflow_file
from .answers import Refused, answering, changing, said_in, whole_number

POINTS, POINTS_MOST = 4000, 20_000
"""Points of a history: how many are given, and how many can be asked for."""
STEPS_MOST = 10**8
HEIGHT_MOST = 1024
"""Pixels of a preview that is asked for smaller than it is."""
PREVIEW = re.compile(r"step-\d{8,9}\.png")


def register(routes: web.RouteTableDef) -> None:
    routes.get("/scion/active")(answering(_active))
    routes.get("/scion/runs")(answering(_runs))
    routes.get("/scion/runs/{run}")(answering(_history))
    routes.get("/scion/runs/{run}/previews/{name}")(answering(_preview))
    routes.get("/scion/runs/{run}/workflow")(answering(_workflow))
    routes.post("/scion/runs/{run}/commands")(changing(_command))
    routes.post("/scion/runs/{run}/continue")(changing(_go_on))
    routes.delete("/scion/runs/{run}")(changing(_delete))


async def _active(request: web.Request) -> web.Response:
    return web.json_response({"runs": [training.told() for training in active.trainings()]})


async def _runs(request: web.Request) -> web.Response:
    told = await asyncio.to_thread(run_list.all_runs, paths.runs())
    runs = [{**one, "active": _trains(one["run"])} for one in told]
    return web.json_response({"runs": sorted(runs, key=lambda one: not one["active"])})


async def _history(request: web.Request) -> web.Response:
    """A run's state and its history, as the page needs them after a reload."""
    folder = _folder(request)
    after = whole_number(request, "after", 0, 0, STEPS_MOST)
    points = whole_number(request, "points", POINTS, 1, POINTS_MOST)
    # Of a long run this is much to read; the server goes on meanwhile.
    every_setting = request.query.get("settings") == "all"
    told = await asyncio.to_thread(run_list.history, folder, points, after, every_setting)
    if told is None:  # deleted meanwhile
        raise Refused(404, "no such run")
    return web.json_response({**told, "active": _trains(folder.path.name)})


async def _preview(request: web.Request) -> web.StreamResponse:
    """The strip as it lies in the run's folder, or its pictures alone in one row."""
    path = _folder(request).previews / request.match_info["name"]
    if not PREVIEW.fullmatch(path.name) or path.name != request.match_info["name"] or not path.is_file():
        raise Refused(404, "no such preview")
    headers = {"Content-Type": "image/png", "X-Content-Type-Options": "nosniff"}
    height = whole_number(request, "height", 0, 0, HEIGHT_MOST)
    if request.query.get("bare") == "1" and (row := await asyncio.to_thread(side_by_side, path)):
        headers["Content-Type"] = "image/jpeg" if height else "image/png"
        return web.Response(body=await asyncio.to_thread(_encoded, row, height), headers=headers)
    return web.FileResponse(path, headers=headers)


def _encoded(row: Image.Image, height: int) -> bytes:
    """A PNG of the pictures as they are, or a JPEG of them made as low as this; 0 = as they are."""
    buffer = io.BytesIO()
    if height:
        row.thumbnail((row.width, height))
        row.save(buffer, "JPEG", quality=85)
    else:
        row.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


async def _workflow(request: web.Request) -> web.StreamResponse:
    path = _folder(request).path / workflow_file.NAME
    if not path.is_file():
        raise Refused(
            404, "no workflow was kept with this run: a script queued it, or an older Scion. Queue its workflow again"
        )
    return web.FileResponse(path, headers={"Content-Type": "application/json", "Cache-Control": "no-store"})


async def _command(request: web.Request) -> web.Response:
    folder, command = _folder(request), (await said_in(request)).get("command")
    if command not in KINDS:
        raise Refused(400, f"command: {command!r:.80} is none of {', '.join(KINDS)}")
    training = active.of_run(folder.path.name)
    if training is None:
        raise Refused(409, "this run does not train now; queue its workflow to go on with it")
    training.requests.ask(command)
    if command == FINISH:
        active.note_change()
    return web.json_response({}, status=202)


async def _go_on(request: web.Request) -> web.Response:
    folder = _idle(request)
    await asyncio.to_thread(_reopen, folder)
    active.note_change()
    return web.json_response({})


async def _delete(request: web.Request) -> web.Response:
    folder = _idle(request)
    size = await asyncio.to_thread(folder.delete)
    active.note_change()
    return web.json_response({"bytes": size})


def _reopen(folder: RunFolder) -> None:
    """Of runs with the same settings the one that was written last goes on: now it is this one."""
    with folder.locked():
        state = folder.state()
        if state is None or (state.status == "finished" and not state.is_early):
            raise Refused(409, "this run has done all its steps; ask for more steps to go on with it")
        if state.is_early:
            state.reopen()
        folder.save_state(state)


def _trains(run: str) -> bool:
    return active.of_run(run) is not None


def _folder(request: web.Request) -> RunFolder:
    """
    Raises:
        Refused: there is no such run.
    """
    folder: Path | None = paths.run_by_id(request.match_info["run"])
    if folder is None:
        raise Refused(404, "no such run")
    return RunFolder(folder)


def _idle(request: web.Request) -> RunFolder:
    """
    Raises:
        Refused: there is no such run, or it trains now. Another process that trains it holds its lock.
    """
    folder = _folder(request)
    if _trains(folder.path.name):
        raise Refused(409, "this run trains now; stop it first")
    return folder
