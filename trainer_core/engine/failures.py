"""How training fails: by diverging, or for want of memory."""

import errno
import re

import torch

from ..errors import ScionError

OUT_OF_MEMORY = re.compile(
    "out of memory|not enough memory|an't allocate memory|DefaultCPUAllocator|_STATUS_ALLOC_FAILED|bad_alloc|"
    "could not create a (memory|primitive)|annot allocate memory"
)
"""In the message of a RuntimeError: CUDA, MPS, the CPU's allocator, C++ and oneDNN each say it in their own words."""


class Diverged(ScionError):
    """Gradients or weights are not finite any more; the same recipe would end so again."""

    finite_step: int | None = None
    """The last step whose weights were finite, where the present ones are not."""


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error)) is not None
