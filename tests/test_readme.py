"""What the README says is true."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
import yaml

from lrsearch.cli.app import app
from lrsearch.methods import method_names
from lrsearch.space import load_space, parse_space

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


class Block(NamedTuple):
    """A code block, and what a comment before it says: ``file: NAME`` to write it to, ``only read: REASON``."""

    about: str
    name: str
    language: str
    text: str

    def runs(self):
        """The commands, each with the output that is shown for it."""
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield shlex.split(command), output


BLOCKS = [
    Block(*(part or "" for part in found))
    for found in re.findall(r"(?:<!-- (file|only read): (.*?) -->\n)?```(\w*)\n(.*?)```", README, flags=re.DOTALL)
]
FILES = {block.name: block.text for block in BLOCKS if block.about == "file"}
CONSOLE = [block for block in BLOCKS if block.language == "console"]


def plain(language):
    return [block.text for block in BLOCKS if block.language == language and block.about != "file"]


def test_every_block_is_of_a_kind_that_is_tested():
    assert {block.language for block in BLOCKS} <= {"", "console", "python", "yaml", "toml"}
    assert all(block.about == "file" for block in BLOCKS if block.language == "toml")
    assert len(BLOCKS) == README.count("\n```") / 2


def test_its_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope = {}

    for block in plain("python"):
        exec(block, scope)

    example = scope["torch"].randn(2, 3, 64, 64)
    expected, rebuilt = scope["result"].model(example), scope["again"](example)
    scope["torch"].testing.assert_close(rebuilt, expected)
    cr_p, cr_f = map(float, capsys.readouterr().out.split())
    assert 50 <= cr_f < 51 and cr_p > 0


def test_its_space_is_the_one_a_newcomer_runs():
    (block,) = plain("yaml")

    assert parse_space(yaml.safe_load(block)) == load_space(ROOT / "search_spaces" / "digits.yaml")


def test_ci_runs_its_test_command_verbatim():
    commands = plain("")[0].splitlines()

    assert commands[1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_its_commands_have_the_options_that_it_gives_them():
    lines = [line.split("&&")[-1].strip() for text in plain("") for line in text.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines] + [
        command for block in CONSOLE for command, _ in block.runs()
    ]
    verbs = typer.main.get_command(app).commands

    ours = [command[1:] for command in commands if command[:1] == ["lrsearch"]]

    assert len(ours) >= 15
    for verb, *rest in ours:
        verbs[verb].make_context(verb, rest)


def test_its_table_of_commands_names_every_verb():
    table = README[README.index("## The commands") : README.index("## The space file")]

    assert set(re.findall(r"^\| `lrsearch (\w+)", table, re.MULTILINE)) == set(typer.main.get_command(app).commands)


def run(command, cwd):
    """Run a command of the README as in an environment of its own in which lrsearch is installed."""
    program = {"lrsearch": ["-m", "lrsearch.cli"], "pip": ["-m", "pip", "-q"]}[command[0]]
    arguments = command[1:]
    if arguments[0] == "install":
        arguments += ["--no-deps", "--no-index", "--no-build-isolation", "--target", "site"]
    paths = os.pathsep.join([str(cwd / "site"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "80", "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, *program, *arguments]
    done = subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


@pytest.mark.slow
def test_its_tour_is_what_happens(tmp_path):
    shutil.copytree(ROOT / "search_spaces", tmp_path / "search_spaces")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    brief = ["--trials", "3", "--set", "train.epochs=3", "--set", "retrain.epochs=1"]
    run(["lrsearch", "search", "search_spaces/digits.yaml", *brief], tmp_path)

    for block in CONSOLE:
        for command, output in block.runs() if block.about != "only read" else ():
            said, shown = (text.split("\n")[0].split() for text in (run(command, tmp_path), output))
            # A table has the columns that are shown; a sentence begins as it does there.
            assert said == shown if "%" in output else said[:2] == shown[:2] or not shown, (command, said)


def test_its_table_names_every_method():
    table = README[README.index("## The methods") : README.index("### A method of your own")]

    assert sorted(re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE)) == method_names()


def test_every_space_that_comes_with_it_is_valid():
    spaces = sorted((ROOT / "search_spaces").glob("*.yaml"))

    assert spaces
    for path in spaces:
        load_space(path)
