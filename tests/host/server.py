"""A real ComfyUI as a subprocess with this pack among its custom nodes, and a client of its routes."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# listener.py, as conftest.py has loaded it.
from host_listener import ADDRESS, ENDS, Listener, Message

REPOSITORY = Path(__file__).resolve().parents[2]
NOT_SHIPPED = ("tests/", "benchmarks/", "docs/", ".ci/")
COLOURS = re.compile(r"\x1b\[[\d;]*m")

START_SECONDS = 240
STOP_SECONDS = 20

STATUS = dict(zip(ENDS, ("success", "error", "interrupted"), strict=True))


class HttpError(RuntimeError):
    """An answer of 400 and above; `body` is its JSON, or its text where it is none."""

    def __init__(self, status: int, body: Any):
        super().__init__(f"HTTP {status}: {body}")
        self.status, self.body = status, body


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

    def request(self, path: str, body: Any = None, timeout: float = 60, method: str = "", **headers: str) -> bytes:
        """GET, or POST of JSON where there is a body, or another method.

        Args:
            headers: with _ for -.

        Raises:
            HttpError: the host answered with an error.
        """
        data = None if body is None else json.dumps(body).encode()
        said = {name.replace("_", "-"): text for name, text in headers.items()}
        said |= {"Content-Type": "application/json"} if data else {}
        request = urllib.request.Request(self.url + path, data, said, method=method or None)
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

    def listen(self, client_id: str | None = None) -> Listener:
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
