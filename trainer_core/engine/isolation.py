"""Everything global that a run touches is put back after it: the host goes on living in the same process."""

import contextlib
import os
import re
from collections.abc import Iterator

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

SINGLETONS = (AcceleratorState, PartialState, GradientState)
VARIABLES = re.compile(r"(ACCELERATE|FSDP|DEEPSPEED|MEGATRON|XLA|MASTER|LOCAL|PYTORCH_ENABLE)_.*|RANK|WORLD_SIZE")
"""What accelerate writes into the environment. Others may change the rest meanwhile, in a host that goes on living."""


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """accelerate's process-wide states start empty inside and return as they were, as do its environment variables and
    torch's default precision, random generators, thread count and determinism."""
    states = [(singleton, dict(singleton._shared_state)) for singleton in SINGLETONS]
    environment = _variables()
    threads, precision = torch.get_num_threads(), torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    for singleton, _ in states:
        singleton._shared_state.clear()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
            yield
    finally:
        for singleton, saved in states:
            singleton._shared_state.clear()
            singleton._shared_state.update(saved)
        for name in _variables().keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_default_dtype(precision)
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if VARIABLES.fullmatch(name)}
