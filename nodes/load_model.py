"""LoadTrainingModel: a base for training, and the same base for the host's own nodes."""

from ..trainer_core.errors import BadInput
from ..trainer_core.families.sources import BUILT_IN, Source, is_hub_id, resolve
from .edges import TrainingModel
from .host import paths
from .host.api import TRAINING_MODEL, ExecutionBlocker, io

FOLDER = "diffusers/"
HUB = "Hugging Face id (below)"


class LoadTrainingModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ScionLoadTrainingModel",
            display_name="Load Training Model",
            category="Scion",
            description="A base model to train a LoRA on: the built-in one, a checkpoint, a diffusers folder, or a "
            "Hugging Face model. MODEL, CLIP and VAE are the same base for sampling.",
            search_aliases=["scion", "train", "lora base", "scion-tiny"],
            inputs=[
                io.Combo.Input(
                    "base",
                    options=_names(),
                    default=next(iter(BUILT_IN)),
                    tooltip="scion-tiny is built in: it draws coloured shapes, 96×96 pixels, and trains on any machine",
                ),
                io.String.Input(
                    "hub_id",
                    default="",
                    optional=True,
                    tooltip=f"With '{HUB}': owner/name of a diffusers model that is in the local cache",
                    advanced=True,
                ),
                io.Boolean.Input(
                    "download",
                    default=False,
                    optional=True,
                    tooltip="Fetch that model from Hugging Face if it is not here; without this nothing is downloaded",
                    advanced=True,
                ),
            ],
            outputs=[
                TRAINING_MODEL.Output(
                    display_name="training_model", tooltip="For Train LoRA and Sample Training Model"
                ),
                io.Model.Output(display_name="model", tooltip="The same base for KSampler, Apply LoRA and Train LoRA"),
                io.Clip.Output(display_name="clip", tooltip="Its text encoder"),
                io.Vae.Output(display_name="vae", tooltip="Its VAE, between pictures and latents"),
            ],
        )

    @classmethod
    def validate_inputs(cls, base=None, hub_id=None):
        if base == HUB and hub_id is not None and not is_hub_id(hub_id.strip()):
            return f"hub_id: {hub_id!r} is no owner/name, such as stable-diffusion-v1-5/stable-diffusion-v1-5"
        if base is not None and base not in _names():
            return f"base: {base!r} is not on this machine; put it into ComfyUI's checkpoints or diffusers folder"
        return True

    @classmethod
    def execute(cls, base, hub_id="", download=False):
        from .host.loading import host_models

        source = _source(base, hub_id.strip(), download)
        models = host_models(source)
        if models is None:
            why = f"ComfyUI does not know the architecture of {base}, or not as a folder; use Sample Training Model"
            models = [ExecutionBlocker(why)] * 3
        return io.NodeOutput(TrainingModel(source.base), *models)


def _names() -> list[str]:
    return [*BUILT_IN, *paths.checkpoint_names(), *(FOLDER + name for name in paths.diffusers_names()), HUB]


def _source(base: str, hub_id: str, download: bool) -> Source:
    """
    Raises:
        BadInput: it is not on this machine.
    """
    if base in BUILT_IN:
        return resolve(base)
    if base == HUB:
        # A workflow must not be able to name any path on this machine here.
        if not is_hub_id(hub_id):
            raise BadInput(f"hub_id: {hub_id!r} is no owner/name of a Hugging Face model")
        return resolve(hub_id, download=download)
    if base.startswith(FOLDER) and base.removeprefix(FOLDER) in paths.diffusers_names():
        return resolve(str(paths.diffusers_folder(base.removeprefix(FOLDER))))
    return resolve(paths.checkpoint(base))
