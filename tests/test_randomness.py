"""Random numbers come from keys: the same key, the same numbers, on every machine and in every order."""

import torch

from trainer_core import randomness


def test_keys_are_the_same_on_every_machine():
    assert randomness.key(0, "noise", 7, "a.png") == 3671320518887445873
    assert 0 <= randomness.key("x") < 2**63


def test_every_part_and_its_place_counts():
    keys = [("a", "b"), ("b", "a"), ("ab",), ("a", "b", ""), ("a", "", "b"), (1, 23), (12, 3)]
    assert len({randomness.key(*parts) for parts in keys}) == len(keys)


def test_generators_and_dice_follow_their_key():
    draws = [torch.rand(3, generator=randomness.generator(5, "x", n)) for n in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert randomness.dice(5, "x").random() == randomness.dice(5, "x").random() != randomness.dice(6, "x").random()


def test_reseeded_leaves_the_global_generator_as_it_was_even_after_an_error():
    state = torch.get_rng_state()
    with randomness.reseeded(torch.device("cpu"), 1, "dropout"):
        first = torch.rand(3)
    try:
        with randomness.reseeded(torch.device("cpu"), 1, "dropout"):
            assert torch.equal(torch.rand(3), first)
            raise ValueError
    except ValueError:
        pass
    assert torch.equal(torch.get_rng_state(), state)
