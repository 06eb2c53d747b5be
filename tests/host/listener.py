"""A client of the host's websocket, and the messages that it hears."""

import base64
import hashlib
import json
import os
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Any, NamedTuple

ADDRESS = "127.0.0.1"

PREVIEW, TEXT, PREVIEW_WITH_METADATA = 1, 3, 4
"""Event types of the host's binary messages (its protocol.py)."""

ENDS = ("execution_success", "execution_error", "execution_interrupted")


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
