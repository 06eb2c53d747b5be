"""What whoever watches a run may ask of it while it trains."""

import threading

FINISH, CHECKPOINT, SAMPLE = "finish", "checkpoint", "sample"
KINDS = (FINISH, CHECKPOINT, SAMPLE)
"""To end now, with the file of what is trained; to write a checkpoint now; to draw a preview now."""


class Requests:
    """Asked for in any thread, obeyed between two steps; what is asked again before it is obeyed is done once."""

    def __init__(self):
        self._lock = threading.Lock()
        self._asked: set[str] = set()

    def ask(self, kind: str) -> None:
        """
        Args:
            kind: one of KINDS.

        Raises:
            ValueError: it is none of them.
        """
        if kind not in KINDS:
            raise ValueError(f"{kind!r:.80} cannot be asked of a run; it is one of {', '.join(KINDS)}")
        with self._lock:
            self._asked.add(kind)

    def take(self, kind: str) -> bool:
        """Whether it was asked for since it was last taken."""
        with self._lock:
            asked = kind in self._asked
            self._asked.discard(kind)
        return asked

    @property
    def finishing(self) -> bool:
        """Whether the run shall end; once asked for it stays so."""
        with self._lock:
            return FINISH in self._asked
