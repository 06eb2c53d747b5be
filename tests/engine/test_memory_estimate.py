"""The estimate of a step's memory against what the allocator hands out in the real step."""

import gc

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from trainer_core.engine import memory_advice
from trainer_core.engine.memory_estimate import TrainerMemory, encoding_memory

SQUARE = {"dataset.buckets": False, "run.batch_size": 4, "run.steps": 9}
TOLERANCE = 0.2
"""Of what a setting saves, between estimate and measurement."""
CHANGES = {
    "checkpointing": ({"run.gradient_checkpointing": True}, "fp32", {"checkpointing": True}),
    "half the batch": ({"run.batch_size": 2}, "fp32", {"batch_size": 2}),
    "bf16": ({}, "bf16", {"dtype": torch.bfloat16}),
    "smaller pictures": ({"dataset.resolution": 48}, "fp32", {"scale": 0.75}),
}
"""Of settings, and how the estimate is asked for them."""


def peak_of(call) -> int:
    """The most bytes that torch's CPU allocator has handed out during a call, beyond those before it."""
    # What earlier tests left must not be given back meanwhile.
    gc.collect()
    gc.disable()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            call()
    finally:
        gc.enable()
    events = (event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]")
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def one_step(trainer) -> None:
    end = trainer.step + 1
    trainer.train(lambda steps: None, lambda: trainer.step >= end)


def measured(trainer) -> int:
    """Weights, what trains, the optimiser's state, and the peak of a step of a full batch."""
    while trainer.step < 1 or len(trainer.order.batch(trainer.step).entries) < trainer.order.batch_size:
        one_step(trainer)
    peak = peak_of(lambda: one_step(trainer))
    weights = sum(parameter.numel() * parameter.element_size() for parameter in trainer.model.denoiser.parameters())
    state = sum(value.nbytes for entry in trainer.optimizer.optimizer.state.values() for value in entry.values())
    return weights + state + peak


def test_what_each_setting_saves_is_estimated_within_a_fifth(make_trainer):
    trainer = make_trainer(SQUARE)
    before = measured(trainer)
    memory = TrainerMemory(trainer)
    present = memory.step().total
    assert present == pytest.approx(before, rel=0.1)
    saved, estimated = {}, {}
    for name, (settings, precision, asked) in CHANGES.items():
        saved[name] = before - measured(make_trainer({**SQUARE, **settings}, precision))
        estimated[name] = present - memory.step(**asked).total
    assert min(saved.values()) > 0
    assert estimated == pytest.approx(saved, rel=TOLERANCE)


@pytest.mark.parametrize(
    ("family", "checkpointed", "halved"), [("base", 0.4, 0.65), ("sdxl_base", 0.25, 0.65), ("kolors_base", 0.25, 0.65)]
)
def test_checkpointing_and_bf16_make_a_step_smaller_in_every_family(
    make_trainer, family, checkpointed, halved, request
):
    """Of what forward and backward hold; what they compute stays."""
    settings = {"base": str(request.getfixturevalue(family)), "dataset.resolution": 128, "dataset.buckets": False}
    peaks, gradients = {}, {}
    for name, on, precision in (("plain", False, "fp32"), ("on", True, "fp32"), ("bf16", False, "bf16")):
        asked = {**settings, "run.batch_size": 1, "run.steps": 1, "run.gradient_checkpointing": on}
        trainer = make_trainer(asked, precision)
        peaks[name] = peak_of(trainer.go)
        gradients[name] = torch.cat([gradient.flatten() for gradient in trainer.gradients[0].values()])
    assert peaks["on"] < checkpointed * peaks["plain"] and peaks["bf16"] < halved * peaks["plain"]
    assert torch.equal(gradients["on"], gradients["plain"])
    assert torch.cosine_similarity(gradients["bf16"], gradients["plain"], dim=0) > 0.99


def test_kinds_of_adapters_that_ask_for_a_drawn_number_are_estimated_too(make_trainer):
    trainer = make_trainer({**SQUARE, "adapter.kind": "loha"})
    assert measured(trainer) == pytest.approx(TrainerMemory(trainer).step().total, rel=0.1)


def test_a_rehearsal_takes_no_memory_of_the_models_size_and_leaves_the_model_as_it_is(make_trainer, snapshot):
    trainer = make_trainer(SQUARE)
    one_step(trainer)
    trainer.model.denoiser.register_forward_hook(lambda *given: pytest.fail("the rehearsal is no forward pass"))
    before = snapshot(trainer.model.denoiser)
    memory = TrainerMemory(trainer)
    assert peak_of(memory.step) < 100_000 < memory.step().total
    assert snapshot(trainer.model.denoiser) == before


def test_what_encoding_a_picture_takes_is_estimated_within_a_fifth(model):
    picture = torch.zeros(1, 128, 192, 3)
    real = peak_of(lambda: model.encoder.encode_pictures(picture))
    assert encoding_memory(model.encoder.vae, 192, 128) == pytest.approx(real, rel=TOLERANCE)


def remedies(**saves):
    """Settings with what they save, the least painful first."""
    return [memory_advice.Remedy({name: "x"}, "y", "it costs", saves=saved) for name, saved in saves.items()]


@pytest.mark.parametrize(
    "saves, named",
    [
        ({"a": 10, "b": 50, "c": 30}, ["b", "c"]),
        ({"a": 42, "b": 50, "c": 30}, ["a", "b"]),
        ({"a": 4, "b": 50, "c": 3}, ["b"]),
        ({"a": 0, "b": -3}, []),
    ],
    ids=["most first", "the less painful of near ones first", "small ones are not named", "none helps"],
)
def test_the_settings_that_are_named_are_those_that_save_most(saves, named):
    assert [name for remedy in memory_advice._best(remedies(**saves), 100) for name in remedy.settings] == named


@pytest.mark.parametrize(
    "size, said",
    [
        (6.74e9, "6.7 GB"),
        (123.4e9, "120 GB"),
        (0.96e9, "960 MB"),
        (0.999e9, "1.0 GB"),
        (2.9e6, "2.9 MB"),
        (40, "less than 1 kB"),
    ],
)
def test_amounts_are_told_to_two_digits(size, said):
    assert memory_advice.amount(size) == said
