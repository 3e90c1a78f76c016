"""Verbs for the surroundings of lrsearch: this machine, and the editor."""

from __future__ import annotations

import typer

from lrsearch.cli.output import print_json

PANEL = "Set up"
verbs = typer.Typer()


@verbs.command(rich_help_panel=PANEL)
def schema() -> None:
    """Print the JSON schema of space files, by which an editor completes and checks them."""
    from lrsearch.space_schema import space_schema

    print_json(space_schema())
