"""LoRA's relatives in a model: each begins at nothing, changes weights as it says, goes out into a file and comes back."""

import pytest
import torch

from trainer_core.adapters import lora
from trainer_core.adapters.lora_config import SHAPED_BY, LoRAConfig
from trainer_core.families import registry
from trainer_core.lora_file.dialects import read_lora
from trainer_core.lora_file.lora import Target, module_shapes
from trainer_core.lora_file.save import save_lora

RELATIVES = [kind for kind in SHAPED_BY if kind != "lora"]
FORMS = {
    "dora": [{}, {"alpha": 3.0, "rslora": True}],
    "loha": [{}, {"alpha": 1.0}],
    # Rank 4 makes pairs of the second factors, 64 leaves all factors whole, a factor changes their sizes.
    "lokr": [{}, {"rank": 64, "alpha": 16.0}, {"alpha": 2.0, "factor": 2}],
    "oft": [{}, {"rank": 16}],
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
    return unet(noisy.to(unet.dtype), torch.tensor([500]), words.to(unet.dtype)).sample


@torch.no_grad()
def merged(base, weights, strength=1.0):
    """What the UNet answers with everything added to its weights."""
    unet = registry.load(str(base)).denoiser
    for path, held in weights.items():
        weight = unet.get_submodule(path).weight
        weight += strength * held.delta(weight)
    return output(unet)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", RELATIVES)
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
def test_it_comes_back_from_its_file_and_changes_the_weights_as_the_file_says(base, tmp_path, kind, form):
    model = registry.load(str(base))
    plain, target = output(model.denoiser), Target.of(unet=model.denoiser)
    config = injected(model, kind=kind, **form)
    moved(model)
    trained = output(model.denoiser)
    assert (trained - plain).abs().max() > 5e-3
    save_lora(tmp_path / "a", {"unet": lora.extract(model.denoiser)}, "kohya", "float32", {}, target)
    read = read_lora(tmp_path / "a", target)[0]["unet"]
    lora.check_start(read, target.modules["unet"], config)
    torch.testing.assert_close(merged(base, read), trained, rtol=1e-4, atol=2e-5)

    again = registry.load(str(base))
    injected(again, seed=5, kind=kind, **form)
    lora.fill(again.denoiser, read)
    torch.testing.assert_close(output(again.denoiser), trained, rtol=1e-4, atol=2e-5)

    for strength in (1.0, 0.5, -0.25):
        finished = registry.load(str(base))
        lora.apply(finished.denoiser, read, strength)
        torch.testing.assert_close(output(finished.denoiser), merged(base, read, strength), rtol=1e-4, atol=2e-5)
        assert not any(parameter.requires_grad for parameter in finished.denoiser.parameters())
