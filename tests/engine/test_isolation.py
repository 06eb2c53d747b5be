"""A run leaves the process as it was: the host, and whoever else uses accelerate or torch in it, goes on."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.torch import load_file

from trainer_core.engine.isolation import isolated


@pytest.fixture
def foreign():
    """Somebody else's Accelerator, in another precision and with another accumulation, put away after the test."""
    with isolated():
        yield Accelerator(mixed_precision="bf16", gradient_accumulation_steps=7, cpu=True)


def test_a_foreign_accelerator_is_the_same_after_a_run(foreign, train):
    train({"run.accumulation": 2})
    assert foreign.mixed_precision == "bf16"
    assert foreign.gradient_accumulation_steps == 7
    assert foreign.state.mixed_precision == AcceleratorState().mixed_precision == "bf16"
    assert GradientState().num_steps == 7
    assert foreign.device.type == PartialState().device.type == "cpu"
    # It still works, and still casts.
    layer = foreign.prepare(torch.nn.Linear(4, 4))
    with foreign.autocast():
        assert torch.nn.functional.linear(torch.ones(1, 4), layer.weight).dtype == torch.bfloat16


def test_without_anybody_there_nothing_is_left_behind(train):
    with isolated():
        train()
        assert not AcceleratorState._shared_state and not PartialState._shared_state


def globals_now():
    return (
        dict(os.environ),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.get_rng_state().tolist(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
    )


def test_a_run_changes_no_global(train):
    before = globals_now()
    train({"adapter.dropout": 0.1, "run.precision": "bf16"})
    assert globals_now() == before


def test_a_run_that_fails_changes_no_global_either(train, model):
    def broken(*_):
        raise RuntimeError("a bug")

    model.denoiser.register_forward_hook(broken)
    before = globals_now()
    with pytest.raises(RuntimeError, match="a bug"):
        train(model=model)
    assert globals_now() == before


def test_what_is_changed_inside_is_put_back(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    before = globals_now()
    with isolated():
        os.environ["ACCELERATE_USE_FSDP"] = "true"
        del os.environ["LOCAL_RANK"]
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True)
        torch.manual_seed(5)
        torch.rand(3)
        Accelerator(cpu=True)
    assert globals_now() == before


def test_what_others_write_into_the_environment_meanwhile_stays(monkeypatch):
    monkeypatch.setenv("SOMEBODYS", "before")
    with isolated():
        os.environ["SOMEBODYS"] = "after"
    assert os.environ["SOMEBODYS"] == "after"


def test_a_run_works_in_another_thread_and_under_the_hosts_inference_mode(train):
    """The host executes nodes in a thread of its own and under inference_mode; a node leaves that mode for the run."""

    def node():
        with torch.inference_mode(), torch.inference_mode(False):
            return train()

    with ThreadPoolExecutor(1) as pool:
        result, _ = pool.submit(node).result()
    plain, _ = train(folder="plain")
    ours, theirs = load_file(result.lora), load_file(plain.lora)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
