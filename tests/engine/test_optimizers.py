"""What the settings make of an optimiser: keywords, arguments, groups; and what is said when it cannot be had."""

import importlib
import math
import sys

import pytest
import torch

from trainer_core import optimizers_page, recipe
from trainer_core.engine import optimizers
from trainer_core.engine.events import Started
from trainer_core.engine.optimizer_config import OptimizerConfig
from trainer_core.engine.optimizer_kinds import FAMILIES, KINDS
from trainer_core.errors import BadInput

CPU = torch.device("cpu")


def weights():
    return [torch.nn.Parameter(torch.ones(4, 4))]


def group_of(**settings):
    return optimizers.build_optimizer(OptimizerConfig(**settings), weights()).param_groups[0]


def refusal(**settings):
    with pytest.raises(BadInput) as caught:
        optimizers.check(OptimizerConfig(**settings), CPU)
    return str(caught.value)


# ---- what is not there


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.package and not kind.device])
def test_a_missing_library_is_named_with_its_pip_line(monkeypatch, name):
    library, package = KINDS[name].module.partition(".")[0], KINDS[name].package
    for module in [one for one in sys.modules if one.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)  # what an import then says is what it says of a missing one
    said = refusal(name=name, learning_rate=1.0)
    assert said == (
        f"optimizer.name: {name!r} needs the package {package}, which is not installed; pip install {package}"
    )


def test_it_is_named_before_base_and_pictures_are_looked_for(train, monkeypatch):
    monkeypatch.setitem(sys.modules, "came_pytorch.CAME", None)
    monkeypatch.setitem(sys.modules, "came_pytorch", None)
    with pytest.raises(BadInput, match="pip install came-pytorch"):
        train({"optimizer.name": "came", "base": "not there", "dataset.path": "nor there"})


def test_a_missing_family_is_named_with_its_setting(monkeypatch):
    monkeypatch.setitem(sys.modules, "adv_optm", None)
    said = refusal(custom="adv_optm.AdamW_adv")
    assert said.startswith("optimizer.custom: 'adv_optm.AdamW_adv' needs") and said.endswith("pip install adv-optm")


def test_a_library_that_is_there_and_does_not_load_is_told_in_its_own_words(monkeypatch):
    def broken(name):
        raise RuntimeError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", broken)
    assert "bitsandbytes cannot be loaded (libcudart.so.13" in refusal(name="adamw8bit")


def test_the_paged_optimiser_needs_a_cuda_device():
    pytest.importorskip("bitsandbytes")
    assert refusal(name="paged_adamw8bit") == (
        "optimizer.name: 'paged_adamw8bit' needs a CUDA device, and this run is on the cpu; take 'adamw8bit'"
    )


def test_a_class_that_the_library_does_not_have_is_answered_with_the_nearest():
    pytest.importorskip("adv_optm")
    assert "no optimiser 'AdamWAdv'; did you mean adv_optm.AdamW_adv?" in refusal(custom="adv_optm.AdamWAdv")


def test_what_is_no_optimiser_is_not_taken_for_one():
    pytest.importorskip("pytorch_optimizer")
    assert "has no optimiser 'DiceLoss'" in refusal(custom="pytorch_optimizer.DiceLoss")


def test_a_class_that_wants_another_optimiser_is_refused_with_the_reason():
    pytest.importorskip("pytorch_optimizer")
    assert refusal(custom="pytorch_optimizer.Lookahead").endswith("made around another optimiser, not over weights")


@pytest.mark.parametrize("custom", ["os.system", "adv_optm", "adv_optm.", "torch.optim.SGD", "adv_optm.a.b"])
def test_only_classes_of_the_two_libraries_can_be_named(custom):
    (problem,) = OptimizerConfig(custom=custom).problems("optimizer")
    assert problem.startswith(f"optimizer.custom: {custom!r} is not library.Class")


# ---- settings and arguments


def test_weight_decay_betas_and_epsilon_reach_adamw():
    group = group_of(learning_rate=0.5, weight_decay=0.3, beta1=0.8, beta2=0.95, epsilon=1e-5)
    assert (group["lr"], group["weight_decay"], group["betas"], group["eps"]) == (0.5, 0.3, (0.8, 0.95), 1e-5)
    assert group["fused"]


@pytest.mark.parametrize("name", ["adamw8bit", "adamw_4bit_ao", "lion", "prodigy", "schedulefree_adamw", "came"])
def test_weight_decay_and_betas_reach_the_others_and_what_was_not_changed_is_their_own(name):
    pytest.importorskip(KINDS[name].module.partition(".")[0])
    own = group_of(name=name)["betas"]
    assert own[0] == 0.9 and own[1] == (0.99 if name == "lion" else 0.999)
    group = group_of(name=name, weight_decay=0.3, beta1=0.8)
    assert group["weight_decay"] == 0.3 and tuple(group["betas"]) == (0.8, *own[1:])
    assert tuple(group_of(name=name, beta2=0.5)["betas"]) == (own[0], 0.5, *own[2:])


def test_adafactor_learns_at_the_rate_that_is_set():
    group = group_of(name="adafactor", learning_rate=0.01)
    assert (group["lr"], group["scale_parameter"], group["relative_step"]) == (0.01, False, False)


def test_a_setting_that_an_optimiser_does_not_have_is_named_and_not_forgotten():
    assert refusal(name="adafactor", beta2=0.9) == "optimizer.beta2: adafactor has none; leave it at its default"
    assert "write eps=(…) into optimizer.arguments" in refusal(name="adafactor", epsilon=1e-6)
    assert group_of(name="adafactor", arguments="eps=(1e-20, 1e-4)")["eps"] == (1e-20, 1e-4)


def test_arguments_are_values_and_win_over_settings():
    config = OptimizerConfig(arguments="amsgrad=true, betas=(0.5, 0.75) eps=1e-4 weight_decay=0.2", beta1=0.8)
    assert config.problems("optimizer") == []
    group = optimizers.build_optimizer(config, weights()).param_groups[0]
    assert group["amsgrad"] is True and group["betas"] == (0.5, 0.75)
    assert (group["eps"], group["weight_decay"]) == (1e-4, 0.2)


def test_words_of_arguments_are_read_as_people_write_them():
    config = OptimizerConfig(arguments="a=True b=none c=inf d=factored e='two words' f=[1, 2]")
    assert config.keywords() == {"a": True, "b": None, "c": math.inf, "d": "factored", "e": "two words", "f": [1, 2]}


@pytest.mark.parametrize("text", ["d_coef", "2 d_coef=1", "a=__import__('os')", "a=1+", "a=1 a=2", "a={'b': 1}", "a="])
def test_arguments_that_are_no_values_are_refused(text):
    (problem,) = OptimizerConfig(arguments=text).problems("optimizer")
    assert problem.startswith("optimizer.arguments: ") and "expected such as d_coef=2" in problem


def test_the_learning_rate_is_no_argument():
    assert OptimizerConfig(arguments="lr=1").problems("optimizer") == [
        "optimizer.arguments: lr is set by optimizer.learning_rate"
    ]


def test_an_argument_that_the_optimiser_does_not_take_is_answered_with_those_that_it_takes():
    pytest.importorskip("prodigyopt")
    said = refusal(name="prodigy", learning_rate=1.0, arguments="dcoef=2")
    assert said.startswith("optimizer.arguments: prodigy has no 'dcoef'; did you mean 'd_coef'? It takes betas, beta3,")
    assert "lr" not in said.partition("It takes")[2].split(", ")


def test_a_value_that_the_library_refuses_is_told_in_its_words():
    pytest.importorskip("prodigyopt")
    said = refusal(name="prodigy", learning_rate=1.0, arguments="d0=-1")
    assert "prodigy cannot be used with these settings: Invalid d0 value: -1" in said


def test_an_argument_that_must_be_given_is_asked_for():
    pytest.importorskip("pytorch_optimizer")
    assert "needs num_iterations: write num_iterations=… there" in refusal(custom="pytorch_optimizer.Ranger21")


@pytest.mark.parametrize("given", [{"name": "prodigy"}, {"custom": "adv_optm.Prodigy_adv"}])
def test_an_optimiser_that_finds_its_rate_refuses_one_that_would_learn_nothing(given):
    (problem,) = OptimizerConfig(**given).problems("optimizer")
    assert problem.startswith("optimizer.learning_rate: 0.0001, but") and "set it to 1" in problem
    assert OptimizerConfig(**given, learning_rate=1.0).problems("optimizer") == []
    for more in ({"lora_plus_ratio": 16.0}, {"part_rates": ["to_q=0.5"]}):
        (problem,) = OptimizerConfig(**given, learning_rate=1.0, **more).problems("optimizer")
        assert problem.startswith(f"optimizer.{next(iter(more))}: ") and "one learning rate for all" in problem


def test_every_setting_can_be_written_on_the_command_line():
    changed = recipe.Recipe()
    for name, text in (
        ("custom", "adv_optm.AdamW_adv"),
        ("arguments", "a=1 betas=(0.9, 0.99)"),
        ("lora_plus_ratio", "16"),
        ("part_rates", "to_q=1e-4, ff=5e-5"),
    ):
        changed = recipe.with_setting(changed, f"optimizer.{name}", text)
    config = changed.optimizer
    assert config.chosen == "adv_optm.AdamW_adv" and config.keywords() == {"a": 1, "betas": (0.9, 0.99)}
    assert config.rates() == [("to_q", 1e-4), ("ff", 5e-5)] and config.lora_plus_ratio == 16


def test_the_page_of_optimisers_is_the_one_that_the_code_would_write():
    assert optimizers_page.PAGE.read_text(encoding="utf-8") == optimizers_page.for_page()


def test_the_extra_of_the_package_brings_every_library():
    import tomllib
    from pathlib import Path

    text = (Path(__file__).parent.parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    brought = {
        line.partition(">=")[0] for line in tomllib.loads(text)["project"]["optional-dependencies"]["optimizers"]
    }
    assert brought == {kind.package for kind in KINDS.values() if kind.package} | set(FAMILIES.values())


# ---- groups


def rates_by_name(trainer):
    rate = {p: group["lr"] for group in trainer.optimizer.optimizer.param_groups for p in group["params"]}
    return {name: rate[parameter] for name, parameter in trainer.parameters.items()}


def test_one_rate_is_one_group_in_the_models_order(make_trainer):
    trainer = make_trainer()
    (group,) = trainer.optimizer.optimizer.param_groups
    assert group["params"] == list(trainer.parameters.values())


def test_lora_plus_lets_b_learn_at_so_many_times_the_rate_of_a(make_trainer):
    rates = rates_by_name(make_trainer({"optimizer.lora_plus_ratio": 16.0}))
    assert {rate for name, rate in rates.items() if ".lora_A." in name} == {1e-3}
    assert {rate for name, rate in rates.items() if ".lora_B." in name} == {16e-3}


def test_a_ratio_of_one_is_none(make_trainer):
    assert len(make_trainer({"optimizer.lora_plus_ratio": 1.0}).optimizer.optimizer.param_groups) == 1


def test_lora_plus_moves_b_so_many_times_as_far(make_trainer):
    """AdamW's first step is the learning rate long in every number, whatever the gradient."""
    moved = {}
    for ratio in (0.0, 4.0):
        settings = {"optimizer.lora_plus_ratio": ratio, "optimizer.weight_decay": 0.0, "run.steps": 1}
        trainer = make_trainer(settings)
        before = {name: parameter.detach().clone() for name, parameter in trainer.parameters.items()}
        trainer.go()
        moved[ratio] = {name: (p.detach() - before[name]).abs().median() for name, p in trainer.parameters.items()}
    for name, far in moved[4.0].items():
        times = 4 if ".lora_B." in name else 1
        assert float(far / moved[0.0][name]) == pytest.approx(times, rel=1e-2), name


def test_parts_learn_at_rates_of_their_own_and_the_last_that_fits_counts(make_trainer):
    parts = ["attn1=5e-4", "to_k=2e-4", r"re:down_blocks\.0\..*to_k=1e-5"]
    rates = rates_by_name(make_trainer({"optimizer.part_rates": parts}))
    for name, rate in rates.items():
        expected = 5e-4 if ".attn1." in name else 1e-3
        if ".to_k." in name:
            expected = 1e-5 if name.startswith("down_blocks.0.") else 2e-4
        assert rate == expected, name
    assert set(rates.values()) == {5e-4, 2e-4, 1e-5, 1e-3}


def test_a_preset_is_a_part_and_lora_plus_multiplies_its_rate(make_trainer):
    rates = rates_by_name(make_trainer({"optimizer.part_rates": ["attention=1e-4"], "optimizer.lora_plus_ratio": 2.0}))
    assert {rate for name, rate in rates.items() if ".lora_A." in name} == {1e-4}
    assert {rate for name, rate in rates.items() if ".lora_B." in name} == {2e-4}


def test_a_part_that_is_not_trained_is_named_before_anything_is_encoded(train, tmp_path):
    with pytest.raises(BadInput, match="optimizer.part_rates: 'conv_in' matches no module that trains.*attn"):
        train({"optimizer.part_rates": ["conv_in=1e-4"]})
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("entry", ["to_q", "to_q=", "=1e-4", "to_q=fast", "to_q=0", "to_q=2", "to_q=nan", "re:(=1e-4"])
def test_rates_of_parts_that_make_no_sense_are_refused(entry):
    (problem,) = OptimizerConfig(part_rates=[entry]).problems("optimizer")
    assert problem.startswith("optimizer.part_rates: ")


def test_a_run_of_several_groups_goes_on_as_if_it_had_not_stopped(train, same):
    settings = {
        "run.steps": 6,
        "optimizer.lora_plus_ratio": 8.0,
        "optimizer.part_rates": ["to_k=2e-4", "to_v=3e-4"],
        "optimizer.schedule": "cosine_with_min",
    }
    whole, _ = train(settings, folder="whole")
    train(settings, folder="stopped", stop_after=3)
    again, heard = train(settings, folder="stopped")
    assert heard.of(Started)[0].step == 3
    assert same(whole, again)


def test_the_files_own_learning_rate_stays_the_base_one(train):
    from safetensors import safe_open

    result, _ = train({"optimizer.lora_plus_ratio": 8.0, "optimizer.part_rates": ["to_k=2e-4"]})
    with safe_open(result.lora, "pt") as file:
        assert float(file.metadata()["ss_learning_rate"]) == 1e-3


def test_the_file_says_which_class_optimised(train):
    pytest.importorskip("adv_optm")
    from safetensors import safe_open

    result, _ = train({"optimizer.custom": "adv_optm.AdamW_adv"})
    with safe_open(result.lora, "pt") as file:
        assert "adv_optm.AdamW_adv" in file.metadata()["ss_optimizer"]


@pytest.mark.parametrize(
    "name, rate, lower", [("adamw", 3e-4, 1e-4), ("adamw", 1.0, 1e-4), ("prodigy", 1.0, 1 / 3), ("prodigy", 0.2, 0.1)]
)
def test_the_rate_to_try_after_a_divergence_is_a_third_or_what_is_usual(name, rate, lower):
    config = OptimizerConfig(name=name, learning_rate=rate)
    assert config.lower_rate == pytest.approx(lower)
    assert OptimizerConfig(name=name, learning_rate=config.lower_rate).problems("optimizer") == []
