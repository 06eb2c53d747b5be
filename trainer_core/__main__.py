"""`python -m trainer_core` is `scion`."""

import sys

from .cli import main

sys.exit(main())
