"""Settings that are said to do nothing do nothing, or are refused; elsewhere they count."""

from collections.abc import Mapping

import pytest
import torch
from safetensors.torch import load_file

from trainer_core import options, recipe, settings_page
from trainer_core.data.dataset import Dataset
from trainer_core.data.scan import scan_folder
from trainer_core.engine import metrics, objective, optimizers
from trainer_core.engine.learning_rate import LearningRate
from trainer_core.errors import BadInput
from trainer_core.idle_settings import RULES

IGNORED = [rule for rule in RULES if rule.idle is None]
REFUSED = [rule for rule in RULES if rule.idle is not None]

BESIDE_ALL: Mapping = {
    "optimizer.custom": "adv_optm.AdamW_adv",
    "objective.timesteps": "uniform",
    "preview.prompts": ["a ring"],
    "preview.guidance": 1.0,
    "dataset.width": 64,
    "dataset.height": 64,
    "dataset.default_caption": "a thing",
    "dataset.cache": "off",
}
"""With the defaults of the rest, what every rule asks for but that of the trigger word."""
ANOTHER: Mapping = {
    "optimizer.name": "adafactor",
    "optimizer.beta1": 0.5,
    "optimizer.beta2": 0.5,
    "optimizer.epsilon": 1e-4,
    "optimizer.lora_plus_ratio": 16.0,
    "optimizer.part_rates": ["attn1=1e-5"],
    "optimizer.warmup_steps": 2,
    "optimizer.cycles": 3,
    "optimizer.power": 2.0,
    "optimizer.min_ratio": 0.5,
    "optimizer.decay_steps": 2,
    "optimizer.decay_shape": "linear",
    "objective.logit_mean": 1.0,
    "objective.logit_std": 0.2,
    "objective.mode_scale": 0.1,
    "objective.huber_delta": 0.5,
    "preview.count": 2,
    "preview.negative": "blue",
    "preview.weights": "ema",
    "output.weights": "ema",
    "output.checkpoint": "best",
    "run.validate_every": 1,
    "run.early_stop": 1,
    "run.keep_best": True,
    "run.epochs": 2,
    "run.steps": 7,
    "adapter.alpha": 3.0,
    "adapter.dropout": 0.5,
    "adapter.rslora": True,
    "adapter.factor": 4,
    "adapter.targets": ["to_q"],
    "adapter.exclude": ["mid_block"],
    "adapter.text_encoder_rank": 2,
    "adapter.text_encoder_targets": ["attention"],
    "adapter.text_encoder_stop_step": 2,
    "optimizer.text_encoder_learning_rate": 1e-5,
    "run.text_encoder_precision": "bf16",
    "words.names": ["<my-cat>"],
    "words.vectors": 2,
    "words.start": ["ring"],
    "words.learning_rate": 1e-2,
    "words.weight_decay": 0.1,
    "words.alone": True,
    "decorator.initial_scale": 0.1,
    "decorator.learning_rate": 1e-3,
    "decorator.alone": True,
    "adapter.kind": "loha",
    "adapter.text_encoder": "on",
    "output.dialect": "kohya",
    "dataset.trigger": "zorb",
    "dataset.resolution": 128,
    "dataset.buckets": False,
    "dataset.missing_captions": "name",
    "dataset.keep_tags": 2,
    "dataset.variants": 0,
    "dataset.cache_limit_gb": 1e-9,
    "dataset.prior_weight": 0.3,
    "dataset.mask_path": "masks",
    "dataset.mask_floor": 0.4,
    "dataset.missing_masks": "whole",
}
"""A value that counts, for each setting that may do nothing."""


def values_of(made):
    parts = options.parts_of(recipe.Recipe)
    return {
        f"{part}.{name}": getattr(getattr(made, part), name)
        for part in parts
        for name in options.options_of(parts[part])
    }


def told(result):
    """All that a run leaves: weights, previews, and its history without the clock."""
    clock = ("seconds", "memory")
    lines = [
        {k: v for k, v in line.items() if k not in clock} for line in metrics.read(result.folder / "metrics.jsonl")
    ]
    previews = [path.read_bytes() for path in sorted((result.folder / "previews").iterdir())]
    return {name: tensor.tolist() for name, tensor in load_file(result.lora).items()}, lines, previews


def test_a_run_is_the_same_to_the_last_bit_whatever_the_ignored_settings_are(train, make_recipe):
    plain = make_recipe(BESIDE_ALL)
    beside = {rule.id for rule in IGNORED if not rule.holds(values_of(plain))}
    # What a LoRA alone has is of tests/engine/test_new_words.py and test_decorator.py.
    of_a_lora = {rule.setting for rule in IGNORED if {"words.alone", "decorator.alone"} & set(rule.when)}
    told_apart = {rule.id for rule in IGNORED if rule.setting in of_a_lora}
    assert beside == {"dataset.trigger@dataset.regularisation", *told_apart} and len(of_a_lora) == 5
    ignored = {rule.setting for rule in IGNORED} - {"dataset.trigger", *of_a_lora}
    changed = make_recipe({**BESIDE_ALL, **{name: ANOTHER[name] for name in ignored}})
    assert all(values_of(changed)[name] != values_of(plain)[name] for name in ignored)
    assert told(train(plain, "plain")[0]) == told(train(changed, "changed")[0])
    [part] = make_recipe({"dataset.regularisation": True, "dataset.trigger": "zorb"}).dataset.parts()
    assert part.trigger == ""


SCHEDULES = options.options_of(type(recipe.Recipe().optimizer))["schedule"].choices


def rates(config):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    schedule = LearningRate(config, optimizer, total=40)
    return [schedule.set(step) for step in range(40)]


@pytest.mark.parametrize("name", ["cycles", "power", "min_ratio", "decay_steps", "decay_shape"])
def test_a_schedule_s_setting_counts_with_just_the_schedules_that_the_rule_leaves(name, make_recipe):
    [rule] = [rule for rule in RULES if rule.setting == f"optimizer.{name}"]
    for schedule in SCHEDULES:
        plain = make_recipe({"optimizer.schedule": schedule})
        changed = make_recipe({"optimizer.schedule": schedule, rule.setting: ANOTHER[rule.setting]})
        assert (rates(plain.optimizer) == rates(changed.optimizer)) == rule.holds(values_of(plain)), schedule


@pytest.mark.parametrize("name", ["logit_mean", "logit_std", "mode_scale", "huber_delta"])
def test_a_setting_of_the_loss_counts_with_just_the_choices_that_the_rule_leaves(name, make_recipe):
    def outcome(config):
        # "auto" is another way for each kind of base.
        names, usual = [(n,) for n in range(50)], ("uniform", "logit_normal")
        drawn = [objective.draw(config, torch.zeros(50, 4, 2, 2), 1000, 0, "train", names, way) for way in usual]
        error = objective.errors(config, torch.linspace(0, 1, 8).view(1, 8, 1, 1), torch.zeros(1, 8, 1, 1))
        return [one.timesteps.tolist() for one in drawn], error.tolist()

    [rule] = [rule for rule in RULES if rule.setting == f"objective.{name}"]
    [choice] = rule.when
    for value in recipe.settings()[choice].choices:
        plain, changed = make_recipe({choice: value}), make_recipe({choice: value, rule.setting: ANOTHER[rule.setting]})
        same = outcome(plain.objective) == outcome(changed.objective)
        assert same == rule.holds(values_of(plain)), value


@pytest.mark.parametrize("rule", REFUSED, ids=lambda rule: rule.id)
def test_what_is_refused_is_refused_beside_what_the_rule_says_and_its_idle_values_are_not(rule):
    beside = {name: condition_met(name, condition) for name, condition in rule.when.items()}
    # An optimiser says itself what it does not have.
    assert any(rule.setting in problem for problem in problems({**beside, rule.setting: ANOTHER[rule.setting]}))
    for value in rule.idle:
        assert not any(rule.setting in problem for problem in problems({**beside, rule.setting: value})), value


def condition_met(name, condition):
    """A value of a setting that meets a condition."""
    described = recipe.settings()[name]
    tried = (*described.choices, described.default, *condition.values, ANOTHER.get(name), 64)
    return next(value for value in tried if value is not None and condition.holds(value))


def problems(changes):
    made = recipe.Recipe()
    for name, value in changes.items():
        part, _, key = name.partition(".")
        setattr(getattr(made, part), key, value)
    try:
        optimizers.arguments(made.optimizer)
    except BadInput as refused:
        return [*made.validate(), *refused.problems]
    return made.validate()


def test_settings_of_a_dataset_count_where_no_rule_holds(make_recipe, pictures, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "one_ring.png").write_bytes((pictures / "0.png").read_bytes())

    def outcome(changes):
        config = make_recipe(changes).dataset
        scan = scan_folder(config)
        if not scan.items:
            return scan.problems
        dataset = Dataset(scan.items, config, 0, 8, 64)
        item = dataset.items[0]
        return dataset.bucket_counts, dataset.needs_encoder, dataset.weight_of(item), dataset.fixed_caption(item)

    for name, beside in (
        ("dataset.trigger", {}),
        ("dataset.buckets", {}),
        ("dataset.missing_captions", {"dataset.path": str(bare)}),
        ("dataset.variants", {"dataset.crop": "random"}),
        ("dataset.variants", {"dataset.colour_jitter": 0.5}),
        ("dataset.prior_weight", {"dataset.regularisation": True}),
        ("dataset.missing_masks", {"dataset.mask": "alpha"}),
    ):
        [rule] = [rule for rule in RULES if rule.setting == name]
        assert not rule.holds(values_of(make_recipe(beside))), name
        assert outcome(beside) != outcome({**beside, name: ANOTHER[name]}), name


def test_every_rule_has_a_name_of_its_own_and_a_reason_and_the_page_tells_it():
    assert len({rule.id for rule in RULES}) == len(RULES)
    page = settings_page.for_page()
    for rule in RULES:
        assert rule.setting in recipe.settings() and set(rule.when) <= recipe.settings().keys()
        assert 8 < len(rule.why) < 90 and not rule.why.endswith("."), rule.id
        assert rule.why in page
