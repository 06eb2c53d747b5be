"""ApplyDecoratorTokens: a decorator, from the graph or a file, behind the conditioning of prompts."""

from pathlib import Path

from ..trainer_core.errors import BadInput
from .host import paths
from .host.api import DECORATOR, io

WIRED = "the one that is wired"
"""The choice of no file."""


class ApplyDecoratorTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        part = {"min": 0.0, "max": 1.0, "step": 0.001, "optional": True, "advanced": True}
        return io.Schema(
            node_id="ScionApplyDecoratorTokens",
            display_name="Apply Decorator Tokens",
            category="Scion",
            description="Puts a trained decorator behind prompts: vectors that the model reads as if more words had "
            "been written. Zeros of the same number follow the negative prompt, as in training.",
            search_aliases=["scion", "decorator", "learned tokens", "ai-toolkit decorator"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="Of the prompt; the decorator follows it"),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="Of the negative prompt; zeros follow it, as in training"
                ),
                DECORATOR.Input(
                    "decorator", optional=True, tooltip="From Train LoRA; counts more than a file that is chosen"
                ),
                io.Combo.Input(
                    "decorator_file",
                    options=[WIRED, *paths.decorator_names()],
                    default=WIRED,
                    optional=True,
                    tooltip="A decorator's file among the LoRAs, where Save LoRA puts it; ai-toolkit's files are read, "
                    "too, once they are called NAME.decorator.safetensors",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-20.0,
                    max=20.0,
                    step=0.01,
                    optional=True,
                    tooltip="By which its vectors are multiplied; 0 = both prompts as they came in",
                ),
                io.Float.Input("start_percent", default=0.0, tooltip="From this part of the sampling on", **part),
                io.Float.Input("end_percent", default=1.0, tooltip="Up to this part of the sampling", **part),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="With the decorator behind it"),
                io.Conditioning.Output(display_name="negative", tooltip="With zeros behind it; for the same sampler"),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, decorator_file=WIRED, **held):
        # What is in the file counts, however often it is written anew.
        if decorator_file in (None, WIRED):
            return None
        status = Path(paths.lora(decorator_file)).stat()
        return status.st_size, status.st_mtime_ns

    @classmethod
    def execute(
        cls,
        positive,
        negative=None,
        decorator=None,
        decorator_file=WIRED,
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
    ):
        from ..trainer_core.lora_file.decorator import read_decorator
        from .host import decorating
        from .host.api import ExecutionBlocker

        if start_percent > end_percent:
            raise BadInput(
                f"start_percent: {start_percent:g} is above end_percent, which is {end_percent:g}; set it to at most "
                "that"
            )
        if decorator is None and decorator_file == WIRED:
            raise BadInput("decorator: none is wired, and no decorator_file is chosen; do one of the two")
        tokens = decorator if decorator is not None else read_decorator(paths.lora(decorator_file))
        how = (tokens, strength, start_percent, end_percent)
        without = ExecutionBlocker("negative: not wired to Apply Decorator Tokens")
        return io.NodeOutput(
            decorating.decorated(positive, *how),
            without if negative is None else decorating.undecorated(negative, *how),
        )
