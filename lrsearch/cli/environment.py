"""Verbs for the surroundings of lrsearch: this machine, and the editor."""

from __future__ import annotations

import sys
from dataclasses import asdict

import typer

from lrsearch.cli.options import Address, FormatOption, Storage, Tracking
from lrsearch.cli.output import console, print_json
from lrsearch.cli.progress import working
from lrsearch.sweep.store import DEFAULT_STORAGE

PANEL = "Set up"
verbs = typer.Typer()


@verbs.command(rich_help_panel=PANEL)
def doctor(
    storage: Storage = DEFAULT_STORAGE,
    tracking_uri: Tracking = None,
    address: Address = None,
    format: FormatOption = "table",
) -> None:
    """Check what sweeps need: packages, devices, storage, MLflow, Ray. Status 1 if something must be fixed."""
    from lrsearch.doctor import examine
    from lrsearch.screen import finding_table

    found = []
    screen = console()
    with working("looking at this machine"):
        for finding in examine(storage, tracking_uri, address):
            found.append(finding)
            if format == "table":
                screen.print(finding_table(finding))
    broken = [finding.what for finding in found if finding.verdict == "fix"]
    if format == "json":
        print_json({"ok": not broken, "findings": [asdict(finding) for finding in found]})
    else:
        verdict = (
            f"to be fixed: {', '.join(broken)}" if broken else "sweeps can run here; next: lrsearch search SPACE.yaml"
        )
        screen.print(verdict, style="bold", highlight=False)
    if broken:
        sys.exit(1)


@verbs.command(rich_help_panel=PANEL)
def schema() -> None:
    """Print the JSON schema of space files, by which an editor completes and checks them."""
    from lrsearch.space_schema import space_schema

    print_json(space_schema())
