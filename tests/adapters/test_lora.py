"""A LoRA in a model: which modules it takes, what it adds, and that it leaves no trace."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from trainer_core.adapters import lora
from trainer_core.adapters.kind import NAME
from trainer_core.adapters.lora_config import LoRAConfig
from trainer_core.engine.events import Steps
from trainer_core.errors import BadInput
from trainer_core.families import registry
from trainer_core.lora_file.dialects import read_lora
from trainer_core.lora_file.lora import LoraPair, Target, module_shapes
from trainer_core.sampler import load_for_sampling


def targets(model, *wanted, exclude=()):
    config = LoRAConfig(targets=list(wanted), exclude=list(exclude))
    return lora.targeted_modules(model.denoiser, config, model.family.targets)


def test_a_rank_is_held_against_the_narrower_side_of_each_weight_as_a_matrix():
    model = torch.nn.ModuleDict({"flat": torch.nn.Linear(5, 30), "deep": torch.nn.Conv2d(2, 20, 3)})
    assert lora.check_rank(model, LoRAConfig(rank=5), ["flat", "deep"]) == ""
    assert lora.check_rank(model, LoRAConfig(rank=19, kind="loha"), ["flat", "deep"]) == ""
    said = lora.check_rank(model, LoRAConfig(rank=18), ["flat", "deep"])
    assert "1 of 2 targeted modules (such as flat, of 5)" in said
    with pytest.raises(BadInput, match="adapter.rank: 19 is above .*; the widest, deep, has 18 .* Set at most 18"):
        lora.check_rank(model, LoRAConfig(rank=19), ["flat", "deep"])


def injected(model, seed=0, **settings):
    config = LoRAConfig(**{"rank": 4, **settings})
    lora.inject(model.denoiser, config, targets(model, *config.targets), seed)
    return config


@torch.no_grad()
def fill(model, scale=0.1, seed=9):
    numbers = torch.Generator().manual_seed(seed)
    for name, parameter in lora.parameters(model.denoiser).items():
        if ".lora_B." in name:
            parameter.copy_(scale * torch.randn(parameter.shape, generator=numbers))


@torch.no_grad()
def output(unet):
    numbers = torch.Generator().manual_seed(3)
    noisy, words = torch.randn(1, 4, 8, 8, generator=numbers), torch.randn(1, 5, 32, generator=numbers)
    dtype = unet.dtype
    return unet(noisy.to(dtype), torch.tensor([500]), words.to(dtype)).sample


# ---- targets


def test_the_attention_preset_is_the_four_projections_of_every_attention(model):
    found = targets(model, "attention")
    # Two levels with one block each (two on the way up) and the middle: 2 + 1 + 4 transformers, two attentions in each.
    assert len(found) == (2 + 1 + 4) * 2 * 4
    assert {path.split(".attn")[1][2:] for path in found} == {"to_q", "to_k", "to_v", "to_out.0"}
    assert len(set(found)) == len(found)


def test_attention_ff_adds_the_feed_forward_layers_and_all_takes_every_linear_and_convolution(model):
    more = set(targets(model, "attention+ff")) - set(targets(model, "attention"))
    assert {path.split(".ff.")[1] for path in more} == {"net.0.proj", "net.2"}
    assert len(more) == 7 * 2
    modules = [
        path
        for path, module in model.denoiser.named_modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))
    ]
    assert targets(model, "all") == modules


def test_names_mean_modules_and_what_lies_in_them_and_entries_add_up(model):
    assert {path.split(".")[-1] for path in targets(model, "to_q")} == {"to_q"}
    assert all(path.endswith("to_out.0") for path in targets(model, "to_out"))
    assert all(path.startswith("mid_block.") for path in targets(model, "mid_block"))
    assert not any("o_q" in path.split(".") for path in targets(model, "to_q"))
    both = targets(model, "to_q", "to_k")
    assert len(both) == 28
    assert both == [path for path in targets(model, "all") if path in both]  # the model's order


def test_patterns_match_whole_paths_and_exclusions_take_away(model):
    assert targets(model, r"re:mid_block\..*attn1\.to_q") == ["mid_block.attentions.0.transformer_blocks.0.attn1.to_q"]
    with pytest.raises(BadInput, match="matches no module"):
        targets(model, "re:attn1")
    kept = targets(model, "attention", exclude=["re:.*attn2.*", "up_blocks"])
    assert len(kept) == 3 * 4 and all(".attn1." in path for path in kept)


def test_what_matches_nothing_is_refused_with_presets_and_names_that_do(model):
    with pytest.raises(BadInput) as caught:
        targets(model, "attention", "to_qkv")
    said = str(caught.value)
    assert "adapter.targets: 'to_qkv' matches no module" in said
    assert "attention, attention+ff, all" in said
    with pytest.raises(BadInput, match="adapter.exclude: leaves no module to train"):
        targets(model, "to_q", exclude=["attention"])


def test_wrong_patterns_and_empty_targets_are_problems_of_the_settings():
    assert "no regular expression" in LoRAConfig(targets=["re:("]).problems("adapter")[0]
    assert LoRAConfig(targets=[]).problems("adapter")[0].startswith("adapter.targets: is empty")
    assert not LoRAConfig(targets=["to_(q"]).problems("adapter")  # a name, in which a bracket is a bracket


# ---- in and out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_put_in_and_taken_out_a_lora_leaves_no_trace(base, snapshot, dtype):
    model = registry.load(str(base), dtype)
    before = snapshot(model.denoiser)
    injected(model, targets=["all"], dropout=0.1)
    fill(model)
    output(model.denoiser)
    lora.remove(model.denoiser)
    after = snapshot(model.denoiser)
    assert before == after


def test_a_fresh_lora_changes_nothing_and_is_fp32_and_alone_in_training(base):
    model = registry.load(str(base), torch.bfloat16)
    before = output(model.denoiser)
    injected(model)
    assert torch.equal(output(model.denoiser), before)
    found = lora.parameters(model.denoiser)
    assert len(found) == 2 * 56
    assert {p.dtype for p in found.values()} == {torch.float32}
    trains = {name for name, p in model.denoiser.named_parameters() if p.requires_grad}
    assert trains == set(found)
    assert all((p == 0).all() == (".lora_B." in name) for name, p in found.items())


def test_what_it_begins_with_depends_on_the_seed_alone(base):
    def start(seed):
        model = registry.load(str(base))
        state = torch.get_rng_state()
        injected(model, seed)
        assert torch.equal(torch.get_rng_state(), state)
        return torch.cat([p.flatten() for p in lora.parameters(model.denoiser).values()])

    first = start(1)
    torch.rand(5)
    assert torch.equal(first, start(1))
    assert not torch.equal(first, start(2))


@pytest.mark.parametrize("settings", [{}, {"alpha": 1.0}, {"alpha": 3.0, "rslora": True}], ids=str)
def test_it_adds_alpha_over_rank_times_b_a_to_each_weight(base, settings):
    model = registry.load(str(base))
    config = injected(model, targets=["all"], **settings)
    fill(model, 0.02)
    pairs = lora.extract(model.denoiser)
    scale = config.strength / (math.sqrt(4) if config.rslora else 4)
    assert {round(pair.scale, 6) for pair in pairs.values()} == {round(scale, 6)}
    found = output(model.denoiser)
    lora.remove(model.denoiser)
    assert (found - output(model.denoiser)).abs().max() > 0.01
    with torch.no_grad():
        for path, pair in pairs.items():
            weight = model.denoiser.get_submodule(path).weight
            product = torch.einsum("or,r...->o...", pair.up.flatten(1), pair.down)
            weight += scale * product
    torch.testing.assert_close(output(model.denoiser), found, rtol=1e-4, atol=1e-5)


def test_extracted_pairs_are_copies(model):
    injected(model)
    pairs = lora.extract(model.denoiser)
    fill(model)
    assert all((pair.up == 0).all() for pair in pairs.values())


def test_switched_off_the_base_answers_alone(model):
    plain = output(model.denoiser)
    injected(model)
    fill(model)
    adapted = output(model.denoiser)
    with lora.switched_off(model.denoiser):
        assert torch.equal(output(model.denoiser), plain)
    assert torch.equal(output(model.denoiser), adapted)
    with pytest.raises(ZeroDivisionError), lora.switched_off(model.denoiser):
        1 / 0
    assert torch.equal(output(model.denoiser), adapted)


def test_dropout_zeroes_its_share_of_the_inputs_in_training_only(model):
    injected(model, targets=["mid_block.attentions.0.proj_in"], dropout=0.25)
    (layer,) = lora.layers(model.denoiser).values()
    dropout = layer.lora_dropout[NAME]
    assert dropout.p == 0.25
    model.denoiser.train()
    zeroed = (dropout(torch.ones(20_000)) == 0).float().mean()
    assert abs(zeroed - 0.25) < 0.02
    model.denoiser.eval()
    assert torch.equal(dropout(torch.ones(100)), torch.ones(100))


def test_a_finished_lora_of_mixed_ranks_and_any_strength_is_applied(base):
    model = registry.load(str(base))
    numbers, pairs = torch.Generator().manual_seed(1), {}
    for number, (path, shape) in enumerate(list(module_shapes(model.denoiser).items())[::3]):
        rank = 1 + number % 5
        down = 0.1 * torch.randn(rank, *shape[1:], generator=numbers)
        up = 0.1 * torch.randn(shape[0], rank, *[1] * (len(shape) - 2), generator=numbers)
        pairs[path] = LoraPair(down, up, alpha=0.5 + number % 3)
    lora.apply(model.denoiser, pairs, 0.7)
    found = output(model.denoiser)
    merged = registry.load(str(base)).denoiser
    with torch.no_grad():
        for path, pair in pairs.items():
            merged.get_submodule(path).weight += 0.7 * pair.delta()
    assert (output(merged) - output(registry.load(str(base)).denoiser)).abs().max() > 0.01
    torch.testing.assert_close(found, output(merged), rtol=1e-4, atol=1e-5)
    assert not any(p.requires_grad for p in model.denoiser.parameters())


# ---- going on from a file


def test_a_run_goes_on_from_a_lora_file_whatever_its_dialect(train, base):
    first, _ = train({"run.steps": 3, "adapter.alpha": 2.0, "output.dialect": "comfyui"}, "first")
    settings = {"adapter.alpha": 2.0, "adapter.start_from": str(first.lora), "optimizer.learning_rate": 1e-12}
    second, _ = train({**settings, "run.steps": 1}, "second")
    target = Target.of(unet=registry.load(str(base)).denoiser)
    (before, _), (after, _) = read_lora(first.lora, target), read_lora(second.lora, target)
    assert before["unet"].keys() == after["unet"].keys()
    for path, pair in before["unet"].items():
        torch.testing.assert_close(after["unet"][path].delta(), pair.delta(), rtol=1e-5, atol=1e-8)
        assert pair.delta().abs().max() > 0


def test_a_rank_stabilised_lora_goes_on_from_its_file(train, base):
    settings = {"adapter.rslora": True, "adapter.alpha": 3.0}
    first, _ = train(settings, "first")
    changed = {**settings, "adapter.start_from": str(first.lora), "run.steps": 1, "optimizer.learning_rate": 1e-12}
    second, _ = train(changed, "second")
    assert {float(value) for key, value in load_file(second.lora).items() if key.endswith("alpha")} == {6.0}
    a, b = load_file(first.lora), load_file(second.lora)
    assert all(torch.allclose(a[key], b[key], atol=1e-7) for key in a)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapter.rank": 8}, "has rank 4 instead of 8"),
        ({"adapter.alpha": 1.0}, "has alpha 4 instead of 1"),
        ({"adapter.targets": ["all"]}, "no pair for conv_in"),
        ({"adapter.targets": ["attn1"]}, "attn2.to_k is not among the targets"),
    ],
)
def test_a_start_that_does_not_fit_the_settings_is_refused_and_nothing_is_left_in_the_base(
    train, base, snapshot, changes, said
):
    first, _ = train({"run.steps": 1}, "first")
    model = registry.load(str(base))
    before = snapshot(model.denoiser)
    with pytest.raises(BadInput, match="adapter.start_from: .* does not fit these settings") as caught:
        train({**changes, "adapter.start_from": str(first.lora)}, "second", model=model)
    assert said in str(caught.value)
    assert snapshot(model.denoiser) == before


def test_a_start_that_is_no_lora_of_this_model_is_refused(train, tmp_path):
    with pytest.raises(BadInput, match="^adapter.start_from: .*there is no such file"):
        train({"adapter.start_from": str(tmp_path / "none.safetensors")})
    save_file({"lora_unet_other.lora_down.weight": torch.ones(1, 1)}, tmp_path / "other.safetensors")
    with pytest.raises(BadInput, match="^adapter.start_from: .*keys belong to this model"):
        train({"adapter.start_from": str(tmp_path / "other.safetensors")})


def test_another_start_in_the_same_folder_is_another_run(train):
    """The file's content counts, not its name: overwritten, it is another start; moved, it is the same."""
    first, _ = train({"run.steps": 1}, "first")
    other, _ = train({"run.steps": 1, "run.seed": 5}, "other")
    place = first.lora.with_name("start.safetensors")
    place.write_bytes(first.lora.read_bytes())
    train({"adapter.start_from": str(place)})
    moved = place.rename(place.with_name("moved.safetensors"))
    _, heard = train({"adapter.start_from": str(moved)})
    assert not heard.of(Steps)
    moved.write_bytes(other.lora.read_bytes())
    with pytest.raises(BadInput, match="holds another run .*adapter.start_from"):
        train({"adapter.start_from": str(moved)})


def test_a_finished_lora_is_applied_to_the_text_encoder_too(base, tmp_path):
    model = registry.load(str(base))
    path = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    numbers = torch.Generator().manual_seed(0)
    state = {
        f"{path}.lora_down.weight": torch.randn(2, 32, generator=numbers),
        f"{path}.lora_up.weight": torch.randn(64, 2, generator=numbers),
        f"{path}.alpha": torch.tensor(2.0),
    }
    save_file(state, tmp_path / "te.safetensors")
    adapted = load_for_sampling(str(base), str(tmp_path / "te.safetensors"))
    before, after = (m.encoder.encode_captions(["a red ring"])[0]["text"] for m in (model, adapted))
    assert (before - after).abs().max() > 0.1
    weight = dict(model.encoder.text_encoders["te"].named_parameters())
    name = next(key for key in weight if key.endswith("layers.0.mlp.fc1.weight"))
    with torch.no_grad():
        weight[name] += state[f"{path}.lora_up.weight"] @ state[f"{path}.lora_down.weight"]
    merged = model.encoder.encode_captions(["a red ring"])[0]["text"]
    torch.testing.assert_close(after, merged, rtol=1e-4, atol=1e-4)
    assert F.mse_loss(after, merged) < 1e-8
