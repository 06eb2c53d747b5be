"""TrainLoRA: a run of the engine inside the graph."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from ..trainer_core.errors import BadInput
from .edges import LoraModel, TrainingModel, digest_of
from .host import paths
from .host.api import (
    DECORATOR,
    LORA_MODEL,
    LOSS_MAP,
    TRAINING_CONFIG,
    TRAINING_DATASET,
    TRAINING_MODEL,
    ExecutionBlocker,
    io,
)
from .load_dataset import WIDGETS as OF_DATASET
from .train_config import WIDGETS as OF_CONFIG
from .widgets import Widget, named_as_widgets, nested, said_of_widgets, values_of

FIRST = [Widget("name", "output.name"), Widget("existing", "run.existing", advanced=True)]
LAST = [Widget("assistant_strength", "adapter.assistant_strength", advanced=True)]
"""Workflows store widget values by their position: new ones go to the end, behind all others."""
WIDGETS = [*FIRST, *LAST]

ALL = [*WIDGETS, *OF_CONFIG, *OF_DATASET]
"""Of the three nodes that make a recipe."""

REFUSE, BAKE = "refuse", "bake"
NONE = "none"


class TrainLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ScionTrainLoRA",
            display_name="Train LoRA (Scion)",
            category="Scion",
            description="Trains a LoRA and hands it on to sampling. Cancel keeps what is done: queue again to "
            "go on. A finished run is returned at once, also after a restart.",
            search_aliases=["scion", "train lora", "lora training", "fine-tune", "finetune"],
            is_output_node=True,
            inputs=[
                io.MultiType.Input(
                    "model",
                    [io.Model, TRAINING_MODEL],
                    tooltip="A MODEL with the CLIP and VAE of its checkpoint, or a TRAINING_MODEL (brings its own)",
                ),
                TRAINING_DATASET.Input("dataset", tooltip="The pictures, from Load Image Caption Dataset"),
                TRAINING_CONFIG.Input("config", tooltip="How to train, from LoRA Train Config"),
                io.Clip.Input("clip", optional=True, tooltip="Encodes the captions; needed with a MODEL"),
                io.Vae.Input(
                    "vae", optional=True, tooltip="Encodes the pictures and decodes previews; needed with a MODEL"
                ),
                LORA_MODEL.Input(
                    "start_lora",
                    optional=True,
                    tooltip="A LoRA to go on from, instead of from nothing, of the same rank",
                ),
                *(widget.input() for widget in FIRST),
                io.Combo.Input(
                    "patched_model",
                    options=[REFUSE, BAKE],
                    default=REFUSE,
                    optional=True,
                    tooltip="If LoRAs are loaded into the MODEL: refuse to train on it, or make them part of the base",
                    advanced=True,
                ),
                LORA_MODEL.Input(
                    "assistant_lora",
                    optional=True,
                    tooltip="A frozen LoRA that is on beside the training, and neither in pictures nor in the result: "
                    "such as the training adapter of FLUX.1 schnell",
                ),
                io.Combo.Input(
                    "assistant_file",
                    options=[NONE, *paths.lora_names()],
                    default=NONE,
                    optional=True,
                    tooltip="The same, from a file in ComfyUI's loras folder",
                    advanced=True,
                ),
                *(widget.input() for widget in LAST),
            ],
            outputs=[
                LORA_MODEL.Output(display_name="lora", tooltip="For Apply LoRA and Save LoRA, ours and ComfyUI's own"),
                LOSS_MAP.Output(display_name="loss", tooltip="The loss of each step"),
                io.Image.Output(display_name="samples", tooltip="The pictures of the last preview"),
                io.Image.Output(display_name="loss_plot", tooltip="The loss over the run, as a picture"),
                io.String.Output(display_name="run_folder", tooltip="Where checkpoints, previews and the recipe lie"),
                DECORATOR.Output(
                    display_name="decorator", tooltip="For Apply Decorator Tokens and Save LoRA, if one was trained"
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def fingerprint_inputs(cls, existing="resume", **held):
        from .host import active

        # What the host remembers of a run is of no use where that run was ended, opened again or deleted by hand since.
        return active.changes() if existing in ("resume", "continue") else None

    @classmethod
    def execute(
        cls,
        model,
        dataset,
        config,
        clip=None,
        vae=None,
        start_lora=None,
        patched_model=REFUSE,
        assistant_lora=None,
        assistant_file=NONE,
        **held,
    ):
        from .host import memory, observer, running, workflow_file

        workflow = workflow_file.said_with(cls.hidden.extra_pnginfo)
        watching = observer.NodeObserver(cls.hidden.unique_id, workflow)
        with watching.present(), memory.ours(), running.notes_shown(), said_of_widgets(ALL):
            try:
                loras = {
                    "start_from": _written(start_lora, "start_lora"),
                    "assistant": _assistant(assistant_lora, assistant_file),
                }
                result = _trained(watching, model, dataset, config, held, clip, vae, loras, patched_model == BAKE)
            finally:
                memory.release()
        if result.status == "stopped":
            running.end()
        # Also at the very end: a finished run is returned at once when it is queued again.
        running.end_if_cancelled()
        return _outputs(result)


def _trained(observer, model, dataset, config, held, clip, vae, loras, bake: bool):
    """The run's result; what it held on the device is free when this returns."""
    from ..trainer_core.engine import output, run
    from .host import memory, running
    from .log import LogObserver

    learns = config.values.get("adapter.text_encoder", "off") != "off" or bool(config.values.get("words.names"))
    base = _base(model, clip, vae, bake, learns, observer)
    recipe = _recipe(base, dataset, config, held, loras)
    return run.train(
        recipe,
        lambda fingerprint: paths.run_folder(fingerprint, output.file_name(recipe)),
        [observer, LogObserver()],
        running.cancelled,
        model=base.model,
        scan=dataset.scan,
        advice=InTheGraph(recipe.run.existing),
        device=memory.device(),
        requests=observer.requests,
    )


class InTheGraph:
    """What a person in the graph is told; the command line's counterpart is `engine.advice.CommandLine`."""

    another_run = "it makes another run"

    def __init__(self, existing: str):
        self._existing = existing

    def go_on(self, recipe: Path, changes: Mapping[str, str] | None = None) -> str:
        names = named_as_widgets(" and ".join(f"{name} to {value}" for name, value in (changes or {}).items()), ALL)
        wanted = list(filter(None, [names, "" if self._existing in ("resume", "continue") else "existing to 'resume'"]))
        if not wanted:
            return "Queue the workflow again to go on."
        return f"Set {' and '.join(wanted)} and queue the workflow again to go on."

    def begin_lower(self, recipe: Path, setting: str, rate: str, start: Mapping[str, str]) -> str:
        return f"Begin anew with a lower learning rate: set {named_as_widgets(setting, ALL)} to {rate} and queue again."


@dataclasses.dataclass(frozen=True)
class _Base:
    name: str
    """As the recipe has it."""
    model: object | None
    """Loaded from the host's weights; None where the engine loads it."""


def _base(model, clip, vae, bake: bool, text_learns: bool, observer) -> _Base:
    from ..trainer_core.engine.events import Warned

    if isinstance(model, TrainingModel):
        from .host import memory

        if clip is not None or vae is not None:
            observer.on(Warned("clip and vae are not used: a TRAINING_MODEL encodes with its own."))
        memory.release()
        return _Base(model.base, None)
    from .host.weights import base_of

    host = base_of(model, clip, vae, bake, text_learns)
    for warning in host.warnings:
        observer.on(Warned(warning))
    return _Base(host.base, host.model)


def _recipe(base: _Base, dataset, config, held, loras):
    """
    Args:
        loras: files by the setting of the adapter that names each; None = not wanted.

    Raises:
        BadInput: settings that cannot be used.
    """
    from ..trainer_core import options, recipe

    asked = {**config.values, **values_of(WIDGETS, held)}
    asked |= {f"adapter.{name}": str(file) for name, file in loras.items() if file is not None}
    values = nested(asked)
    values["dataset"], values["base"] = options.as_dict(dataset.config), base.name
    return recipe.from_dict(values)


def _assistant(wired, name: str) -> Path | None:
    """The file of the assistant, which is wired or named.

    Raises:
        BadInput: it is both.
    """
    if name == NONE:
        return _written(wired, "assistant_lora")
    if wired is not None:
        raise BadInput(
            f"assistant_file: {name}, but assistant_lora is wired, too; set it to {NONE}, or unwire the other"
        )
    return Path(paths.lora(name))


def _written(lora, socket: str) -> Path | None:
    """The LoRA as a file, which a resumed run, or one elsewhere, can read again; None where none is wired.

    Raises:
        BadInput: there is no LoRA in it.
    """
    from ..trainer_core.lora_file.safe_io import write_tensors

    if lora is None:
        return None
    if not lora:
        raise BadInput(f"{socket}: holds no LoRA, so there is nothing to take from it; leave it unwired")
    path = paths.runs() / "start" / f"{digest_of(lora)[:16]}.safetensors"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, lora, getattr(lora, "metadata", {}))
    return path


def _outputs(result):
    """What a finished run gives, read from its folder: the same whether it was trained now or long ago."""
    from ..trainer_core.engine import charts, metrics
    from ..trainer_core.engine.run_folder import RunFolder
    from ..trainer_core.lora_file.decorator import read_decorator
    from ..trainer_core.lora_file.safe_io import read_tensors
    from ..trainer_core.lora_file.words import read_word
    from .host.pictures import read_pictures, shown

    folder = RunFolder(result.folder)
    tensors, metadata = read_tensors(result.lora) if result.lora else ({}, {})
    name, words = result.lora.stem if result.lora else "", [read_word(path) for path in result.made.words]
    losses = [line["loss"] for line in metrics.read(folder.metrics) if line.get("loss") is not None]
    samples = charts.numbered(folder.samples)
    blocked = ExecutionBlocker(None)
    no_decorator = ExecutionBlocker("decorator: none was trained; set decorator_tokens of LoRA Train Config")
    return io.NodeOutput(
        LoraModel(tensors, metadata, name, result.target, words),
        {"loss": losses},
        read_pictures(samples) if samples else blocked,
        read_pictures([folder.loss_plot]) if folder.loss_plot.is_file() else blocked,
        str(result.folder),
        read_decorator(result.made.decorator) if result.made.decorator else no_decorator,
        ui={"images": shown(samples), "scion": [{"run": result.folder.name, "status": result.status}]},
    )
