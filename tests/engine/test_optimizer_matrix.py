"""Every optimiser: it learns, goes on after a stop as if there had been none, and skips what is not finite."""

import contextlib
import importlib
import importlib.util
import json

import pytest
import torch

from trainer_core.engine import checkpoints, optimizer_habits, optimizer_state, optimizers, parameter_groups
from trainer_core.engine.optimizer_config import OptimizerConfig
from trainer_core.engine.optimizer_kinds import FAMILIES, KINDS
from trainer_core.engine.optimizer_limits import NOT_EXACT, REFUSED
from trainer_core.errors import BadInput

CPU = torch.device("cpu")
ON_CPU = [name for name in KINDS if not KINDS[name].device]
BY_NAME = ["adv_optm.AdamW_adv", "adv_optm.Prodigy_adv", "pytorch_optimizer.ScheduleFreeAdamW"]
NEEDS = {
    "pytorch_optimizer.Kron": "balance_prob=0.5",  # a dice that it throws with numpy, and seldom by default
    "pytorch_optimizer.Ranger21": "num_iterations=60",
    # Their own defaults scale a step by the weights, and half of a LoRA's are zero at first.
    "pytorch_optimizer.AdaFactor": "scale_parameter=false relative_step=false",
}


def installed(name):
    """Skips where the optimiser's library is missing."""
    library = (name if "." in name else KINDS[name].module).partition(".")[0]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"the library {library} is not installed")


def settings_for(name):
    rate = 1.0 if OptimizerConfig(**named(name)).kind.finds_rate else 1e-3
    return {"optimizer.learning_rate": rate, **{f"optimizer.{key}": value for key, value in named(name).items()}}


def named(name):
    return {"custom": name} if "." in name else {"name": name}


def classes():
    """`library.Class` of every optimiser of the installed families."""
    found = []
    for library in FAMILIES:
        if importlib.util.find_spec(library) is not None:
            members = vars(importlib.import_module(library)).items()
            found += [
                f"{library}.{name}"
                for name, one in sorted(members)
                if isinstance(one, type) and issubclass(one, torch.optim.Optimizer)
            ]
    return found


class Pair:
    """A LoRA pair that learns a fixed matrix of its own rank."""

    def __init__(self, config, rank=4, inputs=16, outputs=8):
        numbers = torch.Generator().manual_seed(0)

        def draw(*shape):
            return torch.randn(*shape, generator=numbers) / 2

        a, b = draw(rank, inputs), torch.zeros(outputs, rank)
        self.target = draw(outputs, rank) @ draw(rank, inputs)
        self.parameters = {"m.lora_A.w": torch.nn.Parameter(a), "m.lora_B.w": torch.nn.Parameter(b)}
        self.kind = config.kind
        self.optimizer = optimizers.build_optimizer(config, parameter_groups.groups(config, self.parameters, {}))
        if optimizer_habits.averages(self.optimizer):
            self.optimizer.train()

    def step(self, number):
        a, b = self.parameters.values()
        loss = (b @ a - self.target).square().mean()
        loss.backward()
        with optimizer_habits.stepping(self.kind, CPU, number):
            self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def run(self, steps):
        return [self.step(number) for number in steps]

    def pack(self):
        """As it comes back from a checkpoint's files."""
        packed, tensors = optimizer_state.pack(self.optimizer, self.parameters)
        weights = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        plain = json.loads(json.dumps(packed, allow_nan=False))
        return weights, plain, {name: tensor.clone() for name, tensor in tensors.items()}

    def unpack(self, weights, packed, tensors):
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])
        optimizer_state.unpack(self.optimizer, self.parameters, packed, tensors)

    def same(self, other):
        mine, theirs = self.parameters.values(), other.parameters.values()
        return all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def goes_on_exactly(config, **shape):
    whole, first, second = (Pair(config, **shape) for _ in range(3))
    whole.run(range(9))
    first.run(range(4))
    second.unpack(*first.pack())
    second.run(range(4, 9))
    return whole.same(second)


def lefts(config):
    """For rising learning rates: the share of the loss that sixty steps leave."""
    for rate in (0.01, 0.1, 1.0):
        losses = Pair(config(rate)).run(range(60))
        yield losses[-1] / losses[0]


# ---- those with a name


@pytest.mark.parametrize("name", [*ON_CPU, *BY_NAME])
def test_a_fixed_loss_falls_to_a_tenth(name):
    installed(name)
    rate = 1.0 if OptimizerConfig(**named(name)).kind.finds_rate else 0.02
    losses = Pair(OptimizerConfig(learning_rate=rate, **named(name))).run(range(150))
    assert losses[-1] < losses[0] / 10, f"from {losses[0]:.4f} to {losses[-1]:.4f}"


@pytest.mark.parametrize("name", [*ON_CPU, *BY_NAME])
def test_a_run_gone_on_with_from_its_files_equals_one_that_never_stopped(make_trainer, tmp_path, name):
    installed(name)
    settings = {**settings_for(name), "run.steps": 4, "run.batch_size": 1, "optimizer.schedule": "cosine"}
    whole = make_trainer(settings)
    kept = []

    def keep():
        if whole.step == 2 and not kept:
            kept.append(checkpoints.save(tmp_path, whole.checkpoint(), 3))
        return False

    whole.go(keep)
    assert {path.suffix for path in kept[0].rglob("*")} == {".safetensors", ".json"}
    other = make_trainer(settings)
    other.restore(checkpoints.read(kept[0]))
    other.go()
    assert other.step == 4 and other.losses == whole.losses[2:]
    for (key, mine), theirs in zip(other.parameters.items(), whole.parameters.values(), strict=True):
        assert torch.equal(mine, theirs), key
    assert any(not torch.equal(mine, theirs) for mine, theirs in zip(
        checkpoints.read(kept[0]).parameters.values(), other.parameters.values(), strict=True
    ))  # fmt: skip
    mine, theirs = (optimizer_state.pack(one.optimizer.optimizer, one.parameters) for one in (other, whole))
    assert mine[0] == theirs[0] and mine[1].keys() == theirs[1].keys()
    assert all(torch.equal(mine[1][key], theirs[1][key]) for key in mine[1])


@pytest.mark.parametrize("name", ["adamw8bit", "adamw_8bit_ao", "adamw_4bit_ao", "adamw_fp8_ao"])
def test_state_in_few_bits_stays_so_in_the_files_and_after_them(name):
    installed(name)
    config, shape = OptimizerConfig(name=name, learning_rate=0.01), {"rank": 16, "inputs": 512, "outputs": 256}
    pair = Pair(config, **shape)
    pair.run(range(2))
    weights, packed, tensors = pair.pack()
    small = sum(tensor.numel() for tensor in tensors.values() if tensor.element_size() == 1)
    numbers = 2 * sum(weight.numel() for weight in weights.values())
    assert small >= numbers // 2 if name == "adamw_4bit_ao" else small >= numbers
    other = Pair(config, **shape)
    other.unpack(weights, packed, tensors)
    assert {key: tensor.dtype for key, tensor in other.pack()[2].items()} == {k: t.dtype for k, t in tensors.items()}
    assert goes_on_exactly(config, **shape)


@pytest.mark.parametrize("name", [*ON_CPU, "pytorch_optimizer.ScheduleFreeAdamW"])
def test_a_step_whose_gradients_are_not_finite_changes_neither_weights_nor_state(make_trainer, name):
    installed(name)
    trainer = make_trainer({**settings_for(name), "run.steps": 3, "run.batch_size": 1})
    calls, seen = [], {}

    def poison(module, inputs, output):
        calls.append(1)
        return (output[0] * float("nan"),) if len(calls) == 2 else None

    def look():
        packed, tensors = optimizer_state.pack(trainer.optimizer.optimizer, trainer.parameters)
        weights = {key: parameter.detach().clone() for key, parameter in trainer.parameters.items()}
        seen[trainer.step] = weights, packed["values"], {key: tensor.clone() for key, tensor in tensors.items()}
        return False

    trainer.model.denoiser.register_forward_hook(poison)
    trainer.go(look)
    assert trainer.step == 3 and trainer.skipped == 1
    for before, after in ((seen[1][0], seen[2][0]), (seen[1][2], seen[2][2])):
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert seen[1][1] == seen[2][1]
    assert any(not torch.equal(seen[2][0][key], seen[3][0][key]) for key in seen[3][0])


# ---- averages


@pytest.mark.parametrize("name", ["schedulefree_adamw", "pytorch_optimizer.ScheduleFreeSGD", "pytorch_optimizer.SPlus"])
def test_a_look_between_two_steps_changes_no_bit_of_what_follows(make_trainer, name):
    installed(name)
    settings = {**settings_for(name), "run.steps": 4, "dataset.holdout": 1}
    plain, watched, looks = make_trainer(settings), make_trainer(settings), []

    def look():
        trained = next(iter(watched.parameters.values()))
        before = trained.detach().clone()
        with watched.to_use():
            looks.append(not torch.equal(trained, before))
        watched.validate()
        return False

    plain.go()
    watched.go(look)
    assert watched.losses == plain.losses
    for mine, theirs in zip(watched.parameters.values(), plain.parameters.values(), strict=True):
        assert torch.equal(mine, theirs)
    assert looks[-1]  # what is looked at are other weights than those that train


def test_the_lora_file_holds_the_averaged_weights(train, tensors):
    installed("schedulefree_adamw")
    settings = {**settings_for("schedulefree_adamw"), "run.steps": 4}
    result, _ = train(settings)
    held = checkpoints.read(checkpoints.path_of(result.folder / "checkpoints", 4))
    beta = 0.9  # x, the average, from y, which trains, and z: y = beta x + (1 - beta) z (Defazio et al. 2024)
    name = next(name for name in held.parameters if ".lora_B." in name)
    y, z = held.parameters[name], held.optimizer_tensors[f"z|{name}"]
    x = (y - (1 - beta) * z) / beta
    (found,) = [t for key, t in tensors(result).items() if key.endswith("lora_up.weight")
                and key.startswith("lora_unet_" + name.partition(".lora_")[0].replace(".", "_") + ".")]  # fmt: skip
    torch.testing.assert_close(found, x, rtol=1e-5, atol=1e-8)
    assert not torch.allclose(found, y, rtol=1e-3, atol=0)


# ---- the families


@pytest.mark.parametrize("name", [name for name in classes() if name not in REFUSED])
def test_a_class_of_the_families_learns_and_goes_on_exactly(name):
    def config(rate):
        return OptimizerConfig(custom=name, learning_rate=rate, arguments=NEEDS.get(name, ""))

    optimizers.check(config(1.0), CPU)
    assert goes_on_exactly(config(1.0 if config(1.0).kind.finds_rate else 0.01))
    assert any(left < 0.997 for left in lefts(config))


@pytest.mark.parametrize("name", sorted(name for name in REFUSED if "convolutions" not in REFUSED[name]))
def test_what_is_refused_would_not_work(name, monkeypatch):
    if name not in classes():
        pytest.skip("is not in the installed version")
    monkeypatch.delitem(REFUSED, name)
    with contextlib.suppress(BadInput, RuntimeError):
        optimizers.check(OptimizerConfig(custom=name, learning_rate=0.01), CPU)
        assert not any(left < 0.997 for left in lefts(lambda rate: OptimizerConfig(custom=name, learning_rate=rate)))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("AdamW_adv", "state_precision=factored"),
        ("Adopt_adv", "state_precision=bf16_sr"),
        ("Lion_adv", "stochastic_sign=true"),
        ("Lion_adv", "nnmf_factor=true centered_wd=0.1 centered_wd_mode=int8"),
        ("Muon_adv", "spectral_normalization=true"),
    ],
)
def test_small_states_and_random_signs_of_adv_optm_go_on_exactly(name, arguments):
    installed("adv_optm.")
    assert goes_on_exactly(OptimizerConfig(custom=f"adv_optm.{name}", learning_rate=0.01, arguments=arguments))


def test_what_is_said_not_to_go_on_exactly_does_not():
    installed("adv_optm.")
    assert list(NOT_EXACT) == ["adv_optm.*"]
    given = {"custom": "adv_optm.AdamW_adv", "learning_rate": 0.01}
    assert not goes_on_exactly(OptimizerConfig(**given, arguments=f"{NOT_EXACT['adv_optm.*'][0]}=true"))
