"""The faults that a person can mend, told in one sentence."""

from __future__ import annotations

from collections.abc import Sequence


class LrsearchError(Exception):
    """A fault in what the user gave; its text is one sentence naming the key, the value and what was expected.

    The command line prints the text on stderr and exits with status 1; only ``--debug`` shows a traceback.
    """


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

    def __str__(self) -> str:
        return str(self.args[0])


class TrialFailedError(LrsearchError):
    """A trial ended without a usable network (a loss that is not finite, memory exhausted); recorded, not fatal."""
