"""What a shell offers while a command is typed."""

import os
import subprocess
import sys

import pytest

from lrsearch.files import write_json
from lrsearch.methods import method_names


@pytest.fixture
def home(tmp_path):
    """A home with a program ``lrsearch`` and two sweeps, one of them stored elsewhere."""
    program = tmp_path / "bin" / "lrsearch"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m lrsearch.cli "$@"\n')
    program.chmod(0o755)
    for folder in ("lrsearch_runs/digits", "elsewhere/cifar"):
        write_json(tmp_path / folder / "space.json", {})
    return tmp_path


def bash(home, script, **variables):
    environment = {**os.environ, "HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}", **variables}
    done = subprocess.run(["bash", "-c", script], cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_installed_completion_offers_verbs_sweeps_and_methods(home):
    bash(home, "lrsearch --install-completion bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")

    def offered(*words):
        typed = " ".join(f"'{word}'" for word in words)
        script = f". ~/.bashrc; COMP_WORDS=({typed}) COMP_CWORD={len(words) - 1}; _lrsearch_completion lrsearch"
        return bash(home, f'{script}; echo "${{COMPREPLY[@]}}"')

    assert offered("lrsearch", "co") == ["confirm", "compress"]
    assert offered("lrsearch", "front", "") == ["digits"]
    assert offered("lrsearch", "status", "--storage", "elsewhere", "") == ["cifar"]
    assert offered("lrsearch", "export", "x") == []
    assert offered("lrsearch", "compress", "--method", "alds_") == [n for n in method_names() if n.startswith("alds_")]
    assert offered("lrsearch", "front", "digits", "--format", "j") == ["json"]


def test_completing_is_quick():
    code = (
        "import sys; from lrsearch.cli.completion import complete_method; import lrsearch.cli\n"
        "assert complete_method('tuck') == ['tucker']\n"
        "assert not {'torch', 'ray', 'mlflow'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
