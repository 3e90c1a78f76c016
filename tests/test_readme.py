"""What the README says is true: each of its code blocks runs, from the README's own text.

Blocks of the section on clusters want several machines, and have a test of their own.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import pytest
import typer
import yaml

from lrsearch.cli.app import app
from lrsearch.methods import method_names
from lrsearch.space import load_space, parse_space
from tests.test_cli import lrsearch
from tests.tracking.mlflow_ui import fetch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CLUSTER = "On many machines"
BRIEFER = {"48": "25", "retrain.epochs=20": "retrain.epochs=5"}
"""What stands for words of commands that take minutes as they are."""
_PARTS = re.compile(
    r"^##+ (?P<section>[^\n]*)|(?:<!-- file: (?P<name>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```",
    flags=re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A code block; a comment before it may name the file that it is the content of."""

    section: str
    name: str
    language: str
    text: str

    def runs(self):
        """The commands of a console, each with the output that is shown for it."""
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield shlex.split(command), output


def blocks():
    section = ""
    for part in _PARTS.finditer(README):
        section = part["section"] or section
        if part["text"] is not None:
            yield Block(section, part["name"] or "", part["language"], part["text"])


BLOCKS = [block for block in blocks() if block.section != CLUSTER]
FILES = {block.name: block.text for block in BLOCKS if block.name}
CONSOLE = [block for block in BLOCKS if block.language == "console"]
PYTHON = [block.text for block in BLOCKS if block.language == "python" and not block.name]
(TWO_COMMANDS,) = (block.text.splitlines() for block in BLOCKS if block.section == "Two commands")
(SPACE,) = (block.text for block in BLOCKS if block.section == "The space file")


def test_every_block_runs():
    """Files are used by the tour's commands, which, the Python and the two commands run; the space is the first's."""
    run = [*FILES.values(), *(block.text for block in CONSOLE), *PYTHON, "\n".join([*TWO_COMMANDS, ""]), SPACE]

    assert sorted(run) == sorted(block.text for block in BLOCKS)
    assert len(list(blocks())) == README.count("\n```") / 2
    for block in CONSOLE:
        assert {command[0] for command, _ in block.runs()} <= {"lrsearch", "pip"}


def test_its_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope = {}

    for block in PYTHON:
        exec(block, scope)

    example = scope["torch"].randn(2, 3, 64, 64)
    expected, rebuilt = scope["result"].model(example), scope["again"](example)
    scope["torch"].testing.assert_close(rebuilt, expected)
    cr_p, cr_f = map(float, capsys.readouterr().out.split())
    assert 50 <= cr_f < 51 and cr_p > 0


def test_its_space_is_the_one_a_newcomer_runs():
    assert parse_space(yaml.safe_load(SPACE)) == load_space(ROOT / "search_spaces" / "digits.yaml")


def test_ci_runs_its_test_command_verbatim():
    assert TWO_COMMANDS[1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_its_commands_have_the_options_that_it_gives_them():
    shown = [line for block in blocks() if not block.language for line in block.text.splitlines()]
    commands = [shlex.split(line.split("&&")[-1], comments=True) for line in shown]
    commands += [command for block in CONSOLE for command, _ in block.runs()]
    verbs = typer.main.get_command(app).commands

    ours = [command[1:] for command in commands if command[:1] == ["lrsearch"]]

    assert len(ours) >= 15
    for verb, *rest in ours:
        verbs[verb].make_context(verb, rest)


def test_its_table_of_commands_names_every_verb():
    table = README[README.index("## The commands") : README.index("## The space file")]

    assert set(re.findall(r"^\| `lrsearch (\w+)", table, re.MULTILINE)) == set(typer.main.get_command(app).commands)


def start(command, cwd):
    """Start a command of the README as in an environment of its own in which lrsearch is installed."""
    program = {"lrsearch": ["-m", "lrsearch.cli"], "pip": ["-m", "pip", "-q"]}[command[0]]
    arguments = command[1:]
    if arguments[0] == "install":
        arguments += ["--no-deps", "--no-index", "--no-build-isolation", "--target", "site"]
    paths = os.pathsep.join([str(cwd / "site"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "80", "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, *program, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def run(command, cwd):
    """What a command says; what starts Ray or needs an installed package runs in a process of its own."""
    verbs = {"front", "table", "report", "export", "compress"}
    if command[0] == "lrsearch" and (command[1] in verbs or "--dry-run" in command) and not (cwd / "site").exists():
        done = lrsearch(*command[1:], cwd=cwd)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout
    process = start(command, cwd)
    output, errors = process.communicate(timeout=900)
    assert process.returncode == 0, (command, errors)
    return output


def serve(command, cwd):
    """Start the MLflow UI, look at the page that it is said to have, and stop it as one does at a keyboard."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with start([*command, "--port", str(port)], cwd) as server:
        said = [server.stdout.readline() for _ in range(2)]
        address, front = f"http://127.0.0.1:{port}", said[1].split()[-1]
        try:
            fetch(f"{address}/version", patience=90)
            query = urlencode({"path": "front/pareto.html", "run_uuid": front.split("/runs/")[1].split("/")[0]})
            assert front.startswith(address) and b"knee of the front" in fetch(f"{address}/get-artifact?{query}")
        finally:
            os.killpg(server.pid, signal.SIGINT)
            server.communicate(timeout=30)
    return "".join(said)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """A folder in which the README's first command was run and its files are, and what was said there then."""
    folder = tmp_path_factory.mktemp("newcomer")
    shutil.copytree(ROOT / "search_spaces", folder / "search_spaces")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    install, search = TWO_COMMANDS[0].split(" && ")
    assert install == "pip install -e ."  # which CI does, with more
    said = run(shlex.split(search), folder)
    verbs = ("front", "status")
    return folder, said, *(json.loads(lrsearch(v, "digits", "--format", "json", cwd=folder).stdout) for v in verbs)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_its_first_command_finds_much_smaller_networks_as_good_as_the_dense_one(newcomer):
    folder, said, (dense, *front), status = newcomer

    assert "[24/24]" in said
    assert said.splitlines()[-1] == "next: lrsearch ui digits"
    assert dense["test_accuracy"] >= 98
    small = [row for row in front if row["cr_p"] >= 60]
    assert max(row["test_accuracy"] for row in small) >= dense["test_accuracy"] - 1
    assert all(row["accuracy_drop"] <= 5 for row in front)
    assert (status["trials"], status["finished"], status["running"]) == (24, 24, 0)
    recipes = folder.glob("*/digits/trials/*/recipe.json")
    assert {json.loads(recipe.read_text())["method"] for recipe in recipes} == {"alds", "tucker"}
    saved = f"digits:{front[0]['number']}"
    evaluated = json.loads(lrsearch("evaluate", saved, "--data", "digits", "--format", "json", cwd=folder).stdout)
    assert evaluated["accuracy"] == pytest.approx(front[0]["test_accuracy"])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_its_tour_is_what_happens(newcomer):
    folder = newcomer[0]

    for block in CONSOLE:
        for command, output in block.runs():
            command = [BRIEFER.get(word, word) for word in command]
            said = (serve if command[1] == "ui" else run)(command, folder)
            first, shown = (text.split("\n")[0].split() for text in (said, output))
            # A table has the columns that are shown; a sentence begins as it does there.
            assert first == shown if "%" in output else first[:2] == shown[:2] or not shown, (command, said)


def test_its_table_names_every_method():
    table = README[README.index("## The methods") : README.index("### What each is good for")]

    assert sorted(re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE)) == method_names()


def test_every_space_that_comes_with_it_is_valid():
    spaces = sorted((ROOT / "search_spaces").glob("*.yaml"))

    assert spaces
    for path in spaces:
        load_space(path)
