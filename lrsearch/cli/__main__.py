"""``python -m lrsearch.cli``."""

from lrsearch.cli import main

main()
