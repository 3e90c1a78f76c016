"""The main job as a newcomer runs it: one command on the embedded digits, and a front worth having."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lrsearch(*arguments, cwd):
    command = [sys.executable, "-m", "lrsearch.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_search_on_digits_finds_much_smaller_networks_as_good_as_the_dense_one(tmp_path):
    output = lrsearch("search", ROOT / "search_spaces" / "digits.yaml", cwd=tmp_path)

    assert "[24/24]" in output
    assert output.splitlines()[-1] == "next: lrsearch ui digits"
    dense, *front = json.loads(lrsearch("front", "digits", "--format", "json", cwd=tmp_path))
    assert dense["test_accuracy"] >= 98
    small = [row for row in front if row["cr_p"] >= 60]
    assert max(row["test_accuracy"] for row in small) >= dense["test_accuracy"] - 1
    assert all(row["accuracy_drop"] <= 5 for row in front)
    status = json.loads(lrsearch("status", "digits", "--format", "json", cwd=tmp_path))
    assert (status["trials"], status["finished"], status["running"]) == (24, 24, 0)
    methods = {
        r.parent.name: json.loads(r.read_text())["method"] for r in tmp_path.glob("*/digits/trials/*/recipe.json")
    }
    assert len(methods) == 24 and set(methods.values()) == {"alds", "tucker"}
    saved = tmp_path / "lrsearch_runs" / "digits" / "trials" / str(front[0]["number"])
    evaluated = json.loads(lrsearch("evaluate", saved, "--data", "digits", "--format", "json", cwd=tmp_path))
    assert evaluated["accuracy"] == pytest.approx(front[0]["test_accuracy"])
