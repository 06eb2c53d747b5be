"""A decorator on every family: its width, where it stands in the conditioning, and that it is learned."""

import pytest
import torch

from trainer_core.adapters.decorator import Decorator
from trainer_core.adapters.decorator_config import DecoratorConfig
from trainer_core.engine import learning_decorator, objective
from trainer_core.engine.objective_config import ObjectiveConfig
from trainer_core.errors import BadInput
from trainer_core.families import masked_slots, registry
from trainer_core.lora_file.decorator import DecoratorTokens

WIDTHS = {"base": 32, "sdxl_base": 96, "kolors_base": 32, "sd3_base": 112, "flux_base": 48, "hunyuan_base": 16}
SIZES = [[64, 64, 0, 0, 64, 64]] * 2


@pytest.fixture(params=WIDTHS)
def loaded(request):
    """A base and the width of its text states."""
    model = registry.load(str(request.getfixturevalue(request.param)))
    return model, WIDTHS[request.param]


def told_of(model):
    told = model.encoder.stack(model.encoder.encode_captions(["a red ring", "cross"]))
    told |= {"time_ids": torch.tensor(SIZES)} if model.family.sized else {}
    return model.told_guidance(told, 3.5)


def test_its_vectors_are_as_wide_as_the_text_and_have_gradients_where_the_prompt_is_no_dropped_one(loaded):
    model, width = loaded
    learning_decorator.put(model, DecoratorConfig(num_tokens=3), 0)
    [(name, vectors)] = learning_decorator.parameters(model).items()
    assert (name, tuple(vectors.shape)) == ("decorator.weight", (3, width))
    told, numbers = told_of(model), torch.Generator().manual_seed(4)
    latents, noise = torch.randn(2, 2, model.family.latent_channels, 8, 8, generator=numbers)
    drawn = objective.Draw(noise, torch.tensor([500, 500]))

    def losses(on):
        followed = model.family.with_tokens(told, model.decorator(torch.tensor(on)))
        return objective.losses(ObjectiveConfig(), model, model.denoiser, latents, followed, drawn)

    both = losses([True, True])
    both.sum().backward()
    assert vectors.grad.abs().amax(dim=1).min() > 0, "each vector is heard"
    vectors.grad = None
    dropped = losses([False, True])
    dropped[0].backward(retain_graph=True)
    assert not vectors.grad.any()
    assert dropped[0] != both[0] and torch.allclose(dropped[1], both[1])


def test_as_many_zeros_follow_the_unconditional_half_and_strength_scales_the_vectors(loaded):
    model, width = loaded
    weight = torch.randn(2, width, generator=torch.Generator().manual_seed(1))
    learning_decorator.put_read(model, DecoratorTokens(weight), 0.5)
    told = told_of(model)
    positive, negative = (model.decorated(told, on) for on in (True, False))
    assert {name: tensor.shape for name, tensor in positive.items()} == {n: t.shape for n, t in negative.items()}
    text, mask = ("text_t5", "text_t5_mask") if "text_t5" in told else ("text", None)
    for row, words in enumerate(told[mask].sum(1).int() if mask else [told["text"].shape[1]] * 2):
        assert torch.equal(positive[text][row, words : words + 2], weight * 0.5)
        assert not negative[text][row, words : words + 2].any()
        assert torch.equal(positive[text][row, :words], told[text][row, :words])
        assert mask is None or int(positive[mask][row].sum()) == words + 2 == int(negative[mask][row].sum())
    learning_decorator.remove(model)
    learning_decorator.put_read(model, DecoratorTokens(weight), 0.0)
    assert model.decorated(told, True) is told


def test_a_decorator_of_another_width_is_refused_with_both_widths(loaded):
    model, width = loaded
    with pytest.raises(BadInput, match=f"its vectors are 77 wide, the text states of {model.name} are {width}"):
        learning_decorator.put_read(model, DecoratorTokens(torch.ones(2, 77), "mine"))


def test_places_of_padding_are_taken_behind_the_last_word_and_else_the_end_of_the_words():
    states, vectors = torch.arange(10.0).view(2, 5, 1), torch.tensor([[[-1.0], [-2.0]]]).expand(2, -1, -1)
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]])
    text, unmasked = masked_slots.filled(states, mask, vectors)
    assert text[..., 0].tolist() == [[0, 1, -1, -2, 4], [5, 6, 7, -1, -2]]
    assert unmasked.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert states[0, 2] == 2 and mask.sum() == 6, "what came in is as it was"


def test_zeros_stand_exactly_where_it_is_off():
    decorator = Decorator(torch.tensor([[1.0, -2.0]]))
    assert decorator(torch.tensor([True, False])).tolist() == [[[1.0, -2.0]], [[0.0, 0.0]]]
