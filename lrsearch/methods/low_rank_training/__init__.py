"""The parts of ``dlrt``: what it can be told, how it chooses ranks, how networks become low-rank and plain again."""
