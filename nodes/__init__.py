"""ComfyUI's nodes: each is a schema, checks, and one call into the engine; the host itself is met in `host` alone."""

from .apply_decorator import ApplyDecoratorTokens
from .apply_lora import ApplyLoRA
from .host import routes
from .host.api import ComfyExtension
from .load_dataset import LoadImageCaptionDataset
from .load_model import LoadTrainingModel
from .sample import SampleTrainingModel
from .save_lora import SaveLoRA
from .train_config import LoRATrainConfig
from .train_lora import TrainLoRA

NODES = [
    LoadTrainingModel,
    LoadImageCaptionDataset,
    LoRATrainConfig,
    TrainLoRA,
    SaveLoRA,
    ApplyLoRA,
    ApplyDecoratorTokens,
    SampleTrainingModel,
]


class Scion(ComfyExtension):
    async def get_node_list(self):
        return NODES


async def comfy_entrypoint() -> Scion:
    routes.register()
    return Scion()
