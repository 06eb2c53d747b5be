"""A real ComfyUI as a subprocess with this pack among its custom nodes, and a client of its routes and websocket."""

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
NOT_SHIPPED = ("tests/", "benchmarks/", "docs/", ".ci/")
ADDRESS = "127.0.0.1"
COLOURS = re.compile(r"\x1b\[[\d;]*m")

START_SECONDS = 240
STOP_SECONDS = 20

PREVIEW, TEXT, PREVIEW_WITH_METADATA = 1, 3, 4
"""Event types of the host's binary messages (its protocol.py)."""

ENDS = ("execution_success", "execution_error", "execution_interrupted")
STATUS = dict(zip(ENDS, ("success", "error", "interrupted"), strict=True))


class HttpError(RuntimeError):
    """An answer of 400 and above; `body` is its JSON, or its text where it is none."""

    def __init__(self, status: int, body: Any):
        super().__init__(f"HTTP {status}: {body}")
        self.status, self.body = status, body


class Message(NamedTuple):
    """One message of the websocket. A binary one has the type "binary", its bytes as data, and an event number."""

    time: float
    type: str
    data: Any
    event: int | None = None

    @property
    def prompt_id(self) -> str | None:
        """Of the prompt that a JSON message, or the metadata of a preview, belongs to."""
        if self.event == PREVIEW_WITH_METADATA:
            return self.preview()[0].get("prompt_id")
        return self.data.get("prompt_id") if isinstance(self.data, dict) else None

    def preview(self) -> tuple[dict, bytes]:
        """Metadata and encoded picture of a binary preview."""
        if self.event == PREVIEW_WITH_METADATA:
            length = int.from_bytes(self.data[:4], "big")
            return json.loads(self.data[4 : 4 + length]), self.data[4 + length :]
        if self.event == PREVIEW:
            return {"image_type": {1: "image/jpeg", 2: "image/png"}[int.from_bytes(self.data[:4], "big")]}, self.data[
                4:
            ]
        raise ValueError(f"no preview: {self.type} {self.event}")

    def text(self) -> tuple[str, str]:
        """Node and line of a progress text."""
        if self.event != TEXT:
            raise ValueError(f"no progress text: {self.type} {self.event}")
        length = int.from_bytes(self.data[:4], "big")
        return self.data[4 : 4 + length].decode(), self.data[4 + length :].decode()


@dataclass
class Result:
    """What became of one prompt."""

    status: str
    """"success", "error" or "interrupted"; a prompt that the host refuses is an error without a prompt_id."""
    prompt_id: str | None = None
    messages: list[Message] = field(default_factory=list)
    error: dict | None = None
    """execution_error's data (exception_type, exception_message, node_id, traceback), or what /prompt refused with
    (error, node_errors)."""
    outputs: dict = field(default_factory=dict)
    """The history's: node -> what its `ui` said."""

    def of(self, kind: str) -> list[Message]:
        return [message for message in self.messages if message.type == kind]


class HostServer:
    """One host over a base directory of its own. Use as a context manager, or call start() and stop().

    Args:
        code: the folder with the host's main.py.
        python: its interpreter.
        base: models, custom_nodes, input, output, temp and user go here; made where missing.
        arguments: more command line options.
        pack: copies this repository into custom_nodes/scion, as far as it is a pack yet.
        environment: variables over the inherited ones; None removes one.
    """

    def __init__(
        self,
        code: Path,
        python: Path,
        base: Path,
        arguments: tuple[str, ...] = (),
        pack: bool = True,
        environment: dict[str, str | None] | None = None,
    ):
        self.code, self.python, self.base, self.arguments = code, python, base, tuple(arguments)
        self.process: subprocess.Popen | None = None
        self.log_path = base / "host.log"
        self.port = free_port()
        self.environment = {
            # The host and its libraries must neither ask the network nor leave compiled files in an installation
            # that is not the tests'.
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            # As in the tests' own process: sums come out in the same order, and shared cores are not fought over.
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            # What is importable here is not importable there: a pack finds its own modules or fails.
            "PYTHONPATH": None,
            "PYTHONHOME": None,
            "VIRTUAL_ENV": None,
            **(environment or {}),
        }
        # A proxy from the environment would be asked for the local machine too.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        for name in ("models/checkpoints", "models/loras", "custom_nodes", "input", "output", "temp", "user"):
            (base / name).mkdir(parents=True, exist_ok=True)
        if pack:
            self.pack = copy_pack(base / "custom_nodes" / "scion")

    def __enter__(self) -> "HostServer":
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.port}"

    def start(self, timeout: float = START_SECONDS) -> "HostServer":
        """Returns once the host answers.

        Raises:
            RuntimeError: it died or did not answer in time; with the end of its log.
        """
        command = [str(self.python), "main.py", "--cpu", "--listen", ADDRESS, "--port", str(self.port)]
        command += ["--disable-auto-launch", "--disable-api-nodes", "--base-directory", str(self.base)]
        # Unless told, the host keeps its database beside its own code.
        command += ["--database-url", f"sqlite:///{self.base / 'user' / 'comfyui.db'}", *self.arguments]
        environment = {**os.environ, **self.environment}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.code,
                env={name: value for name, value in environment.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A signal to pytest's group (Ctrl-C) must reach the host through stop() alone.
                start_new_session=True,
            )
        try:
            self._wait_until_ready(time.monotonic() + timeout)
        except BaseException:
            self.kill()
            raise
        return self

    def _wait_until_ready(self, deadline: float) -> None:
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"the host ended with {self.process.returncode}; its log ends:\n{self.log()[-4000:]}"
                )
            try:
                self.get("/system_stats", timeout=5)
                return
            except (OSError, HttpError):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the host does not answer; its log ends:\n{self.log()[-4000:]}") from None
                time.sleep(0.2)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """As Ctrl-C does; a host that does not heed it is terminated, then killed."""
        if not self.running:
            return
        # The host turns only Ctrl-C into an orderly end; a background shell has its children ignore that.
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        for request, seconds in ((signal.SIGINT, 0 if ignored else STOP_SECONDS), (signal.SIGTERM, 5)):
            self.process.send_signal(request)
            try:
                self.process.wait(seconds)
                return
            except subprocess.TimeoutExpired:
                continue
        self.kill()

    def kill(self) -> None:
        """SIGKILL: nothing of the host gets to clean up."""
        if self.running:
            self.process.kill()
            self.process.wait()

    def restart(self) -> "HostServer":
        """Same base directory and port; the log goes on in the same file."""
        self.stop()
        return self.start()

    def log(self) -> str:
        """All that the host has printed so far, without colours."""
        text = self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""
        return COLOURS.sub("", text)

    def request(self, path: str, body: Any = None, timeout: float = 60) -> bytes:
        """GET, or POST of JSON where there is a body.

        Raises:
            HttpError: the host answered with an error.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"} if data else {})
        try:
            with self._open(request, timeout=timeout) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            try:
                raise HttpError(error.code, json.loads(text)) from None
            except ValueError:
                raise HttpError(error.code, text) from None

    def get(self, path: str, timeout: float = 60) -> Any:
        return json.loads(self.request(path, timeout=timeout))

    def post(self, path: str, body: Any, timeout: float = 60) -> Any:
        """The answer's JSON, or None for an empty answer."""
        answer = self.request(path, body, timeout)
        return json.loads(answer) if answer.strip() else None

    def object_info(self, node: str) -> dict | None:
        """The host's description of a node class; None where it has no such class."""
        return self.get(f"/object_info/{urllib.parse.quote(node)}").get(node)

    def queue(self, prompt: dict, client_id: str | None = None, **more) -> str:
        """Puts a prompt (API format) into the queue and returns its id; `more` goes into the request, as extra_data.

        Raises:
            HttpError: the prompt is invalid; its body has `error` and `node_errors`.
        """
        body = {"prompt": prompt, **({"client_id": client_id} if client_id else {}), **more}
        return self.post("/prompt", body)["prompt_id"]

    def history(self, prompt_id: str) -> dict | None:
        """What the host recorded of a finished prompt; None while it runs or waits."""
        return self.get(f"/history/{prompt_id}").get(prompt_id)

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Cancels what runs, or only the named prompt if that is what runs."""
        self.post("/interrupt", {"prompt_id": prompt_id} if prompt_id else {})

    def free(self, unload: bool = True) -> None:
        """The host's "free model and node cache". It answers at once; the queue's thread frees a moment later."""
        self.post("/free", {"unload_models": unload, "free_memory": True})

    def listen(self, client_id: str | None = None) -> "Listener":
        """A connected listener; only messages for its client_id, and those to all, arrive at it."""
        return Listener(self.port, client_id or uuid.uuid4().hex)

    def run(self, prompt: dict, timeout: float = 300, **more) -> Result:
        """Queues a prompt and waits for its end, with a listener of its own.

        Raises:
            TimeoutError: it has not ended in time; it is interrupted then.
            ConnectionError: the host went away.
        """
        with self.listen() as listener:
            try:
                prompt_id = self.queue(prompt, listener.client_id, **more)
            except HttpError as refusal:
                return Result("error", error=refusal.body)
            try:
                end, messages = listener.until_done(prompt_id, timeout)
            except TimeoutError:
                self.interrupt(prompt_id)
                raise
        record = self.history(prompt_id) or {}
        error = end.data if end.type == "execution_error" else None
        return Result(STATUS[end.type], prompt_id, messages, error, record.get("outputs", {}))

    def files(self, result: Result) -> list[Path]:
        """The files that a result's outputs name, in the order of its nodes."""
        found = []
        for said in result.outputs.values():
            for entries in said.values():
                for entry in entries if isinstance(entries, list) else []:
                    if isinstance(entry, dict) and "filename" in entry:
                        folder = self.base / entry.get("type", "output") / entry.get("subfolder", "")
                        found.append(folder / entry["filename"])
        return found


class Listener:
    """A client of the host's websocket (RFC 6455) that collects messages in a thread.

    It says on connecting what the frontend says: previews come with their metadata.
    """

    FEATURES = {"supports_preview_metadata": True, "supports_progress_text_metadata": True}

    def __init__(self, port: int, client_id: str, timeout: float = 30):
        self.client_id = client_id
        self.messages: list[Message] = []
        self.closed: str | None = None
        """Why no more messages come."""
        self._news = threading.Condition()
        self._sending = threading.Lock()
        self._socket = socket.create_connection((ADDRESS, port), timeout)
        self._reader = self._socket.makefile("rb")
        try:
            self._shake_hands(f"{ADDRESS}:{port}")
            self._socket.settimeout(None)
            threading.Thread(target=self._listen, name=f"listener-{client_id}", daemon=True).start()
            self._send(0x1, json.dumps({"type": "feature_flags", "data": self.FEATURES}).encode())
            # The host's own flags are its answer; from here on it knows this client.
            self.wait_for(lambda message: message.type == "feature_flags", timeout)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        try:
            self._send(0x8, struct.pack(">H", 1000))
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the host is gone already
        self._socket.close()

    def of(self, kind: str) -> list[Message]:
        """All messages so far of a type ("binary" for the binary ones)."""
        with self._news:
            return [message for message in self.messages if message.type == kind]

    def wait_for(self, predicate: Callable[[Message], bool], timeout: float = 60) -> Message:
        """The first message, of those that came and those that will, of which the predicate is true.

        Raises:
            TimeoutError, ConnectionError: none came in time, or none can come any more.
        """
        deadline, seen = time.monotonic() + timeout, 0
        with self._news:
            while True:
                for message in self.messages[seen:]:
                    if predicate(message):
                        return message
                seen = len(self.messages)
                if self.closed:
                    raise ConnectionError(f"{self.closed}; the last messages were {self._last()}")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"not within {timeout} s; the last messages were {self._last()}")
                self._news.wait(left)

    def until_done(self, prompt_id: str, timeout: float = 300) -> tuple[Message, list[Message]]:
        """How the prompt ended (an execution_success, execution_error or execution_interrupted), and all its messages.

        The host records the history between that message and a last `executing` without a node, so both are awaited.
        """
        deadline = time.monotonic() + timeout

        def ends(message):
            return message.prompt_id == prompt_id and message.type in ENDS

        def idle(message):
            return message.type == "executing" and message.data["node"] is None and message.prompt_id == prompt_id

        end = self.wait_for(ends, timeout)
        self.wait_for(idle, max(5.0, deadline - time.monotonic()))
        with self._news:
            own = [message for message in self.messages if message.prompt_id == prompt_id]
        return end, own

    def _last(self) -> str:
        return ", ".join(message.type for message in self.messages[-5:]) or "none"

    def _shake_hands(self, host: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        path = f"/ws?clientId={urllib.parse.quote(self.client_id)}"
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        self._socket.sendall("\r\n".join(lines).encode())
        status = self._reader.readline().decode()
        headers = {}
        while (line := self._reader.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        proof = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        if " 101 " not in status or headers.get("sec-websocket-accept") != base64.b64encode(proof).decode():
            raise ConnectionError(f"no websocket: {status.strip()} {headers}")

    def _send(self, kind: int, payload: bytes) -> None:
        mask = os.urandom(4)
        size = len(payload)
        if size < 126:
            head = struct.pack(">BB", 0x80 | kind, 0x80 | size)
        elif size < 1 << 16:
            head = struct.pack(">BBH", 0x80 | kind, 0x80 | 126, size)
        else:
            head = struct.pack(">BBQ", 0x80 | kind, 0x80 | 127, size)
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        with self._sending:
            self._socket.sendall(head + mask + masked)

    def _read(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise ConnectionError("the connection ended")
        return data

    def _listen(self) -> None:
        kind, parts = 0, []
        reason = "the host closed the websocket"
        try:
            while True:
                first, second = self._read(2)
                code, size = first & 0x0F, second & 0x7F
                if size == 126:
                    (size,) = struct.unpack(">H", self._read(2))
                elif size == 127:
                    (size,) = struct.unpack(">Q", self._read(8))
                mask = self._read(4) if second & 0x80 else None
                payload = self._read(size)
                if mask:
                    payload = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
                if code == 0x8:
                    break
                if code == 0x9:
                    self._send(0xA, payload)
                elif code in (0x0, 0x1, 0x2):
                    # A control frame may come between the fragments of a message; only these add to it.
                    kind = code or kind
                    parts.append(payload)
                    if first & 0x80:
                        self._keep(kind, b"".join(parts))
                        parts = []
        except (OSError, ValueError) as error:
            reason = f"the websocket broke ({error})"
        finally:
            with self._news:
                self.closed = reason
                self._news.notify_all()

    def _keep(self, kind: int, payload: bytes) -> None:
        now = time.time()
        if kind == 0x2:
            message = Message(now, "binary", payload[4:], int.from_bytes(payload[:4], "big"))
        else:
            said = json.loads(payload)
            message = Message(now, said.get("type"), said.get("data"))
        with self._news:
            self.messages.append(message)
            self._news.notify_all()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return probe.getsockname()[1]


def copy_pack(target: Path, root: Path = REPOSITORY) -> Path | None:
    """What a clone of the repository would hold, less what a user does not run; None where there is no pack."""
    if not (root / "__init__.py").is_file():
        return None
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        # Git goes on listing a tracked file that was deleted here.
        if not name.startswith(NOT_SHIPPED) and (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target / name)
    return target
