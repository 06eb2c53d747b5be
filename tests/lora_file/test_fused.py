"""The pairs of stacked modules become one pair and come apart again, and nothing is lost on the way."""

import pytest
import torch

from trainer_core.lora_file.fused import Rows, fuse_pairs, split_pair, stacked, unstacked
from trainer_core.lora_file.lora import LoraPair

QKV = (Rows("to_q", 6), Rows("to_k", 6), Rows("to_v", 6))
UNEVEN = (Rows("to_q", 6), Rows("mlp", 20))
SWAPPED = (Rows("norm", 4, start=4), Rows("norm", 4))


def pair(outputs, rank=2, alpha=2.0, inputs=5):
    draw = torch.Generator().manual_seed(outputs * 100 + rank)
    return LoraPair(torch.randn(rank, inputs, generator=draw), torch.randn(outputs, rank, generator=draw), float(alpha))


def added(stack, pairs):
    """What the modules' own pairs add, as the original weight has its rows."""
    heights = {rows.path: sum(one.count for one in stack if one.path == rows.path) for rows in stack}
    return stacked(
        stack, {path: pairs[path].delta() if path in pairs else torch.zeros(n, 5) for path, n in heights.items()}
    )


@pytest.mark.parametrize(
    ("stack", "pairs"),
    [
        (QKV, {"to_q": pair(6), "to_k": pair(6, 2, 2.0), "to_v": pair(6, 2)}),
        (QKV, {"to_v": pair(6, 3, 7.0)}),
        (QKV, {"to_q": pair(6, 1, 3.0), "to_v": pair(6, 4, 1.0)}),
        (UNEVEN, {"to_q": pair(6), "mlp": pair(20)}),
        (SWAPPED, {"norm": pair(8, 2, 5.0)}),
    ],
    ids=["all three", "one of them", "unequal ranks and scales", "unequal heights", "swapped halves"],
)
def test_one_pair_adds_what_the_pairs_add_and_comes_apart_into_them(stack, pairs):
    one = fuse_pairs(stack, pairs)

    assert torch.allclose(one.delta(), added(stack, pairs), atol=1e-6)
    apart = split_pair(stack, one)
    assert apart.keys() == pairs.keys()
    for path, own in pairs.items():
        assert apart[path].rank == own.rank
        assert torch.equal(apart[path].down, own.down)
        assert torch.allclose(apart[path].delta(), own.delta(), atol=1e-6)


def test_equal_scales_change_no_number():
    pairs = {path: LoraPair(*(pair(6, rank).parts()[half] for half in ("down", "up")), 0.7) for path, rank in
             (("to_q", 2), ("to_k", 2), ("to_v", 2))}  # fmt: skip

    apart = split_pair(QKV, fuse_pairs(QKV, pairs))

    for path, own in pairs.items():
        assert torch.equal(apart[path].up, own.up)
        assert apart[path].alpha == pytest.approx(own.alpha)


def test_a_pair_that_has_learnt_nothing_yet_keeps_its_rank():
    fresh = {path: LoraPair(pair(6).down, torch.zeros(6, 2), 2.0) for path in ("to_q", "to_k")}

    apart = split_pair(QKV, fuse_pairs(QKV, fresh))

    assert {path: own.rank for path, own in apart.items()} == {"to_q": 2, "to_k": 2}


def test_an_alpha_of_zero_adds_nothing():
    one = fuse_pairs(QKV, {"to_q": pair(6, 2, 0.0), "to_k": pair(6, 2, 1.0)})

    assert one.delta()[:6].abs().max() == 0
    assert torch.allclose(one.delta()[6:12], pair(6, 2, 1.0).delta())
    assert not fuse_pairs(QKV, {"to_q": pair(6, 2, 0.0)}).delta().any()


def test_a_pair_that_others_trained_on_the_whole_weight_comes_apart_exactly():
    whole = pair(18, 4, 3.0)

    apart = split_pair(QKV, whole)

    assert [own.rank for own in apart.values()] == [4, 4, 4]
    assert torch.equal(torch.cat([own.delta() for own in apart.values()]), whole.delta())


def test_rows_are_views_of_the_original_weight_but_for_swapped_halves():
    weight = torch.randn(18, 5)
    own = unstacked(QKV, weight)
    assert all(part.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr() for part in own.values())
    assert torch.equal(own["to_k"], weight[6:12]) and torch.equal(stacked(QKV, own), weight)

    bias = torch.arange(8.0)
    assert unstacked(SWAPPED, bias)["norm"].tolist() == [4, 5, 6, 7, 0, 1, 2, 3]
    assert torch.equal(stacked(SWAPPED, unstacked(SWAPPED, bias)), bias)
    with pytest.raises(ValueError, match="17 rows instead of 18"):
        unstacked(QKV, weight[:17])


def test_pairs_that_read_inputs_of_different_width_are_refused():
    with pytest.raises(ValueError, match="not of one stack"):
        fuse_pairs(QKV, {"to_q": pair(6), "to_k": pair(6, inputs=4)})
