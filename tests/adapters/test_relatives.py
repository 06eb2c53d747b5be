"""LoRA's relatives in a model: each begins at nothing, changes weights as it says, and comes back from its file."""

import pytest
import torch

from trainer_core.adapters import lora
from trainer_core.adapters.lora_config import SHAPED_BY, LoRAConfig
from trainer_core.errors import BadInput
from trainer_core.families import registry
from trainer_core.lora_file.dialects import read_lora
from trainer_core.lora_file.lora import Target, module_shapes
from trainer_core.lora_file.save import save_lora

RELATIVES = [kind for kind in SHAPED_BY if kind != "lora"]
FORMS = {
    "dora": [{"alpha": 3.0, "rslora": True}],
    "loha": [{"alpha": 1.0}],
    # Rank 64 leaves both factors whole; rank 4 makes pairs of the second ones, whose sizes the factor changes.
    "lokr": [{"rank": 64, "alpha": 16.0}, {"alpha": 2.0, "factor": 2}],
    "oft": [{}],
}
EVERY_FORM = [pytest.param(kind, form, id=f"{kind} {form}") for kind, forms in FORMS.items() for form in forms]


def injected(model, seed=0, **settings):
    config = LoRAConfig(**{"rank": 4, "targets": ["all"], **settings})
    paths = lora.targeted_modules(model.denoiser, config, model.family.targets)
    lora.inject(model.denoiser, config, paths, seed)
    return config


@torch.no_grad()
def moved(model, by=0.02, seed=9):
    """As if trained: every number of the adapter a little off where it began."""
    numbers = torch.Generator().manual_seed(seed)
    for parameter in lora.parameters(model.denoiser).values():
        parameter += by * torch.randn(parameter.shape, generator=numbers)


@torch.no_grad()
def output(unet):
    numbers = torch.Generator().manual_seed(3)
    noisy, words = torch.randn(1, 4, 8, 8, generator=numbers), torch.randn(1, 5, 32, generator=numbers)
    with torch.autocast("cpu", torch.bfloat16, enabled=unet.dtype == torch.bfloat16):  # as in training
        return unet(noisy.to(unet.dtype), torch.tensor([500]), words.to(unet.dtype)).sample


@torch.no_grad()
def merged(unet, weights, strength=1.0):
    """What the UNet answers with everything added to its weights, which are put back."""
    before = {path: unet.get_submodule(path).weight.clone() for path in weights}
    for path, held in weights.items():
        unet.get_submodule(path).weight += strength * held.delta(before[path])
    found = output(unet)
    for path, weight in before.items():
        unet.get_submodule(path).weight.copy_(weight)
    return found


@pytest.mark.parametrize(
    ("kind", "dtype"), [*((kind, torch.float32) for kind in RELATIVES), ("dora", torch.bfloat16)], ids=str
)
def test_fresh_it_changes_nothing_is_fp32_alone_in_training_and_leaves_no_trace(base, snapshot, kind, dtype):
    model = registry.load(str(base), dtype)
    before, plain = snapshot(model.denoiser), output(model.denoiser)
    injected(model, kind=kind)
    assert torch.equal(output(model.denoiser), plain)
    found = lora.parameters(model.denoiser)
    assert set(lora.layers(model.denoiser)) == set(module_shapes(model.denoiser))
    assert {parameter.dtype for parameter in found.values()} == {torch.float32}
    assert {name for name, p in model.denoiser.named_parameters() if p.requires_grad} == set(found)
    moved(model)
    assert (output(model.denoiser) - plain).abs().max() > 1e-3
    with lora.switched_off(model.denoiser):
        assert torch.equal(output(model.denoiser), plain)
    lora.remove(model.denoiser)
    assert snapshot(model.denoiser) == before


@pytest.mark.parametrize("kind", ["dora", "loha", "lokr"])
def test_what_it_begins_with_depends_on_the_seed_alone(base, kind):
    def start(seed):
        model = registry.load(str(base))
        state = torch.get_rng_state()
        injected(model, seed, kind=kind, targets=["to_q"])
        assert torch.equal(torch.get_rng_state(), state)
        return torch.cat([p.flatten() for p in lora.parameters(model.denoiser).values()])

    first = start(1)
    torch.rand(5)
    assert torch.equal(first, start(1))
    assert not torch.equal(first, start(2))


@pytest.mark.parametrize(("kind", "form"), EVERY_FORM)
def test_it_comes_back_from_its_file_and_changes_the_weights_as_the_file_says(model, tmp_path, kind, form):
    plain, target = output(model.denoiser), Target.of(unet=model.denoiser)
    config = injected(model, kind=kind, **form)
    moved(model)
    trained = output(model.denoiser)
    assert (trained - plain).abs().max() > 5e-3
    save_lora(tmp_path / "a", {"unet": lora.extract(model.denoiser)}, "kohya", "float32", {}, target)
    read = read_lora(tmp_path / "a", target)[0]["unet"]
    lora.check_start(read, target.modules["unet"], config)
    lora.remove(model.denoiser)
    torch.testing.assert_close(merged(model.denoiser, read), trained, rtol=1e-4, atol=2e-5)

    injected(model, seed=5, kind=kind, **form)
    lora.fill(model.denoiser, read)
    torch.testing.assert_close(output(model.denoiser), trained, rtol=1e-4, atol=2e-5)
    lora.remove(model.denoiser)

    for strength in (1.0, 0.5):
        expected = merged(model.denoiser, read, strength)
        lora.apply(model.denoiser, read, strength)
        torch.testing.assert_close(output(model.denoiser), expected, rtol=1e-4, atol=2e-5)
        assert not any(parameter.requires_grad for parameter in model.denoiser.parameters())
        lora.remove(model.denoiser)


def losses(model, steps):
    """Of a fixed batch whose answer is to be learnt."""
    numbers = torch.Generator().manual_seed(8)
    noisy, wanted = torch.randn(2, 4, 8, 8, generator=numbers), torch.randn(2, 4, 8, 8, generator=numbers)
    words, times = torch.randn(2, 5, 32, generator=numbers), torch.tensor([30, 800])
    optimizer, found = torch.optim.AdamW(lora.parameters(model.denoiser).values(), lr=0.02), []
    model.denoiser.train()
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=model.denoiser.dtype == torch.bfloat16):
            answer = model.denoiser(noisy.to(model.denoiser.dtype), times, words.to(model.denoiser.dtype)).sample
        loss = (answer.float() - wanted).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("kind", RELATIVES)
def test_it_learns_the_same_with_checkpointed_gradients_and_much_the_same_in_bf16(base, kind):
    found = {}
    for dtype, steps in ((torch.float32, 4), (torch.bfloat16, 2)):
        model = registry.load(str(base), dtype)
        injected(model, kind=kind)
        found[dtype] = losses(model, steps)
    plain, rounded = found.values()
    assert plain[-1] < 0.9 * plain[0]
    assert rounded == pytest.approx(plain[:2], rel=0.05)
    model = registry.load(str(base))
    injected(model, kind=kind)
    model.denoiser.enable_gradient_checkpointing()
    assert losses(model, 2) == pytest.approx(plain[:2], rel=1e-5)


def test_a_file_for_other_settings_is_refused_with_the_settings_to_change(model):
    shapes = {"conv_in": (32, 4, 3, 3)}

    def file_of(**settings):
        injected(model, targets=["conv_in"], **settings)
        weights = lora.extract(model.denoiser)
        lora.remove(model.denoiser)
        return weights

    def refused(weights, **settings):
        with pytest.raises(BadInput) as caught:
            lora.check_start(weights, shapes, LoRAConfig(**{"rank": 4, "start_from": "a.safetensors", **settings}))
        return str(caught.value)

    loha, lokr, oft = file_of(kind="loha"), file_of(kind="lokr", rank=2), file_of(kind="oft", rank=8)
    said = refused(loha, kind="lokr")
    assert said == (
        "adapter.start_from: a.safetensors holds LoHa, but adapter.kind is lokr; set it to loha, or start from another "
        "file"
    )
    assert "conv_in has rank 4 instead of 2. Set adapter.rank, adapter.alpha and adapter.targets" in refused(
        loha, kind="loha", rank=2
    )
    assert "conv_in has alpha 4 instead of 1." in refused(loha, kind="loha", alpha=1.0)
    assert "adapter.factor" in refused(lokr, kind="lokr", rank=2, factor=4)
    assert "conv_in has blocks of the side 8 instead of 4. Set adapter.rank and adapter.targets" in refused(
        oft, kind="oft"
    )
    lora.check_start(lokr, shapes, LoRAConfig(kind="lokr", rank=2))


def test_what_a_kind_cannot_train_is_refused_and_nothing_is_left(base, snapshot):
    model = registry.load(str(base))
    with torch.no_grad():
        model.denoiser.conv_out.weight[1] = 0
    before = snapshot(model.denoiser)
    with pytest.raises(BadInput, match="dora cannot train conv_out.*adapter.exclude"):
        injected(model, kind="dora")
    assert snapshot(model.denoiser) == before
    odd = torch.nn.ModuleDict({"odd": torch.nn.Linear(4, 7)})
    with pytest.raises(BadInput, match="adapter.rank: 3, but no block of 2 to 3 divides the 7 outputs of odd"):
        lora.inject(odd, LoRAConfig(kind="oft", rank=3), ["odd"], seed=0)
    assert type(odd["odd"]) is torch.nn.Linear
