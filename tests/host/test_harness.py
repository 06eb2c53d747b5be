"""The host that other tests run in starts, makes pictures, refuses, reports and stops; its checkpoint is whole."""

import base64
import hashlib
import json
import socket
import struct
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from trainer_core.families import registry

MISSING = ("unet missing", "clip missing", "Missing VAE keys", "left over keys in diffusion model", "Unhandled")


def test_checkpoint_makes_a_picture(host, text_to_image):
    result = host.run(text_to_image(steps=2))
    assert result.status == "success", result.error
    [path] = host.files(result)
    pixels = np.asarray(Image.open(path))
    assert pixels.shape == (64, 64, 3)
    # Not-a-number would be saved as black.
    assert pixels.std() > 1


def test_checkpoint_lacks_no_weight(host, text_to_image):
    assert host.run(text_to_image(seed=1)).status == "success"
    log = host.log()
    assert "model_type EPS" in log
    assert not [mark for mark in MISSING if mark in log]


def test_listener_hears_progress_and_outputs(host, text_to_image):
    with host.listen() as listener:
        prompt_id = host.queue(text_to_image(steps=3, seed=2), listener.client_id)
        end, messages = listener.until_done(prompt_id)
    assert end.type == "execution_success"
    # The host leaves out steps that follow the last one it reported too closely, but never the last.
    states = [message.data["nodes"].get("sample", {}) for message in messages if message.type == "progress_state"]
    assert [state["state"] for state in states if state.get("value") == 3][-1] == "finished"
    assert "save" in [message.data["node"] for message in messages if message.type == "executed"]
    assert messages[-1].type == "executing"
    assert host.history(prompt_id)["status"]["status_str"] == "success"


def test_invalid_prompt_is_refused(host, text_to_image):
    prompt = text_to_image()
    prompt["sample"]["inputs"]["steps"] = "many"
    result = host.run(prompt)
    assert (result.status, result.prompt_id) == ("error", None)
    assert result.error["error"]["type"] == "prompt_outputs_failed_validation"
    assert result.error["node_errors"]["sample"]["errors"][0]["extra_info"]["input_name"] == "steps"


def test_failing_node_is_named(host, text_to_image):
    prompt = text_to_image()
    prompt["checkpoint"]["inputs"]["ckpt_name"] = "broken.safetensors"
    broken = host.base / "models" / "checkpoints" / "broken.safetensors"
    broken.write_bytes(b"no weights")
    try:
        result = host.run(prompt)
    finally:
        broken.unlink()
    assert result.status == "error"
    assert result.error["node_id"] == "checkpoint"
    assert result.error["exception_message"]


def test_interrupt_ends_a_prompt(host, text_to_image):
    with host.listen() as listener:
        prompt_id = host.queue(text_to_image(steps=5000, seed=3), listener.client_id)
        listener.wait_for(lambda message: message.type == "progress" and message.prompt_id == prompt_id, 120)
        host.interrupt(prompt_id)
        end, _ = listener.until_done(prompt_id, 60)
    assert end.type == "execution_interrupted"
    assert end.data["node_id"] == "sample"


def test_dataset_and_unknown_node(host):
    assert sorted(path.suffix for path in (host.base / "input" / "things").iterdir()) == [".png"] * 5 + [".txt"] * 5
    assert host.object_info("NoSuchNode") is None
    assert "ckpt_name" in host.object_info("CheckpointLoaderSimple")["input"]["required"]


def test_own_host_previews_dies_and_comes_back(fresh_host, text_to_image):
    own = fresh_host("--preview-method", "latent2rgb")
    result = own.run(text_to_image())
    assert result.status == "success", result.error
    metadata, picture = result.of("binary")[0].preview()
    assert metadata["node_id"] == "sample"
    assert picture[:2] == b"\xff\xd8"

    with own.listen() as listener:
        own.kill()
        with pytest.raises(ConnectionError):
            listener.wait_for(lambda message: False, 20)
    assert not own.running
    assert own.restart().run(text_to_image()).status == "success"
    assert own.log().count("To see the GUI") == 2


def test_host_that_cannot_start_says_why(fresh_host):
    own = fresh_host("--no-such-option", pack=False, start=False)
    with pytest.raises(RuntimeError, match="unrecognized arguments: --no-such-option"):
        own.start()


def test_engine_reads_the_checkpoint(sd15_checkpoint):
    model = registry.load(str(sd15_checkpoint))
    captions = model.encoder.stack(model.encoder.encode_captions(["a red thing", "a blue thing"]))
    assert (captions["text"][0] - captions["text"][1]).abs().max() > 0.1
    numbers = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 4, 8, 8, generator=numbers)
    with torch.no_grad():
        predicted = model.family.predict(model.denoiser, noisy, torch.tensor([10, 900]), captions)
        latents = model.encoder.encode_pictures(torch.rand(1, 64, 64, 3, generator=numbers))
        decoded = model.encoder.decode(latents)
    for name, tensor in {"predicted": predicted, "latents": latents, "decoded": decoded}.items():
        assert torch.isfinite(tensor).all(), name
        assert tensor.std() > 0.01, name


def test_marks_and_precision_of_a_checkpoint(write_checkpoint, tmp_path):
    path = write_checkpoint(tmp_path / "v.safetensors", seed=1, dtype=torch.float32, v_pred=True, ztsnr=True)
    try:
        with safe_open(path, "pt") as file:
            assert file.get_tensor("v_pred").numel() == file.get_tensor("ztsnr").numel() == 0
            assert file.get_tensor("model.diffusion_model.out.2.weight").dtype == torch.float32
        diffusion = registry.load(str(path)).process
    finally:
        path.unlink()
    assert diffusion.prediction_type == "v_prediction"
    assert diffusion.scheduler.config.rescale_betas_zero_snr


class FragmentingServer(threading.Thread):
    """One websocket connection that gets a message in two fragments around a ping, a long one, and its end."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.heard = []

    def run(self):
        connection, _ = self.listening.accept()
        with connection, connection.makefile("rb") as reader:
            lines = iter(reader.readline, b"\r\n")
            [key] = [line.split()[1] for line in lines if line.startswith(b"Sec-WebSocket-Key")]
            proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " + proof + b"\r\n\r\n")
            self.heard.append(self.frame(reader))
            said = json.dumps({"type": "feature_flags", "data": {"long": "x" * 200}}).encode()
            connection.sendall(struct.pack(">BB", 0x01, 10) + said[:10])
            connection.sendall(struct.pack(">BB", 0x89, 4) + b"ping")
            connection.sendall(struct.pack(">BBH", 0x80, 126, len(said) - 10) + said[10:])
            picture = struct.pack(">I", 1) + bytes(70_000)
            connection.sendall(struct.pack(">BBQ", 0x82, 127, len(picture)) + picture)
            self.heard.append(self.frame(reader))
            connection.sendall(struct.pack(">BB", 0x88, 0))

    @staticmethod
    def frame(reader):
        first, second = reader.read(2)
        mask, size = second & 0x80, second & 0x7F
        assert mask, "a client's frames must be masked"
        size = struct.unpack(">H", reader.read(2))[0] if size == 126 else size
        key = reader.read(4)
        return first, bytes(byte ^ key[place % 4] for place, byte in enumerate(reader.read(size)))


def test_listener_joins_fragments_and_answers_pings(connect):
    far = FragmentingServer()
    far.start()
    with connect(far.port, "client") as listener:
        picture = listener.wait_for(lambda message: message.type == "binary", 20)
        with pytest.raises(ConnectionError, match="closed"):
            listener.wait_for(lambda message: False, 20)
    far.join(20)
    [flags] = listener.of("feature_flags")
    assert flags.data == {"long": "x" * 200}
    assert (picture.event, len(picture.data)) == (1, 70_000)
    (first, said), pong = far.heard
    assert (first, json.loads(said)["type"]) == (0x81, "feature_flags")
    assert pong == (0x8A, b"ping")
