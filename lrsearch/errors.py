"""The faults that a person can mend, told in one sentence that gives no password away."""

from __future__ import annotations

import re
from collections.abc import Sequence

_IN_ADDRESS = re.compile(r"(://[^\s/:@]*):[^\s/]*@")
_IN_SETTING = re.compile(r"(?i)\b(password|passwd|secret|token)=[^\s&'\"]+")


def hide_passwords(text: str) -> str:
    """A text with ``***`` for each password in an address, such as ``postgresql://user:password@host``."""
    return _IN_SETTING.sub(r"\1=***", _IN_ADDRESS.sub(r"\1:***@", text))


class LrsearchError(Exception):
    """A fault in what the user gave; its text is one sentence naming the key, the value and what was expected.

    The command line prints the text on stderr and exits with status 1; only ``--debug`` shows a traceback.
    """

    def __str__(self) -> str:
        return hide_passwords(str(self.args[0]))


class BudgetUnreachableError(LrsearchError):
    """No choice of factorizations meets the budget.

    Attributes:
        smallest: the smallest reachable value of the first cap out of reach, in the unit that was asked in.
        each: the smallest reachable value of every cap, in their order, the others left aside.
    """

    def __init__(self, message: str, smallest: float, each: Sequence[float] = ()) -> None:
        super().__init__(message, smallest, each)
        self.smallest = smallest
        self.each = tuple(each) or (smallest,)


class TrialFailedError(LrsearchError):
    """A trial ended without a usable network (a loss that is not finite, memory exhausted); recorded, not fatal."""


class StorageError(LrsearchError):
    """The storage does not answer: nobody's fault but its own, so whatever was written to it is done again later."""


class StorageFullError(StorageError):
    """There is no room for a file."""
