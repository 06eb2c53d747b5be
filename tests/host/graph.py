"""The graph that trains, in the form that scripts queue, and what lies in a run's folder."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

TINY = "scion-tiny"
CONFIG = {
    "rank": 4,
    "learning_rate": 1e-3,
    "steps": 3,
    "batch_size": 2,
    "preview_every": 0,
    "preview_count": 1,
    "preview_steps": 1,
    "output_dtype": "fp32",
}


def node(kind: str, **inputs) -> dict:
    """A node of a prompt; tuples are links."""
    return {
        "class_type": kind,
        "inputs": {name: list(value) if isinstance(value, tuple) else value for name, value in inputs.items()},
    }


def training(base=TINY, folder="things", config=(), dataset=(), train=(), model=None, clip=None, vae=None, **more):
    """A short training; nodes are named by what they do, and `more` is merged in.

    Args:
        base: the built-in base's name, or a checkpoint's.
        config, dataset, train: what other inputs of these nodes hold.
        model, clip, vae: links instead of the base's.
    """
    tiny = base == TINY
    loader = node("ScionLoadTrainingModel", base=base) if tiny else node("CheckpointLoaderSimple", ckpt_name=base)
    first = 1 if tiny else 0
    links = {
        "model": model or ("base", first),
        "clip": clip or ("base", first + 1),
        "vae": vae or ("base", first + 2),
        "dataset": ("dataset", 0),
        "config": ("config", 0),
    }
    return {
        "base": loader,
        "dataset": node("ScionLoadImageCaptionDataset", **{"folder": folder, "resolution": 64, **dict(dataset)}),
        "config": node("ScionLoRATrainConfig", **{**CONFIG, **dict(config)}),
        "train": node("ScionTrainLoRA", **{"name": "short", **links, **dict(train)}),
        **more,
    }


def sampling(
    name="drawn",
    base=TINY,
    lora=None,
    strength=1.0,
    text="a red ring",
    steps=2,
    side=64,
    seed=1,
    cfg=2.0,
    model=None,
    sampler="euler",
):
    """Nodes that draw with the base of `training`; the last is called as the argument says, the others after it.

    Args:
        lora: a link to a LORA_MODEL, which is applied before.
        model: a link instead of the base's.
    """
    first = 1 if base == TINY else 0
    model, clip, vae = model or ("base", first), ("base", first + 1), ("base", first + 2)
    applied = {}
    if lora:
        apply = node("ScionApplyLoRA", model=model, clip=clip, lora=lora, strength_model=strength)
        applied[f"{name} apply"] = apply
        model, clip = (f"{name} apply", 0), (f"{name} apply", 1)
    settings = {
        "sampler_name": sampler,
        "scheduler": "normal",
        "steps": steps,
        "cfg": cfg,
        "denoise": 1.0,
        "seed": seed,
    }
    parts = {"positive": "positive", "negative": "negative", "latent_image": "latent"}
    return {
        **applied,
        f"{name} positive": node("CLIPTextEncode", text=text, clip=clip),
        f"{name} negative": node("CLIPTextEncode", text="", clip=clip),
        f"{name} latent": node("EmptyLatentImage", width=side, height=side, batch_size=1),
        f"{name} sample": node(
            "KSampler", model=model, **settings, **{key: (f"{name} {part}", 0) for key, part in parts.items()}
        ),
        f"{name} decode": node("VAEDecode", samples=(f"{name} sample", 0), vae=vae),
        name: node("SaveImage", images=(f"{name} decode", 0), filename_prefix=name),
    }


def drawn(host, result, name="drawn") -> np.ndarray:
    """The picture that a node of `sampling`, or a SaveImage, saved: uint8 [H, W, 3]."""
    assert result.status == "success", said(result)
    [entry] = result.outputs[name]["images"]
    return np.asarray(Image.open(host.base / "output" / entry["subfolder"] / entry["filename"]).convert("RGB"))


def said(result) -> str:
    """What went wrong, whether the prompt was refused or a node failed."""
    error = result.error or {}
    if "exception_message" in error:
        return error["exception_message"]
    refused = [problem for about in error.get("node_errors", {}).values() for problem in about["errors"]]
    return "\n".join(f"{problem['message']}: {problem['details']}" for problem in refused) or str(error)


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    folder: Path

    @property
    def state(self) -> dict:
        return json.loads((self.folder / "run.json").read_text(encoding="utf-8"))

    @property
    def file(self) -> Path:
        return self.folder / self.state["lora"]

    @property
    def tensors(self) -> dict:
        return load_file(self.file)

    @property
    def metadata(self) -> dict[str, str]:
        with safe_open(self.file, "pt") as file:
            return file.metadata()

    @property
    def losses(self) -> list[float]:
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [said["loss"] for said in map(json.loads, lines) if said.get("loss") is not None]

    def stamps(self) -> dict[str, tuple[int, int]]:
        """When each file was written, and its size: nothing is done anew where these stay."""
        files = [path for path in self.folder.rglob("*") if path.is_file() and path.name != ".lock"]
        return {str(path.relative_to(self.folder)): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def run_of(host, result, train="train") -> Run:
    """The run that a TrainLoRA node reported."""
    assert result.status == "success", said(result)
    return Run(host.base / "output" / "scion" / result.outputs[train]["scion"][0]["run"])


def remembered(result) -> list[str]:
    """The nodes that the host did not execute, because it still had what they gave."""
    return [name for message in result.of("execution_cached") for name in message.data["nodes"]]


def runs(host) -> list[str]:
    """The names of all run folders."""
    folder = host.base / "output" / "scion"
    return sorted(path.parent.name for path in folder.glob("*/run.json"))
