"""Which settings say nothing beside which others, and why: the page greys them by this, docs/settings.md lists them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .adapters.lora_config import PAIRS, SHAPED_BY
from .engine.optimizer_kinds import KINDS


@dataclass(frozen=True)
class Among:
    """That a setting has one of these values."""

    values: tuple

    def holds(self, value: Any) -> bool:
        return value in self.values


@dataclass(frozen=True)
class Other:
    """That a setting has another value than these."""

    values: tuple

    def holds(self, value: Any) -> bool:
        return value not in self.values


@dataclass(frozen=True)
class Rule:
    """One reason for which a setting says nothing."""

    setting: str
    """Its dotted name."""
    when: Mapping[str, Among | Other]
    """What other settings must be; all of them."""
    why: str
    """For a person: what it takes."""
    idle: tuple | None = None
    """Where any other value than these is refused, instead of ignored. Another value can then be taken back."""

    @property
    def id(self) -> str:
        """Different for each rule: settings may have several."""
        return f"{self.setting}@{'+'.join(self.when)}"

    def holds(self, values: Mapping[str, Any]) -> bool:
        """
        Args:
            values: settings by dotted name; where one that is asked for is missing, nothing is known.
        """
        return all(name in values and condition.holds(values[name]) for name, condition in self.when.items())


NO, OFF, EMPTY = Among((0,)), Among((False,)), Among(("",))
ON, SET = Among((True,)), Other((0,))
WRITTEN = Other(("",))
NONE = Among(([],))
GIVEN = Other((None,))


def _kinds(*names: str) -> Among:
    return Among(tuple(name for name in SHAPED_BY if name not in names))


def _named(*names: str) -> dict[str, Among]:
    return {"optimizer.name": Among(names), "optimizer.custom": EMPTY}


LOGIT = ("logit_normal", "auto")
"""Ways to draw timesteps by a logit-normal density, or perhaps."""
FINDS_RATE = tuple(name for name, kind in KINDS.items() if kind.finds_rate)
RULES = (
    Rule("adapter.alpha", {"adapter.kind": Among(("oft",))}, "A rotation (oft) has no strength", (None,)),
    Rule("adapter.dropout", {"adapter.kind": _kinds(*PAIRS)}, "Only lora and dora zero inputs", (0,)),
    Rule("adapter.rslora", {"adapter.kind": _kinds(*PAIRS)}, "Only lora and dora have this scale", (False,)),
    Rule("adapter.factor", {"adapter.kind": _kinds("lokr")}, "Only the adapter lokr has factors", (0,)),
    *(
        Rule(f"adapter.{name}", {"adapter.text_encoder": Among(("off",))}, "No text encoder learns", (usual,))
        for name, usual in (("text_encoder_rank", 0), ("text_encoder_targets", ["attention+mlp"]))
    ),
    Rule(
        "adapter.text_encoder_stop_step",
        {"adapter.text_encoder": Other(("on",))},
        "Only a text encoder that learns beside the denoiser can stop before it",
        (0,),
    ),
    *(
        Rule(f"adapter.{name}", {"adapter.text_encoder": Among(("only",))}, "The text encoders alone learn", (usual,))
        for name, usual in (("targets", ["attention"]), ("exclude", []))
    ),
    Rule(
        "optimizer.text_encoder_learning_rate",
        {"adapter.text_encoder": Among(("off",))},
        "No text encoder learns",
        (None,),
    ),
    Rule(
        "optimizer.text_encoder_learning_rate",
        _named(*FINDS_RATE),
        "This optimizer finds one rate for all",
        (None,),
    ),
    Rule(
        "run.text_encoder_precision",
        {"adapter.text_encoder": Other(("off",))},
        "Text encoders that learn compute in run.precision",
        ("auto",),
    ),
    Rule(
        "run.text_encoder_precision",
        {"words.names": Other(([],))},
        "Text encoders in which new words learn compute in run.precision",
        ("auto",),
    ),
    *(
        Rule(f"words.{name}", {"words.names": NONE}, "There are no new words", (usual,))
        for name, usual in (
            ("vectors", 1),
            ("start", []),
            ("learning_rate", None),
            ("weight_decay", 0),
            ("alone", False),
        )
    ),
    Rule("words.learning_rate", _named(*FINDS_RATE), "This optimizer finds one rate for all", (None,)),
    *(
        Rule(f"decorator.{name}", {"decorator.num_tokens": NO}, "There is no decorator", (usual,))
        for name, usual in (("initial_scale", 1), ("learning_rate", None), ("alone", False))
    ),
    Rule("decorator.learning_rate", _named(*FINDS_RATE), "This optimizer finds one rate for all", (None,)),
    *(
        Rule(name, {f"{part}.alone": ON}, f"{who} without a LoRA", idle)
        for part, who in (("words", "New words learn"), ("decorator", "The decorator learns"))
        for name, idle in (
            ("adapter.rank", None),
            ("adapter.alpha", None),
            ("adapter.targets", None),
            ("adapter.exclude", ([],)),
            ("adapter.dropout", (0,)),
            ("adapter.rslora", (False,)),
            ("adapter.kind", ("lora",)),
            ("adapter.text_encoder", ("off",)),
            ("optimizer.lora_plus_ratio", (0, 1)),
            ("optimizer.part_rates", ([],)),
            ("output.dialect", ("auto",)),
        )
    ),
    Rule(
        "optimizer.learning_rate",
        {
            "words.alone": ON,
            "decorator.num_tokens": NO,
            "optimizer.name": Other(FINDS_RATE),
            "optimizer.custom": EMPTY,
            "optimizer.schedule": Other(("polynomial",)),
        },
        "The new words have a learning rate of their own",
    ),
    Rule(
        "optimizer.learning_rate",
        {
            "decorator.alone": ON,
            "decorator.learning_rate": GIVEN,
            "optimizer.custom": EMPTY,
            "optimizer.schedule": Other(("polynomial",)),
        },
        "The decorator has a learning rate of its own",
    ),
    Rule(
        "optimizer.weight_decay",
        {"words.alone": ON, "decorator.num_tokens": NO},
        "The new words have a weight decay of their own",
    ),
    Rule("run.epochs", {"run.steps": SET}, "The run goes by steps; to go by epochs set run.steps to 0", (0,)),
    Rule("run.steps", {"run.epochs": SET}, "The run goes by epochs; to go by steps set run.epochs to 0", (0,)),
    Rule("optimizer.name", {"optimizer.custom": WRITTEN}, "optimizer.custom is used instead"),
    Rule("optimizer.beta1", _named("adafactor"), "adafactor takes it from optimizer.arguments", (0.9,)),
    Rule("optimizer.beta2", _named("adafactor"), "adafactor has no such memory", (0.999,)),
    Rule("optimizer.epsilon", _named("adafactor", "lion", "came"), "This optimizer has no single one", (1e-8,)),
    Rule("optimizer.lora_plus_ratio", _named(*FINDS_RATE), "This optimizer finds one rate for all", (0, 1)),
    Rule("optimizer.part_rates", _named(*FINDS_RATE), "This optimizer finds one rate for all", ([],)),
    Rule("optimizer.lora_plus_ratio", {"adapter.kind": _kinds(*PAIRS)}, "Only lora and dora have a B", (0, 1)),
    Rule("optimizer.warmup_steps", {"optimizer.schedule": Among(("constant",))}, "This schedule has none", (0,)),
    Rule("optimizer.cycles", {"optimizer.schedule": Other(("cosine_with_restarts",))}, "Of cosine_with_restarts only"),
    Rule("optimizer.power", {"optimizer.schedule": Other(("polynomial",))}, "Of the schedule polynomial only"),
    Rule(
        "optimizer.min_ratio",
        {"optimizer.schedule": Other(("cosine_with_min", "warmup_stable_decay"))},
        "Of the schedules cosine_with_min and warmup_stable_decay only",
    ),
    *(
        Rule(
            f"optimizer.{name}",
            {"optimizer.schedule": Other(("warmup_stable_decay",))},
            "Of the schedule warmup_stable_decay only",
        )
        for name in ("decay_steps", "decay_shape")
    ),
    *(
        Rule(f"objective.{name}", {"objective.timesteps": Other(drawn)}, f"Of the timesteps {drawn[0]} only")
        for name, drawn in (("logit_mean", LOGIT), ("logit_std", LOGIT), ("mode_scale", ("mode",)))
    ),
    Rule("objective.huber_delta", {"objective.loss": Among(("mse",))}, "Of the losses huber and smooth_l1 only"),
    Rule("preview.count", {"preview.prompts": Other(([],))}, "The prompts are drawn, not captions"),
    Rule("preview.negative", {"preview.guidance": Among((1,))}, "With a guidance of 1 the prompt alone is drawn"),
    *(
        Rule(name, {"run.ema_decay": NO}, "No moving average is kept; run.ema_decay makes one", ("auto", "trained"))
        for name in ("preview.weights", "output.weights")
    ),
    Rule("run.validate_every", {"dataset.holdout": NO}, "The dataset holds no picture out to measure it on"),
    Rule("run.early_stop", {"dataset.holdout": NO}, "The dataset holds no picture out to measure it on", (0,)),
    Rule("run.keep_best", {"dataset.holdout": NO}, "The dataset holds no picture out to measure it on", (False,)),
    Rule(
        "output.checkpoint",
        {"run.keep_best": OFF},
        "The best checkpoint is not kept; run.keep_best keeps it",
        ("last",),
    ),
    Rule("dataset.trigger", {"dataset.regularisation": ON}, "Pictures of the class (dataset.regularisation) have none"),
    Rule(
        "dataset.resolution",
        {"dataset.width": SET, "dataset.height": SET},
        "dataset.width and dataset.height are one size for all",
        (0,),
    ),
    Rule(
        "dataset.buckets",
        {"dataset.width": SET, "dataset.height": SET},
        "dataset.width and dataset.height are one size for all",
    ),
    Rule(
        "dataset.missing_captions",
        {"dataset.default_caption": WRITTEN},
        "Pictures without one have dataset.default_caption",
    ),
    Rule("dataset.keep_tags", {"dataset.shuffle_tags": OFF}, "No tags are shuffled"),
    Rule(
        "dataset.variants",
        {"dataset.crop": Among(("center",)), "dataset.colour_jitter": NO, "dataset.folders": NONE},
        "Views are only drawn where the crop is random or colours jitter",
    ),
    Rule("dataset.cache_limit_gb", {"dataset.cache": Among(("off",))}, "Nothing is cached"),
    Rule(
        "dataset.prior_weight",
        {"dataset.regularisation": OFF, "dataset.folders": NONE},
        "No folder is one of dataset.regularisation",
    ),
    Rule("dataset.mask_path", {"dataset.mask": Other(("folder",))}, "Only the mask 'folder' reads it", ("",)),
    Rule("dataset.mask_floor", {"dataset.mask": Among(("off",))}, "No mask is used"),
    Rule("dataset.missing_masks", {"dataset.mask": Among(("off",))}, "No mask is used"),
)
