"""One allocator for every method: candidates per layer in, one choice per layer within the budget out.

It knows numbers only. "The front" of a layer is the list of its candidates that no other undercuts in error and
every cost.
"""

from lrsearch.allocate.alternating import alternation
from lrsearch.allocate.candidates import Candidates
from lrsearch.allocate.rules import Rule, allocate

__all__ = ["Candidates", "Rule", "allocate", "alternation"]
