"""What libraries say on the terminal when they are imported."""

import logging
import os

VERBOSITY = ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY")
"""Read by the libraries when they are imported; who has set one keeps it."""
LOGGERS = ("torchao", "bitsandbytes", "torch.utils._pytree")
"""Of optional packages, which tell of kernels for other devices, and of what torch tells them about their own code."""


def silence() -> None:
    """Leaves errors of the libraries only: nothing that a person who trains a LoRA could act on is a warning of theirs.

    Call it before they are imported. Only the command line does; inside ComfyUI the log is the host's.
    """
    for name in VERBOSITY:
        os.environ.setdefault(name, "error")
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
