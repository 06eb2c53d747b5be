"""ApplyLoRA: a LoRA from the graph onto MODEL and CLIP."""

from .host.api import LORA_MODEL, io


class ApplyLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        strength = {"default": 1.0, "min": -20.0, "max": 20.0, "step": 0.01, "optional": True}
        return io.Schema(
            node_id="ScionApplyLoRA",
            display_name="Apply LoRA (Scion)",
            category="Scion",
            description="Puts a trained LoRA into a model, as ComfyUI's Load LoRA does with a file, and new words "
            "that were trained with it into CLIP.",
            search_aliases=["scion", "load lora model", "use lora"],
            inputs=[
                io.Model.Input("model", tooltip="The base that the LoRA was trained on, or one of its kind"),
                LORA_MODEL.Input("lora", tooltip="From Train LoRA, or from ComfyUI's own training node"),
                io.Clip.Input(
                    "clip", optional=True, tooltip="Needed where the LoRA has a part for the text encoder, or new words"
                ),
                io.Float.Input(
                    "strength_model", tooltip="How much the LoRA counts; 0 = off, negative = away", **strength
                ),
                io.Float.Input("strength_clip", tooltip="The same for the text encoder", advanced=True, **strength),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="With the LoRA; the one that came in is not changed"),
                io.Clip.Output(display_name="clip", tooltip="With the LoRA's part for the text encoder, if it has one"),
            ],
        )

    @classmethod
    def execute(cls, model, lora, clip=None, strength_model=1.0, strength_clip=1.0):
        from .host.applying import apply

        return io.NodeOutput(*apply(model, clip, lora, strength_model, strength_clip))
