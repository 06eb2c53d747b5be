"""A pack of one node that looks at the host's process; a test puts it beside the pack. It runs in the host."""

import ctypes
import gc
import hashlib
import json
import locale
import logging
import os
import signal
import sys
import threading
import warnings

import comfy.model_management
import numpy as np
import psutil
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

KEPT = {}
"""What another pack of the host might hold on to: an Accelerator and what it trains."""


def digest(data):
    return hashlib.sha256(data).hexdigest()[:16]


def accelerate_states():
    """Of each of accelerate's process-wide states what it holds, and by its id, whether it is the same object."""
    return {
        kind.__name__: {name: f"{value!r} {id(value)}" for name, value in kind._shared_state.items()}
        for kind in (AcceleratorState, PartialState, GradientState)
    }


def state():
    numpy_state = np.random.get_state()
    return {
        "accelerate": accelerate_states(),
        "default dtype": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "threads of torch": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "deterministic": [
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
            os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        ],
        "matmul precision": torch.get_float32_matmul_precision(),
        "modes": [torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")],
        "torch's dice": digest(torch.random.get_rng_state().numpy().tobytes()),
        "numpy's dice": digest(numpy_state[1].tobytes() + str(numpy_state[2]).encode()),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "locale": locale.setlocale(locale.LC_ALL),
        "signals": str([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]),
        "hooks": str([sys.excepthook, threading.excepthook]),
        "warnings": len(warnings.filters),
        "logging": [logging.root.level, len(logging.root.handlers), logging.root.manager.disable],
        "path": list(sys.path),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "open files": sorted({file.path for file in psutil.Process().open_files()}),
    }


def foreign(make):
    """Makes or uses an Accelerator of another pack: one step of a training that is its own."""
    with torch.inference_mode(False), torch.enable_grad():
        if make:
            accelerator = Accelerator(mixed_precision="no", cpu=True, gradient_accumulation_steps=3)
            layer = torch.nn.Linear(2, 1)
            KEPT["foreign"] = accelerator, *accelerator.prepare(layer, torch.optim.SGD(layer.parameters(), lr=0.1))
        accelerator, layer, optimizer = KEPT["foreign"]
        with accelerator.accumulate(layer):
            loss = (layer(torch.ones(4, 2)) - 1).square().mean()
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
    return {
        "precision": accelerator.mixed_precision,
        "accumulation": accelerator.gradient_accumulation_steps,
        "dtype": str(layer(torch.ones(1, 2)).dtype),
        "device": str(accelerator.device),
        "loss": float(loss),
    }


def memory():
    """What is in use once all that nobody needs is given back."""
    for _ in range(3):
        gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim:
        trim(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # asking some objects what they are is deprecated
        tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    process = psutil.Process()
    return {
        "bytes": process.memory_info().rss,
        "tensors": len(tensors),
        "numbers": sum(tensor.numel() for tensor in tensors),
        "objects": len(gc.get_objects()),
        "threads": process.num_threads(),
        "files": process.num_fds() if hasattr(process, "num_fds") else process.num_handles(),
        "loaded": len(comfy.model_management.current_loaded_models),
    }


LOOKS = {
    "state": state,
    "memory": memory,
    "foreign made": lambda: foreign(True),
    "foreign used": lambda: foreign(False),
    "nothing": lambda: None,
}


class Process:
    """Looks at the process, in the thread that runs nodes."""

    CATEGORY, FUNCTION, OUTPUT_NODE, RETURN_TYPES = "probe", "run", True, ()

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"look": (list(LOOKS),)}}

    @classmethod
    def IS_CHANGED(cls, **_):
        return float("nan")

    def run(self, look):
        return {"ui": {"text": [json.dumps(LOOKS[look]())]}}


NODE_CLASS_MAPPINGS = {"ProbeProcess": Process}
