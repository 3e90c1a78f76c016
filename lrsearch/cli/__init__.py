"""The command line: one function per verb, no logic of its own."""

from lrsearch.cli.app import main

__all__ = ["main"]
