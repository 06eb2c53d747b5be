"""SampleTrainingModel: pictures by the engine itself, for bases that the host's samplers do not know."""

from .host.api import DECORATOR, LORA_MODEL, TRAINING_MODEL, io
from .widgets import Widget, checked, said_of_widgets

WIDGETS = [
    Widget("prompts", "preview.prompts", help="What to draw"),
    Widget("negative", "preview.negative"),
    Widget("seed", "preview.seed"),
    Widget("steps", "preview.steps"),
    Widget("guidance", "preview.guidance"),
    Widget("sampler", "preview.sampler"),
    Widget("width", "preview.width", help="0 = the base's own resolution"),
    Widget("height", "preview.height", help="0 = the base's own resolution"),
]
"""Workflows store widget values by their position: new ones go to the end, behind the strengths too."""


class SampleTrainingModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ScionSampleTrainingModel",
            display_name="Sample Training Model",
            category="Scion",
            description="Draws with a TRAINING_MODEL, with or without a LoRA, as previews are drawn in training.",
            search_aliases=["scion", "preview lora", "sample"],
            inputs=[
                TRAINING_MODEL.Input("model", tooltip="From Load Training Model"),
                LORA_MODEL.Input("lora", optional=True, tooltip="Without one, the base alone draws"),
                DECORATOR.Input("decorator", optional=True, tooltip="From Train LoRA; it follows every prompt"),
                *(widget.input() for widget in WIDGETS),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-20.0,
                    max=20.0,
                    step=0.01,
                    optional=True,
                    tooltip="How much the LoRA counts",
                ),
                io.Float.Input(
                    "decorator_strength",
                    default=1.0,
                    min=-20.0,
                    max=20.0,
                    step=0.01,
                    optional=True,
                    tooltip="By which the decorator's vectors are multiplied; 0 = without",
                    advanced=True,
                ),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="A picture for each prompt")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, lora=None, decorator=None, strength=1.0, decorator_strength=1.0, **held):
        from ..trainer_core import sampler
        from ..trainer_core.engine import sampling
        from ..trainer_core.errors import BadInput
        from .host import memory, running

        config = checked(WIDGETS, held).preview
        if not config.prompts:
            raise BadInput("prompts: is empty; write one prompt a line")
        memory.release()
        watch = running.Watch(cls.hidden.unique_id, running.say_steps)
        with memory.ours(), said_of_widgets(WIDGETS):
            told = config.prompts, config.negative
            words = getattr(lora, "words", ())
            how = {"strength": strength, "device": str(memory.device()), "words": words}
            how |= {"decorator": decorator, "decorator_strength": decorator_strength}
            loaded, entries = sampler.load_with_prompts(model.base, lora, *told, **how)
            size = config.width or loaded.resolution, config.height or loaded.resolution
            drawing = {"entries": entries, "should_stop": running.cancelled, "watch": watch}
            pictures = sampling.draw(loaded, config.prompts, config, *size, **drawing)
        if pictures is None:
            running.end()
        return io.NodeOutput(pictures)
