"""LoadTrainingModel: a base for training, and the same base for the host's own nodes."""

from .edges import TrainingModel
from .host import paths
from .host.api import TRAINING_MODEL, ExecutionBlocker, io

BUILT_IN = "scion-tiny"
FOLDER = "diffusers/"
HUB = "Hugging Face id (below)"


class LoadTrainingModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        names = [BUILT_IN, *paths.checkpoint_names(), *(FOLDER + name for name in paths.diffusers_names()), HUB]
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
                    options=names,
                    default=BUILT_IN,
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
                TRAINING_MODEL.Output(display_name="training_model", tooltip="For TrainLoRA and SampleTrainingModel"),
                io.Model.Output(display_name="model", tooltip="The same base for KSampler, ApplyLoRA or TrainLoRA"),
                io.Clip.Output(display_name="clip"),
                io.Vae.Output(display_name="vae"),
            ],
        )

    @classmethod
    def validate_inputs(cls, base=None, hub_id=None):
        if base == HUB and hub_id is not None and not hub_id.strip():
            return "hub_id: is empty; write owner/name, such as stable-diffusion-v1-5/stable-diffusion-v1-5"
        if base is not None and base not in cls.define_schema().inputs[0].options:
            return f"base: {base!r} is not on this machine; put it into ComfyUI's checkpoints or diffusers folder"
        return True

    @classmethod
    def execute(cls, base, hub_id="", download=False):
        from ..trainer_core.families.sources import resolve
        from .host.loading import host_models

        if base == HUB:
            named = hub_id.strip()
        elif base.startswith(FOLDER) and base.removeprefix(FOLDER) in paths.diffusers_names():
            named = str(paths.diffusers_folder(base.removeprefix(FOLDER)))
        else:
            named = base if base == BUILT_IN else paths.checkpoint(base)
        source = resolve(named, download=download and base == HUB)
        models = host_models(named, source.path)
        if models is None:
            models = [
                ExecutionBlocker(f"ComfyUI does not know the architecture of {base}; sample with SampleTrainingModel")
            ] * 3
        return io.NodeOutput(TrainingModel(named), *models)
