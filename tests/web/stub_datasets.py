"""Datasets as the server would tell of them: POST /stub/state {datasets: {name: {count, captions, damaged, …}}}."""

import asyncio
import copy
import zlib
from urllib.parse import parse_qs

from aiohttp import web

NODE = "ScionLoadImageCaptionDataset"
BUILT_IN = "scion-example (built in)"


class Datasets:
    """Args:
    state: of the stub; what a test says of datasets is there.
    asked: where it is noted what the page wrote and which thumbnails it wanted.
    """

    def __init__(self, state, asked, png):
        self.state, self.asked, self.png = state, asked, png

    def node(self, schema):
        """The node as its schema gives it, with the datasets that the test has."""
        node = copy.deepcopy(schema)
        folder = node["input"]["required"]["folder"][1]
        folder["options"] = [*self.state.get("datasets", {}), BUILT_IN]
        folder["default"] = folder["options"][0]
        return node

    def register(self, router):
        for prefix in ("", "/api"):
            at = f"{prefix}/scion/datasets/{{name}}"
            router.add_get(f"{at}/items", self.items)
            router.add_get(f"{at}/thumbnails/{{key:.+}}", self.thumbnail)
            router.add_put(f"{at}/captions/{{key:.+}}", self.caption)
            router.add_post(f"{at}/files", self.files)

    def _of(self, request):
        return ({BUILT_IN: {"count": 16}} | self.state.get("datasets", {})).get(request.match_info["name"])

    @staticmethod
    def _all(said, resolution):
        """Every picture; the names of those that were added come last."""
        captions, damaged = said.get("captions", {}), said.get("damaged", [])
        keys = [f"{n:05d}.png" for n in range(said["count"])] + said.get("added", [])
        for n, key in enumerate(keys):
            caption = captions.get(key, f"picture {n}, lying in the grass")
            broken = key in damaged
            yield {
                "key": key,
                "caption": caption,
                "width": None if broken else 640,
                "height": None if broken else (480, 640)[n % 2],
                "bucket": [resolution, resolution] if resolution and not broken else None,
                "problem": "is damaged or cut off." if broken else None if caption else "has no caption.",
            }

    async def items(self, request):
        said = self._of(request)
        if said is None:
            return web.json_response({"error": "no such dataset"}, status=404)
        query = {key: values[0] for key, values in parse_qs(request.query_string).items()}
        self.asked.append(["items", query])
        resolution = int(query.get("resolution", 0))
        every = list(self._all(said, resolution))
        fits = {
            "": lambda item: True,
            "problems": lambda item: item["width"] is None,
            "uncaptioned": lambda item: not item["caption"],
        }[query.get("only", "")]
        matching = [item for item in every if fits(item) and query.get("q", "") in item["caption"]]
        offset = int(query.get("offset", 0))
        checked = said["checked"] = min(len(every), said.get("checked", len(every)) + 20 * int(query.get("ahead", 0)))
        return web.json_response(
            {
                "count": len(every),
                "matching": len(matching),
                "checked": checked,
                "unusable": sum(item["width"] is None for item in every),
                "uncaptioned": sum(not item["caption"] for item in every),
                "buckets": [[[resolution, resolution], len(every)]] if resolution else [],
                "table": said.get("table"),
                "built_in": request.match_info["name"] == BUILT_IN,
                "in_input": said.get("in_input", True),
                "items": matching[offset : offset + int(query["limit"])],
                "problems": said.get("problems", []),
                "notes": said.get("notes", []),
            }
        )

    async def thumbnail(self, request):
        key, side = request.match_info["key"], int(request.query["side"])
        if key not in [item["key"] for item in self._all(self._of(request), 0)]:
            return web.json_response({"error": "no such picture"}, status=404)
        self.asked.append(["thumbnail", key])
        data = await asyncio.to_thread(self.png, side, side * 3 // 4, zlib.crc32(key.encode()) % 200)
        return web.Response(body=data, content_type="image/png", headers={"Cache-Control": "no-store"})

    async def caption(self, request):
        key, caption = request.match_info["key"], (await request.json())["caption"]
        self.asked.append(["caption", key, caption])
        if self.state["refuse"]:
            return web.json_response({"error": self.state["refuse"]}, status=409)
        self._of(request).setdefault("captions", {})[key] = caption
        return web.json_response({})

    async def files(self, request):
        names, reader = [], await request.multipart()
        while (part := await reader.next()) is not None:
            await part.read()
            names.append(part.filename)
        name = request.match_info["name"]
        self.asked.append(["files", name, names, request.query["replace"]])
        written = [one for one in names if "bad" not in one]
        said = self.state.setdefault("datasets", {}).setdefault(name, {"count": 0})
        said.setdefault("added", []).extend(one for one in written if one.endswith(".png"))
        refused = [{"name": one, "why": "is no picture."} for one in names if one not in written]
        return web.json_response({"written": written, "refused": refused})
