"""What can go wrong that a person can mend; everything else is a bug and keeps its traceback."""


class ScionError(Exception):
    """Something failed that is no bug of ours: the message says what, where and what to do. Exit code 1."""

    # ComfyUI shows the type by its module, which there is the path of a folder.
    __module__ = "scion"


class BadInput(ScionError):
    """The user's input cannot be used: the message names the file or setting, the value, the range and the remedy.

    Exit code 2; nothing was written or changed.
    """

    __module__ = "scion"

    def __init__(self, *problems: str):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))
