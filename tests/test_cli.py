"""The front door: what a person types, right and wrong, and what comes back."""

import io
import json
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout

import pytest
import torch

from lrsearch.cli import main
from lrsearch.files import write_json
from lrsearch.models import build_model
from lrsearch.observer import SweepInfo
from lrsearch.persistence import rebuild, save_weights
from lrsearch.sweep.store import SweepStore
from tests.sweep.simulator import make_space, open_session, simulate

SPACE = "model: {name: digits_mlp}\ndata: {name: digits}\nmethods: {alds: {}}\n"


def lrsearch(*arguments, cwd):
    """Run a command in this process, where PyTorch is imported already."""
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["lrsearch", *map(str, arguments)])
        patch.setattr(sys, "path", [*sys.path])  # which a command may add its folder to
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


def in_a_process_of_its_own(*arguments, cwd):
    command = [sys.executable, "-m", "lrsearch.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)


def refused(*arguments, cwd):
    """Run a command that must fail with one sentence on stderr, and return the sentence."""
    done = lrsearch(*arguments, cwd=cwd)
    assert done.returncode == 1, done
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0]


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture
def finished_sweep(tmp_path):
    session = open_session(make_space(trials=6), tmp_path / "lrsearch_runs")
    while spec := session.next_trial():
        simulate(spec, session.store.trial(spec.number))
        session.trial_ended(spec.number, worker_died=False)
    return session


def test_help_is_quick(tmp_path):
    in_a_process_of_its_own("--help", cwd=tmp_path)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = in_a_process_of_its_own("--help", cwd=tmp_path)
        seconds.append(time.perf_counter() - started)

    for verb in ("search", "resume", "status", "front", "ui", "compress", "measure", "evaluate"):
        assert verb in done.stdout
    assert min(seconds) < 1.5, "a heavy library is imported before it is needed"


def test_help_and_reading_import_nothing_heavy(tmp_path, finished_sweep):
    code = (
        "import sys; sys.argv = {argv}\n"
        "from lrsearch.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    )
    heavy = ["torch", "ray", "mlflow", "plotly", "sklearn", "pandas"]
    for argv, allowed in (
        (["lrsearch", "--help"], []),
        (["lrsearch", "front", "sim"], []),
        (["lrsearch", "status"], []),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.format(argv=argv, heavy=heavy)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.stderr.strip() == str(allowed), (argv, done.stderr)


def test_compress_imports_nothing_that_it_does_without(tmp_path):
    command = "lrsearch compress --model digits_mlp --data digits --budget params=0.5 --out o"
    code = (
        f"import sys; sys.argv = {command.split()}\n"
        "from lrsearch.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "print([m for m in ('ray', 'optuna', 'mlflow', 'torchvision', 'sklearn') if m in sys.modules], file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)

    assert done.stderr.splitlines()[-1] == "[]"


def test_dry_run_shows_the_space_and_a_trial_of_each_method(tmp_path, space):
    done = lrsearch("search", space, "--dry-run", "--set", "search.seed=7", "--trials", 3, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "seed: 7" in done.stdout and "trials: 3" in done.stdout
    assert "alds:" in done.stdout.split("# one trial of each method")[1]
    assert not (tmp_path / "lrsearch_runs").exists()


def test_front_as_json_has_the_promised_keys_dense_first(tmp_path, finished_sweep):
    rows = json.loads(lrsearch("front", "sim", "--format", "json", cwd=tmp_path).stdout)

    promised = "number state method params flops cr_p cr_f accuracy accuracy_drop throughput speedup seconds pareto"
    for row in rows:
        assert list(row)[:13] == promised.split()
    assert rows[0]["method"] == "dense" and rows[0]["number"] is None
    assert all(row["pareto"] for row in rows[1:])
    assert [row["number"] for row in rows[1:]] == [
        r.number for r in sorted(finished_sweep.records, key=lambda r: -r.accuracy) if r.pareto
    ]


def test_front_as_csv_and_as_a_table_of_80_columns(tmp_path, finished_sweep):
    csv_lines = lrsearch("front", "sim", "--format", "csv", cwd=tmp_path).stdout.splitlines()
    table = lrsearch("front", "sim", cwd=tmp_path).stdout.splitlines()

    assert csv_lines[0].startswith("number,state,method,params,flops")
    assert len(csv_lines) == len(table)
    assert "speed-up" in table[0] and "dense" in table[1]
    assert all("tucker" in line or "alds" in line or "dense" in line for line in table[1:])
    assert max(map(len, table)) <= 80


@pytest.mark.parametrize("name", ["front.png", "pictures/front.svg", "front.pdf"])
def test_front_as_a_picture(tmp_path, finished_sweep, name):
    done = lrsearch("front", "sim", "--plot", name, cwd=tmp_path)

    assert done.stdout == f"wrote {name}\n", done.stderr
    beginning = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[(tmp_path / name).suffix]
    assert (tmp_path / name).read_bytes().startswith(beginning)


def test_delta_table_in_every_form(tmp_path, finished_sweep):
    rows = json.loads(lrsearch("table", "sim", "--drops", "1,50", "--format", "json", cwd=tmp_path).stdout)
    assert [row["drop"] for row in rows[:2]] == [1.0, 50.0]
    csv_lines = lrsearch("table", "sim", "--drops", "1,50", "--format", "csv", cwd=tmp_path).stdout.splitlines()
    assert csv_lines[0].startswith("method,drop,trial") and len(csv_lines) == len(rows) + 1
    assert r"\begin{tabular}" in lrsearch("table", "sim", "--format", "latex", cwd=tmp_path).stdout
    assert all(len(line) <= 80 for line in lrsearch("table", "sim", cwd=tmp_path).stdout.splitlines())
    done = lrsearch("table", "sim", "--plot", "pictures/curves.svg", cwd=tmp_path)
    assert "wrote pictures/curves.svg" in done.stdout and "alds" in (tmp_path / "pictures/curves.svg").read_text()


def test_report_is_one_page(tmp_path, finished_sweep):
    done = lrsearch("report", "sim", "--out", "pages/sim.html", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    page = (tmp_path / "pages" / "sim.html").read_text()
    assert "knee of the front" in page and "Plotly" in page


def test_a_report_does_without_an_mlflow_that_is_away(tmp_path, finished_sweep):
    write_json(finished_sweep.store.folder / "tracking.json", {"uri": "http://127.0.0.1:9"})
    done = lrsearch("report", "sim", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "knee of the front" in (tmp_path / "report.html").read_text()


def test_status_as_json(tmp_path, finished_sweep):
    one = json.loads(lrsearch("status", "sim", "--format", "json", cwd=tmp_path).stdout)
    every = json.loads(lrsearch("status", "--format", "json", cwd=tmp_path).stdout)

    assert every == [one]
    keys = {"name", "trials", "finished", "failed", "pruned", "running", "front_size", "hypervolume"}
    assert keys <= one.keys()
    assert (one["trials"], one["finished"], one["running"]) == (6, 6, 0)


def test_status_says_what_to_do_next(tmp_path, finished_sweep):
    assert "next" not in lrsearch("status", cwd=tmp_path).stdout
    open_session(make_space(trials=5), tmp_path / "elsewhere", name="half").next_trial()

    told = lrsearch("status", "--storage", "elsewhere", cwd=tmp_path).stdout
    assert "5 trials of half are left; next: lrsearch resume half --storage elsewhere" in told
    told = lrsearch("front", "half", "--storage", "elsewhere", cwd=tmp_path).stdout
    assert "no network of half is on the front yet" in told
    told = lrsearch("status", "--storage", "nowhere", cwd=tmp_path).stdout
    assert "no sweeps in nowhere; next: lrsearch search SPACE.yaml --storage nowhere" in told


def test_a_trial_of_a_sweep_is_measured_and_evaluated_by_its_name(tmp_path, finished_sweep):
    model = "{name: digits_mlp, width: 16}"
    lrsearch("compress", "--model", model, "--budget", "params=0.5", "--out", "o", cwd=tmp_path)
    number = next(record.number for record in finished_sweep.records)
    shutil.copytree(tmp_path / "o", finished_sweep.store.trial(number), dirs_exist_ok=True)

    for verb, *options in (["measure"], ["evaluate", "--data", "digits"]):
        by_name, by_folder = (
            json.loads(lrsearch(verb, network, *options, "--format", "json", cwd=tmp_path).stdout)
            for network in (f"sim:{number}", "o")
        )
        assert by_name.get("params") == by_folder.get("params")
        assert by_name.get("accuracy") == by_folder.get("accuracy")


def test_confirm_as_json_says_nothing_else_on_stdout(tmp_path, finished_sweep, monkeypatch):
    def repeated(space, store, seeds, observers, address, watch):
        observers[-1].sweep_started(SweepInfo("sim", store.folder, 6, 0, 1, {}, {}))

    monkeypatch.setattr("lrsearch.sweep.confirm.confirm_front", repeated)
    done = lrsearch("confirm", "sim", "--format", "json", cwd=tmp_path)

    assert done.stdout == lrsearch("front", "sim", "--format", "json", cwd=tmp_path).stdout
    assert "6 trials" in done.stderr


def test_tables_have_colour_in_a_terminal_and_none_in_a_pipe(tmp_path, finished_sweep, monkeypatch):
    assert "\x1b" not in lrsearch("front", "sim", cwd=tmp_path).stdout
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[1m" in lrsearch("front", "sim", cwd=tmp_path).stdout


def test_compress_measure_evaluate(tmp_path):
    done = lrsearch(
        *("compress", "--model", "{name: digits_resnet, width: 8}", "--data", "digits"),
        *("--method", "alds", "--budget", "params=0.5", "--set", "max_subspaces=2", "--out", "small"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "small").iterdir()} == {
        "recipe.json",
        "weights.safetensors",
        "report.json",
    }
    report = json.loads((tmp_path / "small" / "report.json").read_text())
    assert 45 < report["cr_p"] <= 100 and report["params"] <= 0.5 * report["dense_params"]

    measured = json.loads(lrsearch("measure", "small", "--format", "json", cwd=tmp_path).stdout)
    assert measured["params"] == report["params"] and measured["flops"] == report["flops"]
    assert measured["throughput"] > 0

    evaluated = json.loads(lrsearch("evaluate", "small", "--data", "digits", "--format", "json", cwd=tmp_path).stdout)
    assert evaluated["accuracy"] == pytest.approx(report["accuracy"])


def test_apply_rebuilds_a_recipe_on_the_weights_given(tmp_path):
    torch.manual_seed(3)
    dense = build_model({"name": "digits_mlp", "width": 16})
    save_weights(dense, tmp_path / "dense.safetensors")
    trained = ("--weights", "dense.safetensors", "--format", "json")
    made = lrsearch(
        *("compress", "--model", "{name: digits_mlp, width: 16}", "--method", "svd", "--budget", "params=0.5"),
        *("--out", "made", *trained),
        cwd=tmp_path,
    )

    assert not made.stderr and "random weights" in lrsearch("apply", "made", "--out", "o", cwd=tmp_path).stderr
    for recipe in ("made", "made/recipe.json"):
        applied = lrsearch("apply", recipe, *trained, "--out", "again", cwd=tmp_path)

        assert json.loads(applied.stdout)["params"] == json.loads(made.stdout)["params"]
        images = torch.randn(4, 1, 8, 8)
        torch.testing.assert_close(rebuild(tmp_path / "again")(images), rebuild(tmp_path / "made")(images))


def test_export_loads_where_lrsearch_is_not_installed(tmp_path):
    model = "{name: digits_mlp, width: 16}"
    lrsearch("compress", "--model", model, "--budget", "params=0.5", "--out", "o", cwd=tmp_path)

    done = lrsearch("export", "o", "--out", "plain", cwd=tmp_path)

    assert done.returncode == 0 and "wrote plain" in done.stdout, done.stderr
    program = (
        "import sys; sys.modules['lrsearch'] = None; import torch; from model import load;"
        "print(load()(torch.zeros(3, 1, 8, 8)).shape)"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path / "plain", capture_output=True, text=True)
    assert run.stdout.strip() == "torch.Size([3, 10])", run.stderr


def test_measure_of_a_named_model(tmp_path):
    measured = json.loads(lrsearch("measure", "--model", "digits_mlp", "--format", "json", cwd=tmp_path).stdout)

    assert measured["cr_p"] == 0 and measured["params"] == measured["dense_params"]


WRONG = {
    "unknown key": (["search", "space.yaml", "--set", "retrian.epochs=3"], ["retrian", "'retrain'"]),
    "setting without value": (["search", "space.yaml", "--set", "retrain.epochs"], ["--set", "key=value"]),
    "missing file": (["search", "spaec.yaml"], ["spaec.yaml", "No such file"]),
    "unknown method": (
        ["compress", "--model", "digits_mlp", "--method", "aldss", "--out", "o"],
        ["aldss", "'alds'"],
    ),
    "unknown model": (["compress", "--model", "digits_mpl", "--out", "o"], ["digits_mpl", "'digits_mlp'"]),
    "unknown data": (
        ["compress", "--model", "digits_mlp", "--data", "digit", "--out", "o"],
        ["'digit'", "'digits'"],
    ),
    "unknown split": (["evaluate", ".", "--data", "digits"], ["recipe.json"]),
    "unreachable budget": (
        ["compress", "--model", "digits_mlp", "--budget", "params=0.0001", "--out", "o"],
        ["0.0001", "smallest"],
    ),
    "budget out of range": (
        ["compress", "--model", "digits_mlp", "--budget", "params=1.5", "--out", "o"],
        ["1.5"],
    ),
    "budget of nothing": (
        ["compress", "--model", "digits_mlp", "--budget", "params", "--out", "o"],
        ["--budget"],
    ),
    "unknown resource": (
        ["compress", "--model", "digits_mlp", "--budget", "parms=0.5", "--out", "o"],
        ["parms"],
    ),
    "unknown sweep": (["resume", "nothing"], ["'nothing'"]),
    "front of an unknown sweep": (["front", "nothing"], ["'nothing'"]),
    "name with a slash": (["search", "space.yaml", "--name", "a/b"], ["'a/b'"]),
    "name that climbs": (["front", "../x"], ["'../x'"]),
    "storage that is a file": (
        ["search", "space.yaml", "--storage", "space.yaml"],
        ["storage", "space.yaml"],
    ),
    "storage elsewhere": (
        ["search", "space.yaml", "--storage", "ftp://host/x"],
        ["ftp://host/x", "folder"],
    ),
    "time without unit": (["search", "space.yaml", "--time-budget", "5"], ["--time-budget", "2h"]),
    "unknown objective": (["front", "sim", "--objectives", "acuracy"], ["acuracy"]),
    "missing imagefolder": (
        ["compress", "--model", "digits_mlp", "--data", "{name: imagefolder, root: nowhere}", "--out", "o"],
        ["nowhere"],
    ),
    "missing weights": (
        ["compress", "--model", "digits_mlp", "--weights", "none.pt", "--out", "o"],
        ["none.pt"],
    ),
    "weights that are no weights": (
        ["compress", "--model", "digits_mlp", "--weights", "space.yaml", "--out", "o"],
        ["space.yaml"],
    ),
    "export of an unknown trial": (["export", "sim:99", "--out", "o"], ["'99'", "expected one of"]),
    "export to nowhere": (["export", "sim"], ["expected --out", "mlflow"]),
    "export of a registered model to a folder": (
        ["export", "sim", "--register", "m", "--out", "o"],
        ["expected --out", "--register"],
    ),
    "models of runs that MLflow does not have": (["export", "sim", "--format", "mlflow"], ["lrsearch resume sim"]),
    "export of an unknown sweep": (["export", "nothing", "--out", "o"], ["'nothing'"]),
    "drops that are no numbers": (["table", "sim", "--drops", "a"], ["--drops", "'a'"]),
    "a picture of no known kind": (["table", "nothing", "--plot", "a.doc"], ["a.doc", ".png"]),
    "report of an unknown sweep": (["report", "nothing"], ["'nothing'"]),
    "recipe of another network": (["apply", "rank1", "--model", "digits_mlp", "--out", "o"], ["no layer 'stem'"]),
    "recipe that is none": (["apply", "space.yaml", "--out", "o"], ["space.yaml", "not valid"]),
    "recipe without a network": (["apply", "nameless.json", "--out", "o"], ["nameless.json", "--model"]),
    "folder without recipe": (["measure", "."], ["recipe.json"]),
    "nothing to measure": (["measure"], ["--model"]),
    "input of another shape": (["measure", "--model", "digits_mlp", "--input", "3,32,32"], ["(1, 3, 32, 32)"]),
    "export for inputs of another shape": (["export", "o", "--input", "3,32,32", "--out", "p"], ["(1, 3, 32, 32)"]),
    "data of another shape": (["evaluate", "o", "--data", "wide:data"], ["(1, 1, 9, 9)"]),
    "export into a file": (["export", "o", "--out", "space.yaml/p"], ["--out space.yaml/p cannot be written"]),
    "export over a folder": (["export", "o", "--format", "onnx", "--out", "rank1"], ["--out rank1", "a directory"]),
    "an empty space": (["search", "empty.yaml"], ["empty.yaml", "got nothing"]),
    "misspelled distribution": (
        ["search", "space.yaml", "--set", "methods.alds.budget.params={unifrom: [0.1, 0.8]}"],
        ["alds.budget.params", "'unifrom'", "did you mean 'uniform'?"],
    ),
    "tracking server that is away": (
        ["search", "space.yaml", "--tracking-uri", "http://127.0.0.1:9"],
        ["http://127.0.0.1:9", "another address as --tracking-uri"],
    ),
}


WIDE = """
import torch
from torch.utils.data import TensorDataset
from lrsearch.data import Splits

def data():
    items = TensorDataset(torch.zeros(4, 1, 9, 9), torch.zeros(4, dtype=torch.long))
    return Splits("wide", items, items, items, items, classes=10)
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A compressed network."""
    folder = tmp_path_factory.mktemp("small")
    lrsearch("compress", "--model", "digits_mlp", "--budget", "params=0.5", "--out", "o", cwd=folder)
    return folder / "o"


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_gets_one_sentence(tmp_path, space, finished_sweep, small, mistake):
    arguments, words = WRONG[mistake]
    (tmp_path / "o").symlink_to(small)
    (tmp_path / "wide.py").write_text(WIDE)
    (tmp_path / "empty.yaml").write_text("")
    layer = {"stem": {"kind": "svd", "ranks": [1]}}
    write_json(tmp_path / "rank1" / "recipe.json", {"architecture": {"name": "s"}, "method": "svd", "layers": layer})
    write_json(tmp_path / "nameless.json", {"method": "svd", "layers": layer})

    sentence = refused(*arguments, cwd=tmp_path)

    for word in words:
        assert word in sentence


def test_tracking_server_that_is_away_is_not_remembered(tmp_path, space):
    refused("search", space, "--tracking-uri", "http://127.0.0.1:9", cwd=tmp_path)

    assert not list(tmp_path.rglob("tracking.json"))


def test_changed_space_under_the_same_name_is_refused_with_the_difference(tmp_path, space):
    from lrsearch.space import load_space

    open_session(load_space(space), tmp_path / "lrsearch_runs", name="space").next_trial()

    sentence = refused("search", space, "--set", "retrain.epochs=9", "--set", "train.lr=0.5", cwd=tmp_path)

    assert "retrain.epochs: null -> 9" in sentence and "train.lr" in sentence
    assert "lrsearch resume space" in sentence


def test_space_that_could_not_start_may_be_corrected_under_the_same_name(tmp_path, space, monkeypatch):
    ran = []
    monkeypatch.setattr("lrsearch.sweep.run.run_sweep", lambda space, *_: ran.append(space.retraining().epochs))
    from lrsearch.space import load_space

    open_session(load_space(space), tmp_path / "lrsearch_runs", name="space")

    lrsearch("search", space, "--set", "retrain.epochs=9", cwd=tmp_path)

    assert ran == [9]
    store = SweepStore(tmp_path / "lrsearch_runs", "space")
    assert store.load_space().retraining().epochs == 9 and not store.journal.exists()


def test_second_driver_is_refused(tmp_path, space):
    from lrsearch.space import load_space

    store = SweepStore(tmp_path / "lrsearch_runs", "space")
    store.create()
    store.save_space(load_space(space))

    with store.lock():
        sentence = refused("resume", "space", cwd=tmp_path)

    assert "already being run by process" in sentence


def test_damaged_study_is_named(tmp_path, finished_sweep):
    journal = finished_sweep.store.journal
    journal.write_bytes(b"garbage\n" + journal.read_bytes())

    for verb in ("resume", "front", "status"):
        assert "study.journal is damaged at line 1" in refused(verb, "sim", cwd=tmp_path)


def test_damaged_weights_are_named(tmp_path):
    lrsearch("compress", "--model", "digits_mlp", "--budget", "params=0.5", "--out", "o", cwd=tmp_path)
    (tmp_path / "o" / "weights.safetensors").write_bytes(b"\x00" * 64)

    assert "weights.safetensors" in refused("measure", "o", cwd=tmp_path)


def test_debug_shows_the_traceback(tmp_path):
    done = in_a_process_of_its_own("--debug", "front", "nothing", cwd=tmp_path)

    assert done.returncode == 1 and "Traceback" in done.stderr
