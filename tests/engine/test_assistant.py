"""An assistant LoRA: training goes as on a base with it merged, pictures and the file as if it were not there."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer_core.adapters import assistant, lora
from trainer_core.adapters.lora_config import LoRAConfig
from trainer_core.engine import metrics, sampling
from trainer_core.engine.events import Previewed, Warned
from trainer_core.engine.memory_estimate import Rehearsal
from trainer_core.engine.preview_config import PreviewConfig
from trainer_core.errors import BadInput
from trainer_core.families import registry
from trainer_core.lora_file.dialects import lora_to_tensors
from trainer_core.lora_file.lora import LoraPair, Target
from trainer_core.lora_file.safe_io import read_header

EVERYWHERE = LoRAConfig(rank=3, alpha=6, targets=["attention+ff", "conv1"])
FEW = ["attn2", "conv_in"]
"""Fewer modules than the assistant is in, and one that it is not in."""


@pytest.fixture(scope="module")
def pairs(base):
    """Large ones in attention, feed-forward and convolutions of the base's UNet."""
    unet = registry.load(str(base)).denoiser
    numbers, found = torch.Generator().manual_seed(8), {}
    for path in lora.targeted_modules(unet, EVERYWHERE, registry.FAMILIES["sd15"].targets):
        outputs, inputs, *kernel = unet.get_submodule(path).weight.shape
        down = 0.2 * torch.randn(3, inputs, *kernel, generator=numbers)
        found[path] = LoraPair(down, 0.2 * torch.randn(outputs, 3, *[1] * len(kernel), generator=numbers), 6.0)
    return found


@pytest.fixture(scope="module")
def file(pairs, base, tmp_path_factory):
    target = Target.of(unet=registry.load(str(base)).denoiser)
    path = tmp_path_factory.mktemp("assistant") / "assistant.safetensors"
    save_file(lora_to_tensors({"unet": pairs}, "kohya", target), path)
    return path


@pytest.fixture
def merged(model, pairs):
    """The base with the assistant, at half its strength, in its weights."""
    for path, pair in pairs.items():
        model.denoiser.get_submodule(path).weight.data.add_(0.5 * pair.delta())
    return model


def losses_of(result):
    return [line["loss"] for line in metrics.read(result.folder / "metrics.jsonl") if "loss" in line]


def asked(file, **more):
    return {"adapter.assistant": str(file), "adapter.assistant_strength": 0.5, "adapter.targets": FEW, **more}


@pytest.mark.parametrize("kind", ["lora", "loha"])
def test_it_trains_as_a_base_that_the_assistant_is_merged_into(train, merged, file, kind):
    settings = {"adapter.kind": kind, "run.steps": 3, "optimizer.learning_rate": 1e-2, "dataset.holdout": 1}
    helped, _ = train(asked(file, **settings), "helped")
    as_one, _ = train({"adapter.targets": FEW, **settings}, "merged", model=merged)
    alone, _ = train({"adapter.targets": FEW, **settings}, "alone")
    assert losses_of(helped) == pytest.approx(losses_of(as_one), rel=1e-4)
    assert abs(losses_of(helped)[0] - losses_of(alone)[0]) > 0.01
    first, second = load_file(helped.lora), load_file(as_one.lora)
    assert first.keys() == second.keys() == load_file(alone.lora).keys()
    for key, tensor in first.items():
        torch.testing.assert_close(tensor, second[key], rtol=1e-2, atol=1e-4)


def test_pictures_are_drawn_without_it(train, file, base):
    still = {"optimizer.learning_rate": 1e-12, "run.steps": 1, "preview.prompts": ["a ring"]}
    _, heard = train(asked(file, **still))
    expected = sampling.draw(registry.load(str(base)), ["a ring"], PreviewConfig(steps=2), 64, 64)
    torch.testing.assert_close(heard.of(Previewed)[-1].pictures, expected, rtol=0, atol=1e-5)


def test_a_stopped_run_ends_in_the_same_bits(train, file, same):
    settings = asked(file, **{"run.steps": 4, "adapter.dropout": 0.2, "run.gradient_checkpointing": True})
    straight, _ = train(settings, "straight")
    train(settings, "stopped", stop_after=2)
    assert same(straight, train(settings, "stopped")[0])


def test_gradient_checkpointing_and_bf16_go_with_it(train, file):
    exact, _ = train(asked(file), "fp32")
    recomputed, _ = train(asked(file, **{"run.gradient_checkpointing": True}), "recomputed")
    rough, _ = train(asked(file, **{"run.precision": "bf16", "run.gradient_checkpointing": True}), "bf16")
    assert losses_of(recomputed) == pytest.approx(losses_of(exact), rel=1e-5)
    assert losses_of(rough) == pytest.approx(losses_of(exact), rel=0.03)


def test_the_base_is_left_as_it_was(train, model, file, snapshot):
    before = snapshot(model.denoiser)
    train(asked(file), model=model)
    assert snapshot(model.denoiser) == before


def test_what_is_in_the_file_and_its_strength_make_another_run(make_recipe, file, tmp_path):
    def fingerprint(**changes):
        return make_recipe(changes).fingerprint("model", "data", "fp32")

    helped = fingerprint(**asked(file))
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(file.read_bytes())
    assert fingerprint(**asked(moved)) == helped
    others = [
        fingerprint(**asked(file, **{"adapter.assistant_strength": 1.0})),
        fingerprint(**{"adapter.targets": FEW}),
    ]
    assert helped not in others and len(set(others)) == 2
    assert fingerprint(**{"adapter.targets": FEW, "adapter.assistant_strength": 0.5}) == others[1]


def test_the_recipe_beside_the_run_finds_it_and_the_file_names_it_without_its_folder(train, file, monkeypatch):
    monkeypatch.chdir(file.parent)
    result, _ = train(asked(file.name, **{"run.steps": 1}))
    assert f'"assistant": "{file}"' in (result.folder / "recipe.json").read_text()
    assert str(file.parent) not in str(read_header(result.lora).metadata)
    assert file.name in str(read_header(result.lora).metadata)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (
            {"lora_unet_single_blocks_0_linear1.lora_down.weight": (4, 8)},
            "adapter.assistant: .*other.safetensors: none of its 1 keys belong to this model.* a LoRA for Flux",
        ),
        (
            {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (2, 32)}
            | {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": (64, 2)},
            "adapter.assistant: .* holds nothing for the unet",
        ),
        (
            {
                f"lora_unet_conv_in.hada_w{n}_{half}": shape
                for n in "12"
                for half, shape in (("a", (32, 1)), ("b", (1, 36)))
            },
            "adapter.assistant: .* holds LoHa; an assistant is a plain LoRA",
        ),
    ],
    ids=["another family", "no denoiser", "another kind"],
)
def test_what_cannot_assist_is_refused_by_name(train, tmp_path, tensors, said):
    path = tmp_path / "other.safetensors"
    save_file({key: torch.ones(shape) for key, shape in tensors.items()}, path)
    with pytest.raises(BadInput, match=said):
        train(asked(path))
    assert not (tmp_path / "run").exists()


def test_a_strength_of_nothing_is_refused(make_recipe, file):
    with pytest.raises(BadInput, match="adapter.assistant_strength: 0, which takes the assistant out"):
        make_recipe(asked(file, **{"adapter.assistant_strength": 0}))


def test_the_part_for_text_encoders_is_said_not_to_count(train, file, tmp_path, base):
    both = tmp_path / "both.safetensors"
    text = {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(2, 32)}
    text |= {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(64, 2)}
    save_file({**load_file(file), **text}, both)
    _, heard = train(asked(both, **{"run.steps": 1}), warnings=True)
    assert [event.message for event in heard.of(Warned)] == [
        f"{both} has a part for text_encoder, too, which an assistant has no use for"
    ]


def test_its_weights_count_in_the_estimate_of_memory(make_trainer, make_recipe, file, pairs):
    trainer = make_trainer()
    target = Target.of(unet=trainer.model.denoiser)
    helper = assistant.read(make_recipe(asked(file)).adapter, "unet", target, lambda text: None)
    rehearsal = Rehearsal(trainer.model, trainer.recipe.objective, trainer.device, helper.numbers)
    step = (2, 4, 8, 8), {"text": torch.empty(1, 77, 32)}, torch.bfloat16, False
    helped, rehearsal.beside = rehearsal.step(*step), 0
    numbers = sum(pair.down.numel() + pair.up.numel() for pair in pairs.values())
    assert helped.weights - rehearsal.step(*step).weights == 2 * numbers
