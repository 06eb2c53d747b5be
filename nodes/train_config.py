"""LoRATrainConfig: how a LoRA is trained, every setting of the recipe that is not the dataset's."""

from .edges import TrainingConfig
from .host.api import TRAINING_CONFIG, io
from .widgets import Widget, checked, values_of

WIDGETS = [
    Widget("rank", "adapter.rank"),
    Widget("learning_rate", "optimizer.learning_rate"),
    Widget("steps", "run.steps"),
    Widget("batch_size", "run.batch_size"),
    Widget("targets", "adapter.targets"),
    Widget("seed", "run.seed"),
    Widget("preview_every", "run.preview_every"),
    Widget("preview_prompts", "preview.prompts"),
    Widget("alpha", "adapter.alpha", advanced=True),
    Widget("exclude", "adapter.exclude", advanced=True),
    Widget("dropout", "adapter.dropout", advanced=True),
    Widget("rslora", "adapter.rslora", advanced=True),
    Widget("epochs", "run.epochs", advanced=True),
    Widget("accumulation", "run.accumulation", advanced=True),
    Widget("precision", "run.precision", advanced=True),
    Widget("gradient_checkpointing", "run.gradient_checkpointing", advanced=True),
    Widget("optimizer", "optimizer.name", advanced=True),
    Widget("schedule", "optimizer.schedule", advanced=True),
    Widget("warmup_steps", "optimizer.warmup_steps", advanced=True),
    Widget("cycles", "optimizer.cycles", advanced=True),
    Widget("power", "optimizer.power", advanced=True),
    Widget("weight_decay", "optimizer.weight_decay", advanced=True),
    Widget("beta1", "optimizer.beta1", advanced=True),
    Widget("beta2", "optimizer.beta2", advanced=True),
    Widget("epsilon", "optimizer.epsilon", advanced=True),
    Widget("max_grad_norm", "optimizer.max_grad_norm", advanced=True),
    Widget("timesteps", "objective.timesteps", advanced=True),
    Widget("timestep_min", "objective.timestep_min", advanced=True),
    Widget("timestep_max", "objective.timestep_max", advanced=True),
    Widget("logit_mean", "objective.logit_mean", advanced=True),
    Widget("logit_std", "objective.logit_std", advanced=True),
    Widget("mode_scale", "objective.mode_scale", advanced=True),
    Widget("min_snr_gamma", "objective.min_snr_gamma", advanced=True),
    Widget("noise_offset", "objective.noise_offset", advanced=True),
    Widget("loss", "objective.loss", advanced=True),
    Widget("huber_delta", "objective.huber_delta", advanced=True),
    Widget("checkpoint_every", "run.checkpoint_every", advanced=True),
    Widget("checkpoint_minutes", "run.checkpoint_minutes", advanced=True),
    Widget("keep_checkpoints", "run.keep_checkpoints", advanced=True),
    Widget("validate_every", "run.validate_every", advanced=True),
    Widget("preview_negative", "preview.negative", advanced=True),
    Widget("preview_seed", "preview.seed", advanced=True),
    Widget("preview_steps", "preview.steps", advanced=True),
    Widget("preview_guidance", "preview.guidance", advanced=True),
    Widget("preview_sampler", "preview.sampler", advanced=True),
    Widget("preview_width", "preview.width", advanced=True),
    Widget("preview_height", "preview.height", advanced=True),
    Widget("preview_count", "preview.count", advanced=True),
    Widget("output_dtype", "output.dtype", advanced=True),
    Widget("output_dialect", "output.dialect", advanced=True),
    Widget("output_author", "output.author", advanced=True),
    Widget("output_license", "output.license", advanced=True),
    Widget("output_description", "output.description", advanced=True),
    Widget("custom_optimizer", "optimizer.custom", advanced=True),
    Widget("optimizer_arguments", "optimizer.arguments", advanced=True),
    Widget("min_ratio", "optimizer.min_ratio", advanced=True),
    Widget("decay_steps", "optimizer.decay_steps", advanced=True),
    Widget("decay_shape", "optimizer.decay_shape", advanced=True),
    Widget("lora_plus_ratio", "optimizer.lora_plus_ratio", advanced=True),
    Widget("part_rates", "optimizer.part_rates", advanced=True),
    Widget("adapter", "adapter.kind", advanced=True),
    Widget("lokr_factor", "adapter.factor", advanced=True),
    Widget("ema_decay", "run.ema_decay", advanced=True),
    Widget("early_stop", "run.early_stop", advanced=True),
    Widget("keep_best", "run.keep_best", advanced=True),
    Widget("preview_weights", "preview.weights", advanced=True),
    Widget("output_weights", "output.weights", advanced=True),
    Widget("output_checkpoint", "output.checkpoint", advanced=True),
    Widget("text_encoder", "adapter.text_encoder", advanced=True),
    Widget("text_encoder_learning_rate", "optimizer.text_encoder_learning_rate", advanced=True),
    Widget("text_encoder_rank", "adapter.text_encoder_rank", advanced=True),
    Widget("text_encoder_targets", "adapter.text_encoder_targets", advanced=True),
    Widget("text_encoder_stop_step", "adapter.text_encoder_stop_step", advanced=True),
    Widget("text_encoder_precision", "run.text_encoder_precision", advanced=True),
    Widget("new_words", "words.names", advanced=True),
    Widget("words_vectors", "words.vectors", advanced=True),
    Widget("words_start", "words.start", advanced=True),
    Widget("words_learning_rate", "words.learning_rate", advanced=True),
    Widget("words_weight_decay", "words.weight_decay", advanced=True),
    Widget("words_alone", "words.alone", advanced=True),
    Widget("attention_backend", "run.attention_backend", advanced=True),
    Widget("trained_guidance", "objective.guidance", advanced=True),
]
"""Workflows store widget values by their position: new ones go to the end."""


class LoRATrainConfig(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ScionLoRATrainConfig",
            display_name="LoRA Train Config",
            category="Scion",
            description="How a LoRA is trained. The eight settings that people change are shown; the others are under "
            "'advanced' and have defaults that work.",
            search_aliases=["scion", "lora settings", "learning rate", "rank", "training options"],
            inputs=[widget.input() for widget in WIDGETS],
            outputs=[TRAINING_CONFIG.Output(display_name="config", tooltip="For Train LoRA")],
        )

    @classmethod
    def execute(cls, **held):
        checked(WIDGETS, held)
        return io.NodeOutput(TrainingConfig(values_of(WIDGETS, held)))
