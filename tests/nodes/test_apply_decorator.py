"""ApplyDecoratorTokens puts vectors behind prompts, zeros behind the negative one, for a part of the sampling."""

import pytest
import torch
from safetensors.torch import save_file

NODE = "ScionApplyDecoratorTokens"
WEIGHT = torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.0, -1.0]])


@pytest.fixture
def decorator(pack):
    return pack("trainer_core.lora_file.decorator").DecoratorTokens(WEIGHT, "mine")


@pytest.fixture
def apply(pack, decorator):
    def run(positive, negative=None, **held):
        return pack.run(NODE, positive=positive, negative=negative, **{"decorator": decorator, **held}).args

    return run


def entry(tokens=4, batch=1, **extras):
    states = torch.arange(float(batch * tokens * 3)).reshape(batch, tokens, 3)
    return [states, {"pooled_output": torch.ones(batch, 5), **extras}]


def test_vectors_follow_the_prompt_and_as_many_zeros_the_negative_one(apply):
    positive, negative = [entry(), entry(6, batch=2)], [entry(5)]
    with_it, without = apply(positive, negative, strength=0.5)
    for (states, extras), (before, kept) in zip(with_it, positive, strict=True):
        assert torch.equal(states[:, :-2], before) and extras == kept
        assert all(torch.equal(row, WEIGHT * 0.5) for row in states[:, -2:])
    [(states, _)] = without
    assert states.shape == (1, 7, 3) and torch.equal(states[:, :5], negative[0][0]) and not states[:, 5:].any()
    assert positive[0][0].shape == (1, 4, 3), "what came in is as it was"


@pytest.mark.parametrize("held", [{"strength": 0.0}, {"start_percent": 0.4, "end_percent": 0.4}])
def test_without_strength_or_time_both_are_what_came_in(apply, held):
    positive, negative = [entry()], [entry()]
    with_it, without = apply(positive, negative, **held)
    assert with_it is positive and without is negative


def test_a_part_of_the_sampling_is_with_it_and_the_rest_as_it_was(apply):
    positive = [entry(), entry(start_percent=0.5, end_percent=0.9), entry(start_percent=0.0, end_percent=0.1)]
    with_it, _ = apply(positive, start_percent=0.2, end_percent=0.7)
    told = [(len(states[0]), extras.get("start_percent"), extras.get("end_percent")) for states, extras in with_it]
    assert told == [
        (4, 0.0, pytest.approx(0.2, abs=2e-5)),
        (6, 0.2, 0.7),
        (4, pytest.approx(0.7, abs=2e-5), 1.0),
        (6, 0.5, 0.7),
        (4, pytest.approx(0.7, abs=2e-5), 0.9),
        (4, 0.0, 0.1),
    ]
    assert told[0][2] < 0.2 and told[2][1] > 0.7, "at no moment are both there"
    assert with_it[0][0] is positive[0][0] and with_it[5] == positive[2]


def test_a_mask_of_the_text_grows_with_it(apply):
    [(_, extras)] = apply([entry(attention_mask=torch.tensor([[1, 1, 0, 0]]))])[0]
    assert extras["attention_mask"].tolist() == [[1, 1, 0, 0, 1, 1]]


def test_hunyuan_dit_s_take_places_of_padding(apply):
    later, mask = torch.ones(1, 5, 3), torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0]])
    told = entry(conditioning_mt5xl=later, attention_mask_mt5xl=mask, attention_mask=torch.ones(1, 4))
    [(states, extras)], [(_, zeros)] = apply([told], [told])
    assert states is told[0] and extras["attention_mask"].shape == (1, 4)
    assert torch.equal(extras["conditioning_mt5xl"][0, 2:4], WEIGHT) and extras["conditioning_mt5xl"].shape == (1, 5, 3)
    assert extras["attention_mask_mt5xl"].tolist() == zeros["attention_mask_mt5xl"].tolist() == [[1, 1, 1, 1, 0]]
    assert not zeros["conditioning_mt5xl"][0, 2:4].any() and later.all() and mask.sum() == 2


def test_a_decorator_of_another_width_is_refused_with_both_widths(apply, pack):
    other = [[torch.zeros(1, 4, 8), {}]]
    with pytest.raises(pack.BadInput, match="decorator mine .*: its vectors are 3 wide, .* this conditioning are 8"):
        apply(other)


def test_a_file_among_the_loras_is_read_and_counts_less_than_what_is_wired(apply, pack, host):
    folder = host.base / "models/loras"
    save_file({"weight": WEIGHT * 7}, folder / "toolkit.decorator.safetensors")
    save_file({"weight": WEIGHT}, folder / "toolkit.safetensors")
    paths = pack("nodes.host.paths")
    host.folders.filename_list_cache.clear()
    assert paths.decorator_names() == ["toolkit.decorator.safetensors"]
    chosen = {"decorator_file": "toolkit.decorator.safetensors"}
    [(states, _)] = apply([entry()], decorator=None, **chosen)[0]
    assert torch.equal(states[0, 4:], WEIGHT * 7)
    [(states, _)] = apply([entry()], **chosen)[0]
    assert torch.equal(states[0, 4:], WEIGHT)
    node = pack.nodes[NODE]
    before = node.fingerprint_inputs(**chosen)
    save_file({"weight": torch.ones(9, 3)}, folder / "toolkit.decorator.safetensors")
    assert node.fingerprint_inputs(**chosen) != before


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"decorator": None}, "decorator: none is wired, and no decorator_file is chosen"),
        ({"start_percent": 0.8, "end_percent": 0.2}, "start_percent: 0.8 is above end_percent, which is 0.2"),
    ],
)
def test_what_cannot_be_is_refused(apply, pack, held, said):
    with pytest.raises(pack.BadInput, match=said):
        apply([entry()], **held)


def test_a_negative_prompt_that_is_not_wired_blocks_its_output_alone(apply):
    with_it, without = apply([entry()])
    assert len(with_it[0][0][0]) == 6 and without.message == "negative: not wired to Apply Decorator Tokens"
