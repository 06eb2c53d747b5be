"""What pages ask about datasets, by their names: pictures with captions, thumbnails, new captions, new files."""

import asyncio
import contextlib
import dataclasses
import functools
import io
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, web

from ....trainer_core.data import browse
from ....trainer_core.data.catalogue import outdate_all
from ....trainer_core.data.config import DatasetConfig
from ....trainer_core.data.pictures import thumbnail
from ....trainer_core.errors import BadInput
from .. import active, datasets, paths
from ..uploads import AlreadyThere, Upload, is_picture
from .answers import Refused, answering, changing, one_of, said_in, whole_number

ITEMS, ITEMS_MOST = 100, 500
SIDE, SIDE_MOST = 192, 1024
RESOLUTION_MOST = 8192
CAPTION_SOURCES = ("auto", "metadata", "files")
SEARCH_MOST = 200
AHEAD = 0.7
"""Seconds that a page's question may open further pictures, so that the whole dataset is known before training."""
THUMBNAILS_KEPT = 512
"""Of at most some 20 kB at the side that is asked for by default."""
AT_ONCE = 2
"""Pictures that are opened at a time for thumbnails: one may take 256 MB of memory."""
FILES_MOST = 2000
PIECE = 2**18

_opening = asyncio.Semaphore(AT_ONCE)


def register(routes: web.RouteTableDef) -> None:
    routes.get("/scion/datasets/{name}/items")(answering(_items))
    routes.get("/scion/datasets/{name}/thumbnails/{key:.+}")(answering(_thumbnail))
    routes.put("/scion/datasets/{name}/captions/{key:.+}")(changing(_caption))
    routes.post("/scion/datasets/{name}/files")(changing(_files))


async def _items(request: web.Request) -> web.Response:
    folder = await _folder(request)
    config = DatasetConfig(
        path=str(folder),
        captions=one_of(request, "captions", CAPTION_SOURCES),
        resolution=whole_number(request, "resolution", 0, 0, RESOLUTION_MOST),
        buckets=whole_number(request, "buckets", 1, 0, 1) == 1,
        bucket_step=whole_number(request, "bucket_step", 0, 0, RESOLUTION_MOST),
        width=whole_number(request, "width", 0, 0, RESOLUTION_MOST),
        height=whole_number(request, "height", 0, 0, RESOLUTION_MOST),
        skip_bad=whole_number(request, "skip_bad", 0, 0, 1) == 1,
    )
    asked = whole_number(request, "ahead", 0, 0, 1)
    wanted = browse.Wanted(
        offset=whole_number(request, "offset", 0, 0, 10**8),
        limit=whole_number(request, "limit", ITEMS, 1, ITEMS_MOST),
        only=one_of(request, "only", browse.ONLY),
        search=request.query.get("q", "")[:SEARCH_MOST],
        # A training has the processor and the disk for itself.
        ahead=AHEAD if asked and not active.trainings() else 0.0,
    )
    if whole_number(request, "fresh", 0, 0, 1):
        outdate_all()
    page = await asyncio.to_thread(browse.page, config, wanted, paths.encoded_cache())
    return web.json_response({**dataclasses.asdict(page), **await asyncio.to_thread(_place, request, folder)})


def _place(request: web.Request, folder: Path) -> dict[str, Any]:
    """Whether the dataset is the pack's own, which stays as it is, and whether new files may come into it."""
    built_in = folder == datasets.EXAMPLE_DATASET
    with contextlib.suppress(BadInput):
        return {"built_in": built_in, "in_input": datasets.folder_in_input(request.match_info["name"]) == folder}
    return {"built_in": built_in, "in_input": False}


async def _thumbnail(request: web.Request) -> web.Response:
    folder, side = await _folder(request), whole_number(request, "side", SIDE, 16, SIDE_MOST)
    path = await asyncio.to_thread(_picture, folder, request.match_info["key"])
    status = path.stat()
    stamp = status.st_size, status.st_mtime_ns
    mark = f'"{status.st_size:x}-{status.st_mtime_ns:x}-{side}"'
    # A browser keeps it, and asks whether it still is the same.
    headers = {"ETag": mark, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    if request.headers.get("If-None-Match") == mark:
        return web.Response(status=304, headers=headers)
    try:
        async with _opening:
            data = await asyncio.to_thread(_drawn, str(path), side, stamp)
    except ValueError as error:
        raise Refused(409, f"{path.name} {error}") from None
    return web.Response(body=data, content_type="image/jpeg", headers=headers)


async def _caption(request: web.Request) -> web.Response:
    folder, said = await _folder(request), await said_in(request)
    caption = said.get("caption")
    if not isinstance(caption, str):
        raise Refused(400, "caption: expected a text")
    if folder == datasets.EXAMPLE_DATASET:
        raise Refused(409, "the built-in example stays as it is; copy its folder into ComfyUI/input to change it")
    await asyncio.to_thread(_picture, folder, request.match_info["key"])
    source = one_of(request, "captions", CAPTION_SOURCES)
    await asyncio.to_thread(browse.write_caption, folder, request.match_info["key"], caption, source)
    return web.json_response({})


async def _files(request: web.Request) -> web.Response:
    """Each file is taken or refused by itself, except that a caption is not taken behind a picture that is refused."""
    replace = request.query.get("replace") == "1"
    if not request.content_type.startswith("multipart/"):
        raise Refused(400, "expected files, as a form sends them")
    folder = datasets.folder_in_input(request.match_info["name"])
    made = [place for place in (folder, folder.parent) if not place.exists()]
    written, refused = [], []
    # Pictures by their names without endings, as captions name them.
    there, failed = set(), set()
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        if not isinstance(part, BodyPartReader) or part.filename is None:
            continue
        if len(written) + len(refused) == FILES_MOST:
            raise Refused(413, f"more than {FILES_MOST:,} files at once; those before are there. Send the others after")
        stem = part.filename.rpartition(".")[0]
        try:
            if stem in failed - there and not is_picture(part.filename):
                raise ValueError("belongs to a picture that was refused.")
            await _received(part, folder, replace, request.client_max_size)
            written.append(part.filename)
            if is_picture(part.filename):
                there.add(stem)
        except ValueError as error:
            refused.append({"name": part.filename, "why": str(error)})
            if is_picture(part.filename):
                (there if isinstance(error, AlreadyThere) else failed).add(stem)
    if not written:
        with contextlib.suppress(OSError):
            for place in made:
                place.rmdir()
    outdate_all()
    return web.json_response({"written": written, "refused": refused})


async def _received(part: BodyPartReader, folder: Path, replace: bool, most: int) -> None:
    """
    Args:
        most: bytes of a file, which the host allows.

    Raises:
        ValueError: it is not taken, in words for a person.
    """
    try:
        upload = await asyncio.to_thread(Upload, folder, part.filename, replace)
    except OSError as error:
        raise ValueError(f"cannot be written ({error.strerror or error}).") from None
    try:
        while piece := await part.read_chunk(PIECE):
            if upload.size + len(piece) > most:
                raise ValueError(f"is larger than {most:,} bytes, which ComfyUI takes (--max-upload-size).")
            await asyncio.to_thread(upload.write, piece)
        async with _opening:
            await asyncio.to_thread(upload.finish)
    except OSError as error:
        raise ValueError(f"cannot be written ({error.strerror or error}).") from None
    finally:
        await asyncio.to_thread(upload.close)


async def _folder(request: web.Request) -> Path:
    """
    Raises:
        Refused: there is no such dataset.
    """
    try:
        return await asyncio.to_thread(datasets.dataset_folder, request.match_info["name"])
    except BadInput:
        raise Refused(404, "no such dataset") from None


def _picture(folder: Path, key: str) -> Path:
    try:
        return browse.picture_of(folder, key)
    except BadInput as error:
        raise Refused(404, str(error)) from None


@functools.lru_cache(THUMBNAILS_KEPT)
def _drawn(path: str, side: int, stamp: tuple[Any, ...]) -> bytes:
    """JPEG; `stamp` tells one state of the file from another."""
    buffer = io.BytesIO()
    thumbnail(path, side).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
