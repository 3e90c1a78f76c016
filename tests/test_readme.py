"""What the README says is true."""

import re
from pathlib import Path

import yaml

from lrsearch.methods import method_names
from lrsearch.space import load_space, parse_space

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_its_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope = {}

    for block in blocks("python"):
        exec(block, scope)

    example = scope["torch"].randn(2, 3, 64, 64)
    expected, rebuilt = scope["result"].model(example), scope["again"](example)
    scope["torch"].testing.assert_close(rebuilt, expected)
    cr_p, cr_f = map(float, capsys.readouterr().out.split())
    assert 50 <= cr_f < 51 and cr_p > 0


def test_its_space_is_the_one_a_newcomer_runs():
    (block,) = blocks("yaml")

    assert parse_space(yaml.safe_load(block)) == load_space(ROOT / "search_spaces" / "digits.yaml")


def test_ci_runs_its_test_command_verbatim():
    commands = blocks("")[0].splitlines()

    assert commands[1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_its_table_names_every_method():
    table = README[README.index("## The methods") : README.index("## In Python")]

    assert sorted(re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE)) == method_names()


def test_every_space_that_comes_with_it_is_valid():
    spaces = sorted((ROOT / "search_spaces").glob("*.yaml"))

    assert spaces
    for path in spaces:
        load_space(path)
