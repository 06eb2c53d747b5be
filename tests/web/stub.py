"""A server that gives ComfyUI's real page (PyPI package) this pack's scripts, and says of runs what a test tells it to.

    python stub.py FRONTEND_FOLDER PORT      needs aiohttp

A test drives it by POST /stub/tell [{type, data}] (events to all pages), POST /stub/state {active, runs, list,
workflows, queue, refuse} (what the routes answer), POST /stub/drop (all connections end) and GET /stub/asked (what the
page has asked for).
"""

import asyncio
import io
import json
import struct
import sys
import uuid
import zlib
from pathlib import Path

import pack
from aiohttp import WSMsgType, web
from stub_datasets import NODE as DATASET_NODE
from stub_datasets import Datasets

WEB = Path(__file__).resolve().parents[2] / "web"
PACK = "scion"


def _input(kind, **options):
    return [kind, options]


def node(name, display, required, optional, outputs):
    return {
        "input": {"required": required, "optional": optional, "hidden": {"unique_id": "UNIQUE_ID"}},
        "input_order": {"required": list(required), "optional": list(optional), "hidden": ["unique_id"]},
        "output": outputs,
        "output_is_list": [False] * len(outputs),
        "output_name": [kind.lower() for kind in outputs],
        "name": name,
        "display_name": display,
        "description": "",
        "python_module": f"custom_nodes.{PACK}",
        "category": "Scion",
        "output_node": True,
    }


NODES = {
    "ScionTrainLoRA": node(
        "ScionTrainLoRA",
        "Train LoRA (Scion)",
        {
            "model": _input("MODEL"),
            "dataset": _input("TRAINING_DATASET"),
            "config": _input("TRAINING_CONFIG"),
            "name": _input("STRING", default="lora"),
            "existing": _input(["resume", "new"], default="resume", advanced=True),
        },
        {
            "clip": _input("CLIP"),
            "vae": _input("VAE"),
            "patched_model": _input(["refuse", "bake"], default="refuse", advanced=True),
        },
        ["LORA_MODEL", "LOSS_MAP", "IMAGE"],
    ),
    "LoadImage": node("LoadImage", "Load Image", {"image": _input(["a.png"])}, {}, ["IMAGE"]),
}
OURS, WIDGETS = pack.told(["ScionLoRATrainConfig", "ScionLoadImageCaptionDataset"], f"custom_nodes.{PACK}")
NODES |= OURS
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.VueNodes.AutoScaleLayout": False,
    "Comfy.AppBuilder.VueNodeSwitchDismissed": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Locale": "en",
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,
    "Comfy.InstalledVersion": "1.49.6",
}


def png(width, height, tone):
    """A strip of pictures: a gradient per picture, so that they can be told apart."""
    out = io.BytesIO(b"")
    rows = b"".join(
        b"\0" + b"".join(bytes(((tone + x) % 256, (y * 2) % 256, (tone * 3 + x // 2) % 256)) for x in range(width))
        for y in range(height)
    )
    out.write(b"\x89PNG\r\n\x1a\n")
    for kind, data in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ):
        out.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return out.getvalue()


class Stub:
    def __init__(self, frontend: Path):
        self.frontend = frontend
        self.sockets: set[web.WebSocketResponse] = set()
        self.state = {"active": [], "runs": {}, "list": [], "workflows": {}, "queue": [], "refuse": None}
        self.asked: list[list] = []
        self.settings = dict(SETTINGS)
        self.datasets = Datasets(self.state, self.asked, png)

    async def page(self, request):
        path = request.path.lstrip("/") or "index.html"
        for root, name in ((self.frontend, path), (WEB, path.removeprefix(f"extensions/{PACK}/"))):
            file = (root / name).resolve()
            if file.is_relative_to(root) and file.is_file():
                return web.FileResponse(file, headers={"Cache-Control": "no-store"})
        return web.json_response({"error": "not here"}, status=404)

    async def socket(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sid = request.query.get("clientId") or uuid.uuid4().hex
        self.sockets.add(socket)
        status = {"status": {"exec_info": {"queue_remaining": 0}}, "sid": sid}
        await socket.send_json({"type": "status", "data": status})
        async for message in socket:
            if message.type == WSMsgType.ERROR:
                break
        self.sockets.discard(socket)
        return socket

    async def tell(self, request):
        for event in await request.json():
            for socket in list(self.sockets):
                await socket.send_json(event)
        return web.json_response({"pages": len(self.sockets)})

    async def set_state(self, request):
        self.state |= await request.json()
        return web.json_response({})

    async def drop(self, request):
        """Closes all connections, as a server does that restarts."""
        await asyncio.gather(*(socket.close() for socket in list(self.sockets)))
        return web.json_response({})

    async def get_asked(self, request):
        return web.json_response(self.asked)

    async def all_runs(self, request):
        self.asked.append(["", "list"])
        if self.state["refuse"]:
            return web.json_response({"error": self.state["refuse"]}, status=500)
        return web.json_response({"runs": self.state["list"]})

    async def workflow(self, request):
        kept = self.state["workflows"].get(request.match_info["run"])
        return web.json_response(kept or {"error": "no workflow was kept"}, status=200 if kept else 404)

    async def delete(self, request):
        run = request.match_info["run"]
        self.asked.append([run, "delete"])
        self.state["list"] = [one for one in self.state["list"] if one["run"] != run]
        return web.json_response({"bytes": 3 * 2**20})

    async def history(self, request):
        run = self.state["runs"].get(request.match_info["run"])
        if run is None:
            return web.json_response({"error": "no such run"}, status=404)
        return web.json_response(run)

    async def preview(self, request):
        name = request.match_info["name"]
        tone = zlib.crc32(name.encode()) % 200
        return web.Response(body=await asyncio.to_thread(png, 384, 192, tone), content_type="image/png")

    async def command(self, request):
        body = await request.json()
        self.asked.append([request.match_info["run"], body.get("command", request.path.rsplit("/", 1)[1])])
        if self.state["refuse"]:
            return web.json_response({"error": self.state["refuse"]}, status=409)
        return web.json_response({}, status=202)

    async def prompt(self, request):
        self.asked.append(["graph", "queued"])
        return web.json_response({"prompt_id": uuid.uuid4().hex, "number": 0, "node_errors": {}})

    def nodes(self):
        return NODES | {DATASET_NODE: self.datasets.node(NODES[DATASET_NODE])}

    def scripts(self):
        return [f"/extensions/{PACK}/{file.relative_to(WEB).as_posix()}" for file in sorted(WEB.rglob("*.js"))]

    def app(self):
        app = web.Application()
        router = app.router

        def gives(path, value):
            async def answer(request):
                return web.json_response(value() if callable(value) else value)

            for prefix in ("", "/api"):
                router.add_get(prefix + path, answer)

        gives("/object_info", self.nodes)
        gives("/extensions", self.scripts)
        gives("/settings", lambda: self.settings)
        gives("/users", {"storage": "server", "migrated": True})
        gives("/system_stats", {"system": {"os": "posix", "comfyui_version": "0.33.0", "argv": []}, "devices": []})
        gives("/queue", lambda: {"queue_running": self.state["queue"], "queue_pending": []})
        gives("/scion/active", lambda: {"runs": self.state["active"]})
        gives("/scion/widgets", WIDGETS)
        gives("/scion/settings", {"roots": ["/srv/input", "/srv/<b>more</b>"], "file": "/srv/user/scion.json"})
        gives("/i18n", lambda: self.state.get("i18n", {}))
        for path in ("/features", "/history", "/workflow_templates", "/global_subgraphs"):
            gives(path, {})
        for path in ("/embeddings", "/models", "/experiment/models", "/userdata", "/v2/userdata"):
            gives(path, [])
        gives("/jobs", {"jobs": [], "pagination": {"offset": 0, "limit": 0, "total": 0, "has_more": False}})
        for prefix in ("", "/api"):
            router.add_get(prefix + "/scion/runs", self.all_runs)
            router.add_get(prefix + "/scion/runs/{run}", self.history)
            router.add_get(prefix + "/scion/runs/{run}/workflow", self.workflow)
            router.add_delete(prefix + "/scion/runs/{run}", self.delete)
            router.add_get(prefix + "/scion/runs/{run}/previews/{name}", self.preview)
            router.add_post(prefix + "/scion/runs/{run}/commands", self.command)
            router.add_post(prefix + "/scion/runs/{run}/continue", self.command)
            router.add_post(prefix + "/prompt", self.prompt)
        self.datasets.register(router)
        router.add_get("/ws", self.socket)
        router.add_post("/stub/tell", self.tell)
        router.add_post("/stub/state", self.set_state)
        router.add_post("/stub/drop", self.drop)
        router.add_get("/stub/asked", self.get_asked)
        router.add_route("POST", "/{path:.*}", _taken)
        router.add_get("/{path:.*}", self.page)
        return app


async def _taken(request):
    return web.json_response({})


if __name__ == "__main__":
    print(json.dumps({"port": int(sys.argv[2])}), flush=True)
    web.run_app(Stub(Path(sys.argv[1]).resolve()).app(), host="127.0.0.1", port=int(sys.argv[2]), print=None)
