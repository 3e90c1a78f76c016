"""A trial runs without Ray, Optuna or MLflow, says what it does, and goes on where it was stopped."""

import json
import multiprocessing
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import lrsearch
from lrsearch import rebuild
from lrsearch.data import load_data
from lrsearch.dense import DenseSpec, Workplace, load_dense_model, load_dense_record, prepare_dense
from lrsearch.errors import BudgetUnreachableError, LrsearchError, TrialFailedError
from lrsearch.files import replacing
from lrsearch.measure.cost import count_cost
from lrsearch.measure.deployment import Deployment
from lrsearch.measure.gate import DeviceGate
from lrsearch.measure.throughput import Throughput
from lrsearch.methods.alds import Alds
from lrsearch.methods.base import Task
from lrsearch.models import build_model
from lrsearch.outcome import failure_reason, read_result
from lrsearch.persistence import read_weights
from lrsearch.pipeline import Pipeline
from lrsearch.recipe import Recipe
from lrsearch.record import LAYERS
from lrsearch.sweep.store import storage_folder
from lrsearch.training import Retraining, RetrainingConfig, TrainingConfig, read_history, train
from lrsearch.training.distillation import distil_layers, distil_logits
from lrsearch.trial import evaluate_test, run_trial
from lrsearch.trial_spec import TrialSpec

MODEL = {"name": "digits_resnet", "width": 8}
DATA = {"name": "tests.generated:images", "shape": [1, 8, 8], "classes": 10, "shifted": True}
CPU = torch.device("cpu")
HERE = Workplace(deployment=Deployment(batch_size=16), seconds=0.1)


@pytest.fixture(scope="module")
def dense_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    config = TrainingConfig(epochs=2).model_dump(mode="json")
    spec = DenseSpec(MODEL, DATA, config, 0, HERE)
    reports = list(prepare_dense(spec, folder))
    assert [(report.stage, report.done, report.total) for report in reports] == [("retrain", 1, 2), ("retrain", 2, 2)]
    return folder


@pytest.fixture(scope="module")
def plan(dense_folder, tmp_path_factory):
    return TrialSpec(
        number=0,
        method="alds",
        hyperparameters={"budget": {"params": 0.5}},
        model=MODEL,
        data=DATA,
        retrain=TrainingConfig(epochs=3, lr=0.02).model_dump(mode="json"),
        seed=7,
        workplace=HERE,
        dense_folder=str(shutil.copytree(dense_folder, tmp_path_factory.mktemp("plan") / "network")),
        cache_folder=str(tmp_path_factory.mktemp("cache")),
    )


@pytest.fixture
def spec(plan, dense_folder, tmp_path):
    dense = shutil.copytree(dense_folder, tmp_path / "network")
    return replace(plan, dense_folder=str(dense), cache_folder=str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def whole(plan, tmp_path_factory):
    """Folder of a trial that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    list(run_trial(plan, folder))
    return folder


def weights(folder):
    return rebuild(folder).state_dict()


def assert_same_weights(one, other):
    for key, value in weights(one).items():
        torch.testing.assert_close(value, weights(other)[key], rtol=0, atol=0)


def test_dense_network_is_trained_once(dense_folder):
    written = (dense_folder / "weights.safetensors").stat().st_mtime_ns
    spec = DenseSpec(MODEL, DATA, {}, 0, HERE)

    assert list(prepare_dense(spec, dense_folder)) == []
    assert (dense_folder / "weights.safetensors").stat().st_mtime_ns == written


def test_a_teacher_is_prepared_first_and_taught_from(tmp_path):
    """The same as training one network after the other by hand."""
    plain = TrainingConfig(epochs=1).model_dump(mode="json")
    teacher = MODEL | {"width": 6}
    train_too = plain | {"distil": {"teacher": teacher, "weight": 0.5, "temperature": 2.0}}
    spec = DenseSpec(MODEL, DATA, train_too, 3, HERE)
    assert [report.total for report in prepare_dense(spec, tmp_path / "taught")] == [1, 1]
    assert list(prepare_dense(spec, tmp_path / "taught")) == []

    list(prepare_dense(replace(spec, model=teacher, train=plain), tmp_path / "teacher"))
    master = load_dense_model(teacher, tmp_path / "teacher", CPU)
    torch.manual_seed(3)
    student = build_model(MODEL)
    lesson = Retraining(extra_loss=distil_logits(master, 0.5, 2.0))
    config, gate = TrainingConfig.model_validate(plain), DeviceGate("cpu", tmp_path / "locks")
    list(train(student, load_data(DATA), config, device=CPU, seed=3, gate=gate, retraining=lesson))

    for model, expected, folder in ((MODEL, student, "taught"), (teacher, master, "taught/teacher")):
        found = load_dense_model(model, tmp_path / folder, CPU).state_dict()
        assert all(torch.equal(value, found[key]) for key, value in expected.state_dict().items())


def test_the_key_of_a_network_holds_its_teacher_and_the_teachers_weights(tmp_path):
    weights = tmp_path / "weights.pt"
    keys = set()
    for content in (b"one", b"other"):
        weights.write_bytes(content)
        train = {"distil": {"teacher": {"name": "digits_mlp", "weights": str(weights)}}}
        keys |= {DenseSpec(MODEL, DATA, train, 0, HERE).key() for _ in range(2)}
    assert len(keys) == 2


@pytest.mark.parametrize(("weight", "layers"), [(0.0, 0.5), (1.0, 0.5)])
def test_any_method_may_keep_its_layers_close_to_the_dense_ones(spec, tmp_path, dense_folder, weight, layers):
    """The same as adding the losses by hand."""
    retrain = spec.retrain | {"epochs": 1, "distil": {"weight": weight, "layers": layers}}
    list(run_trial(replace(spec, retrain=retrain | {"epochs": 0}), tmp_path / "before"))
    list(run_trial(replace(spec, retrain=retrain), tmp_path / "after"))

    student, dense = rebuild(tmp_path / "before"), load_dense_model(MODEL, dense_folder, CPU)
    recipe = Recipe.load(tmp_path / "before" / "recipe.json")
    names = [name for name, layer in recipe.layers.items() if layer.kind != "dense"]
    lesson = Retraining(extra_loss=distil_layers(student, dense, names, layers))
    lesson = lesson.adding(distil_logits(dense, weight))
    config, gate = RetrainingConfig.model_validate(retrain), DeviceGate("cpu", tmp_path / "locks")
    list(train(student, load_data(DATA), config, device=CPU, seed=spec.seed, gate=gate, retraining=lesson))
    assert names
    found = weights(tmp_path / "after")
    for key, value in student.state_dict().items():
        torch.testing.assert_close(value, found[key])


def test_pruned_layers_have_no_dense_ones_to_stay_close_to(spec, tmp_path):
    retrain = spec.retrain | {"epochs": 1, "distil": {"layers": 0.5}}
    pruned = replace(spec, method="ft", hyperparameters={"budget": {"params": 0.5}}, retrain=retrain)
    with pytest.raises(TrialFailedError, match=r"retrain\.distil\.layers cannot compare layer '\S+' with dense"):
        list(run_trial(pruned, tmp_path))


def test_the_dense_network_teaches_where_the_retraining_says_so(spec, tmp_path):
    taught = spec.retrain | {"epochs": 1, "distil": {"weight": 1.0}}
    losses = []
    for name, retrain in (("alone", taught | {"distil": None}), ("taught", taught)):
        list(run_trial(replace(spec, retrain=retrain), tmp_path / name))
        losses.append(read_history(tmp_path / name / "checkpoint.pt")[0].loss)
    assert losses[1] > losses[0]
    assert not torch.equal(*(next(iter(weights(tmp_path / name).values())) for name in ("alone", "taught")))


@pytest.mark.slow
def test_two_processes_retrain_a_trial_together_and_go_on_after_an_interruption(tmp_path):
    """Without batch norm and augmentation as one process does; the helpers end when the trial is put aside."""
    model, data = {"name": "digits_mlp", "width": 24}, {"name": "tests.generated:images", "shape": [1, 8, 8]}
    config = TrainingConfig(epochs=1).model_dump(mode="json")
    list(prepare_dense(DenseSpec(model, data, config, 0, HERE), tmp_path / "dense"))
    alone = TrialSpec(
        number=0, method="tucker", hyperparameters={"budget": {"params": 0.6}, "freeze": "sequential"}, model=model,
        data=data, retrain=config | {"epochs": 3, "lr": 0.05, "distil": {"weight": 0.5}}, seed=1, workplace=HERE,
        dense_folder=str(tmp_path / "dense"), cache_folder=str(tmp_path / "cache"),
    )  # fmt: skip
    list(run_trial(alone, tmp_path / "alone"))
    both = replace(alone, workplace=replace(HERE, processes=2))
    trial = run_trial(both, tmp_path / "both")
    assert next(report for report in trial if report.stage == "retrain").done == 1
    trial.close()
    assert not multiprocessing.active_children()
    assert [report.done for report in run_trial(both, tmp_path / "both") if report.stage == "retrain"] == [2, 3]
    for key, value in weights(tmp_path / "alone").items():
        torch.testing.assert_close(weights(tmp_path / "both")[key], value, rtol=1e-3, atol=1e-5)


def test_speeds_on_two_kinds_of_device_are_not_compared(spec, dense_folder, tmp_path):
    elsewhere = tmp_path / "dense"
    shutil.copytree(dense_folder, elsewhere)
    record = json.loads((elsewhere / "dense.json").read_text())
    (elsewhere / "dense.json").write_text(json.dumps(record | {"device": "an abacus"}))

    resumed = DenseSpec(MODEL, DATA, {}, 0, HERE)
    for run in (
        prepare_dense(resumed, elsewhere),
        run_trial(replace(spec, dense_folder=str(elsewhere)), tmp_path / "t"),
    ):
        with pytest.raises(LrsearchError, match=r"was measured on an abacus, .* resources\.accelerator"):
            list(run)
    careless = replace(resumed, workplace=replace(HERE, compares_speed=False))
    assert list(prepare_dense(careless, elsewhere)) == []


def test_dense_key_depends_on_all_that_the_network_depends_on(tmp_path):
    spec = DenseSpec(MODEL, DATA, TrainingConfig().model_dump(mode="json"), 0, HERE)
    weights_file = tmp_path / "w.pt"
    weights_file.write_bytes(b"1")
    loaded = replace(spec, model=MODEL | {"weights": str(weights_file)})

    keys = {
        spec.key(),
        replace(spec, seed=1).key(),
        replace(spec, model=MODEL | {"width": 9}).key(),
        replace(spec, data=DATA | {"seed": 1}).key(),
        replace(spec, train=TrainingConfig(lr=0.2).model_dump(mode="json")).key(),
        loaded.key(),
    }
    assert len(keys) == 6
    assert replace(spec, workplace=Workplace("cuda", threads=2)).key() == spec.key()
    weights_file.write_bytes(b"2")
    assert loaded.key() not in keys


def test_reports_stages_and_leaves_a_result(spec, tmp_path):
    reports = list(run_trial(spec, tmp_path / "t"))

    stages = [report.stage for report in reports]
    assert stages[0] == "compress" and stages[-5:] == ["measure", "retrain", "retrain", "retrain", "done"]
    result = read_result(tmp_path / "t")
    assert result["state"] == "complete"
    assert [epoch["epoch"] for epoch in result["epochs"]] == [1, 2, 3]
    metrics, dense = result["metrics"], json.loads((tmp_path / spec.dense_folder / "dense.json").read_text())
    assert metrics["accuracy"] == result["epochs"][-1]["accuracy"]
    assert metrics["accuracy_drop"] == pytest.approx(dense["accuracy"] - metrics["accuracy"])
    assert metrics["throughput"] == pytest.approx(metrics["speedup"] * dense["throughput"])
    model = rebuild(tmp_path / "t")
    cost = count_cost(model, torch.zeros(1, 1, 8, 8))
    assert (cost.params, cost.flops) == (metrics["params"], metrics["flops"])
    assert metrics["cr_p"] == pytest.approx(100 * (1 - cost.params / dense["params"])) and metrics["cr_p"] >= 50
    provenance = result["provenance"]
    assert provenance["spec"]["seed"] == 7
    assert (provenance["torch"], provenance["lrsearch"]) == (torch.__version__, lrsearch.__version__)


def test_every_layer_of_the_recipe_is_accounted_for(spec, tmp_path, dense_folder):
    list(run_trial(replace(spec, retrain=TrainingConfig(epochs=0).model_dump(mode="json")), tmp_path))

    told = json.loads((tmp_path / LAYERS).read_text())
    recipe, dense = Recipe.load(tmp_path / "recipe.json"), load_dense_model(MODEL, dense_folder, CPU)
    assert [entry["layer"] for entry in told] == list(recipe.layers)
    saved = sum(entry["dense_params"] - entry["params"] for entry in told)
    assert saved == count_cost(dense, None).params - count_cost(rebuild(tmp_path), None).params
    for entry in told:
        assert entry["ranks"] == list(recipe.layers[entry["layer"]].ranks)
        assert 0 < entry["error"] < 1 if entry["kind"] == "svd" else entry["error"] == 0


def test_same_spec_gives_the_same_network(spec, tmp_path, whole):
    list(run_trial(spec, tmp_path / "again"))

    assert Recipe.load(tmp_path / "again" / "recipe.json") == Recipe.load(whole / "recipe.json")
    assert_same_weights(tmp_path / "again", whole)
    list(run_trial(replace(spec, seed=8), tmp_path / "other"))
    with pytest.raises(AssertionError):
        assert_same_weights(tmp_path / "other", whole)


@pytest.mark.parametrize("stage", ["compress", "measure", "retrain"])
def test_stopped_trial_goes_on_where_it_was(spec, tmp_path, stage, whole):
    stopped = run_trial(spec, tmp_path / "stopped")
    for report in stopped:
        if report.stage == stage:
            break
    stopped.close()
    recipe = tmp_path / "stopped" / "recipe.json"
    compressed = recipe.stat().st_mtime_ns if recipe.exists() else None
    measured = tmp_path / "stopped" / "measured.json"
    figures = measured.read_text() if measured.exists() else None
    torch.rand(3)  # a resumed process has another global random state

    reports = list(run_trial(spec, tmp_path / "stopped"))

    assert_same_weights(whole, tmp_path / "stopped")
    if stage != "compress":
        assert "compress" not in [report.stage for report in reports]
        assert compressed is not None and measured.read_text() == figures
    if stage == "retrain":
        assert [report.done for report in reports if report.stage == "retrain"] == [2, 3]


def test_trial_in_object_storage_goes_on_on_another_machine(spec, dense_folder, tmp_path, whole, bucket, machines):
    """It finds there all that it needs: the dense network, what trials share, and what it had done."""
    for file in dense_folder.iterdir():
        with replacing(storage_folder(bucket) / "dense" / file.name) as temporary:
            shutil.copyfile(file, temporary)

    def run():
        runs = storage_folder(bucket)
        return run_trial(replace(spec, dense_folder=str(runs / "dense"), cache_folder=str(runs / "cache")), runs / "t")

    stopped = run()
    while next(stopped).stage != "retrain":
        pass
    stopped.close()
    shutil.rmtree(tmp_path / "machines")
    machines.move_to("there")

    reports = list(run())

    assert [report.done for report in reports if report.stage == "retrain"] == [2, 3]
    assert "compress" not in [report.stage for report in reports]
    assert_same_weights(whole, storage_folder(bucket) / "t")
    machines.move_to("elsewhere")
    assert evaluate_test(spec, storage_folder(bucket) / "t") == evaluate_test(spec, whole)


def test_without_retraining_accuracy_is_that_of_the_compressed_network(spec, tmp_path):
    once = replace(spec, retrain=TrainingConfig(epochs=0).model_dump(mode="json"))

    reports = list(run_trial(once, tmp_path / "t"))

    result = read_result(tmp_path / "t")
    assert result["epochs"] == []
    assert result["metrics"]["accuracy"] == result["metrics"]["compressed_accuracy"]
    assert reports[-1].metrics == result["metrics"]


@pytest.mark.parametrize(("bound", "measured"), [({"params": 1}, False), ({"speedup": 1e6}, True)])
def test_network_that_no_training_makes_feasible_is_not_trained(spec, tmp_path, bound, measured):
    """Sizes are known before throughput is measured, throughput before training."""
    reports = list(run_trial(replace(spec, constraints=bound | {"accuracy": 100.0}), tmp_path / "t"))

    result = read_result(tmp_path / "t")
    assert result["state"] == "pruned"
    assert next(iter(bound)) in result["reason"] and "bound" in result["reason"]
    assert "retrain" not in {report.stage for report in reports}
    assert ("throughput" in result["metrics"]) == measured
    assert list(run_trial(replace(spec, constraints=bound), tmp_path / "t"))[-1].metrics == result["metrics"]


def test_statistics_are_computed_once_for_all_trials(spec, tmp_path, monkeypatch):
    list(run_trial(spec, tmp_path / "first"))
    monkeypatch.setattr("lrsearch.methods.alds.Alds.statistics", lambda *_: pytest.fail("computed again"))

    list(run_trial(replace(spec, hyperparameters={"budget": {"params": 0.3}}), tmp_path / "second"))


def test_methods_share_the_singular_values_of_one_table(spec, tmp_path, monkeypatch):
    list(run_trial(spec, tmp_path / "first"))
    spectral = "lrsearch.methods.one_shot.spectral.singular_values"
    monkeypatch.setattr(spectral, lambda *_: pytest.fail("computed again"))

    list(run_trial(replace(spec, method="alds_error"), tmp_path / "relative"))


def test_statistics_stay_on_the_cpu_whatever_the_networks_device(spec, dense_folder, tmp_path):
    """A device without data stands for a GPU: methods read numbers from statistics."""
    pipeline = Pipeline(spec, tmp_path, load_data(DATA), DeviceGate("cpu", tmp_path))
    dense = load_dense_model(MODEL, dense_folder, CPU)

    statistics = pipeline._statistics(dense, Task(device=torch.device("meta")))

    assert statistics and {tensor.device for tensor in statistics.values()} == {CPU}


def test_what_other_trials_found_changes_no_bit_of_a_trial(spec, dense_folder, tmp_path):
    fresh = replace(spec, dense_folder=str(shutil.copytree(dense_folder, tmp_path / "fresh")))
    later = {"retrain": RetrainingConfig(epochs=1, rounds=2).model_dump(mode="json")}
    for method in ("alds_plus", "svd"):
        for number, budget in enumerate((0.3, 0.7)):
            found = {"method": method, "hyperparameters": {"budget": {"params": budget}}}
            list(run_trial(replace(spec, **found), tmp_path / method / str(number)))
    assert list((Path(spec.dense_folder) / "shared").glob("svd-*.safetensors"))

    for name, one in {"shared": spec, "fresh": fresh}.items():
        list(run_trial(replace(one, **later), tmp_path / name / "t"))

    assert_same_weights(tmp_path / "shared" / "t", tmp_path / "fresh" / "t")


@pytest.fixture(scope="module")
def rounds(plan):
    """Two rounds before the last, one epoch each."""
    return replace(plan, retrain=RetrainingConfig(epochs=1, lr=0.02, rounds=3).model_dump(mode="json"))


@pytest.fixture(scope="module")
def whole_rounds(rounds, tmp_path_factory):
    """Folder of a trial whose rounds nothing stopped."""
    folder = tmp_path_factory.mktemp("rounds")
    stages = [report.stage for report in run_trial(rounds, folder)]
    assert stages.index("measure") == 15
    return folder


def test_rounds_tighten_the_budget_step_by_step(rounds, tmp_path, monkeypatch):
    folder, kept = tmp_path / "t", []
    reports = []
    for report in run_trial(rounds, folder):
        reports.append(report)
        if report.stage == "retrain" and report.done < 3:
            kept.append(count_cost(rebuild(folder / "rounds" / str(report.done)), None).params)
    dense = json.loads((tmp_path / rounds.dense_folder / "dense.json").read_text())

    result = read_result(folder)

    fractions = [params / dense["params"] for params in (*kept, result["metrics"]["params"])]
    for fraction, budget in zip(fractions, (0.5 ** (1 / 3), 0.5 ** (2 / 3), 0.5), strict=True):
        assert budget - 0.02 < fraction <= budget
    assert [(report.done, report.total) for report in reports if report.stage == "retrain"] == [(1, 3), (2, 3), (3, 3)]
    assert [report.stage for report in reports].count("measure") == 1
    assert [epoch["epoch"] for epoch in result["epochs"]] == [1, 2, 3]
    assert result["metrics"]["accuracy"] == result["epochs"][-1]["accuracy"]
    assert count_cost(rebuild(folder), None).params == result["metrics"]["params"]
    assert not (folder / "rounds").exists()


@pytest.mark.parametrize("reports", [2, 3, 6, 12, 16])
def test_rounds_killed_anywhere_end_as_if_they_had_not_been(rounds, tmp_path, whole_rounds, reports):
    stopped = run_trial(rounds, tmp_path / "stopped")
    for _ in range(reports):
        next(stopped)
    stopped.close()
    torch.rand(3)

    list(run_trial(rounds, tmp_path / "stopped"))

    assert Recipe.load(tmp_path / "stopped" / "recipe.json") == Recipe.load(whole_rounds / "recipe.json")
    assert_same_weights(whole_rounds, tmp_path / "stopped")
    accuracies = [
        [epoch["accuracy"] for epoch in read_result(folder)["epochs"]]
        for folder in (whole_rounds, tmp_path / "stopped")
    ]
    assert accuracies[0] == accuracies[1] and len(accuracies[0]) == 3


def test_a_round_goes_on_from_the_product_of_what_was_trained(rounds, tmp_path):
    """Between rounds the outputs stay: the dense network that is compressed next computes what was trained."""
    trial = run_trial(rounds, tmp_path / "t")
    while not (tmp_path / "t" / "rounds" / "1" / "round.json").exists():
        next(trial)
    trial.close()
    first = tmp_path / "t" / "rounds" / "1"
    projected = build_model(MODEL)
    read_weights(projected, first / "projected.safetensors")
    inputs = torch.randn(8, 1, 8, 8)

    torch.testing.assert_close(projected(inputs), rebuild(first)(inputs), rtol=1e-4, atol=1e-4)


def test_rounds_need_a_budget(rounds, tmp_path):
    with pytest.raises(LrsearchError, match=r"rounds is 3.*tucker has no budget"):
        list(run_trial(replace(rounds, method="tucker", hyperparameters={"alpha": 2.0}), tmp_path / "t"))


class Chatty(Alds):
    """ALDS that keeps its place in a file, has something to say, and freezes what follows the stem."""

    def compress(self, model, task, hyperparameters, statistics):
        assert task.splits is not None
        task.checkpoint.write_text("half-way")
        compressed = yield from super().compress(model, task, hyperparameters, statistics)
        return replace(compressed, metrics={"train_speedup": 1.5}, history={"ranks": {"0": [3, 2]}})

    def retraining(self, compressed, dense, hyperparameters):
        assert hyperparameters.budget.params == 0.5 and dense is not compressed.model
        names = [name for name, _ in compressed.model.named_parameters()]
        return Retraining(frozen=lambda epoch: names[1:])


@pytest.mark.parametrize("stop", ["compress", "measure", "done"])
def test_method_adds_metrics_a_history_and_its_own_retraining(spec, tmp_path, monkeypatch, stop):
    monkeypatch.setattr("lrsearch.methods.alds.METHOD", Chatty())
    folder = tmp_path / "t"
    trial = run_trial(spec, folder)
    next(report for report in trial if report.stage == stop)
    trial.close()
    compressed = weights(folder) if (folder / "recipe.json").exists() and stop == "measure" else None

    list(run_trial(spec, folder))

    assert not (folder / "compressing.pt").exists()
    assert json.loads((folder / "history.json").read_text()) == {
        "metrics": {"train_speedup": 1.5},
        "ranks": {"0": [3, 2]},
    }
    assert read_result(folder)["metrics"]["train_speedup"] == 1.5
    if compressed is not None:
        changed = {key for key, value in weights(folder).items() if not torch.equal(value, compressed[key])}
        trained = changed - {key for key in changed if key.endswith(("running_mean", "running_var", "batches_tracked"))}
        assert len(trained) == 1


def test_test_split_is_evaluated_once(spec, tmp_path, monkeypatch):
    list(run_trial(spec, tmp_path / "t"))

    accuracy = evaluate_test(spec, tmp_path / "t")

    assert 0 < accuracy <= 100
    monkeypatch.setattr("lrsearch.trial.evaluate", lambda *_: pytest.fail("evaluated again"))
    assert evaluate_test(spec, tmp_path / "t") == accuracy


def test_unreachable_budget_says_what_can_be_reached(spec, tmp_path):
    small = replace(spec, hyperparameters={"budget": {"params": 0.001}})

    with pytest.raises(BudgetUnreachableError, match="smallest") as caught:
        list(run_trial(small, tmp_path / "t"))

    reachable = replace(spec, hyperparameters={"budget": {"params": caught.value.smallest}})
    list(run_trial(reachable, tmp_path / "reachable"))


def test_diverging_retraining_is_a_failure_with_a_reason(spec, tmp_path):
    wild = replace(spec, retrain=TrainingConfig(epochs=2, lr=1e12, schedule="constant").model_dump(mode="json"))

    with pytest.raises(TrialFailedError, match="loss is"):
        list(run_trial(wild, tmp_path / "t"))


def test_damaged_checkpoint_is_named(spec, tmp_path):
    trial = run_trial(spec, tmp_path / "t")
    next(report for report in trial if report.stage == "retrain")
    trial.close()
    checkpoint = tmp_path / "t" / "checkpoint.pt"
    assert len(read_history(checkpoint)) == 1
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])

    with pytest.raises(LrsearchError, match=r"checkpoint\.pt"):
        list(run_trial(spec, tmp_path / "t"))


def test_damaged_dense_weights_are_named(spec, tmp_path):
    (tmp_path / "dense").mkdir()
    (tmp_path / "dense" / "weights.safetensors").write_bytes(b"\0" * 99)

    with pytest.raises(LrsearchError, match=r"weights\.safetensors"):
        load_dense_model(MODEL, tmp_path / "dense", torch.device("cpu"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LrsearchError("budget is too small"), "budget is too small"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), "out of memory: CUDA out of memory. Tried"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory: DefaultCPUAllocator:"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    ],
)
def test_failures_are_one_line(error, reason):
    assert failure_reason(error).startswith(reason)
    assert "\n" not in failure_reason(error)


@pytest.mark.parametrize("first", [0, 2])
def test_longer_trial_continues_a_shorter_one(spec, tmp_path, first):
    """With a rate that does not depend on the length, bit for bit as if it had been long from the start."""

    def retrain(epochs):
        return TrainingConfig(epochs=epochs, lr=0.02, schedule="constant").model_dump(mode="json")

    list(run_trial(replace(spec, retrain=retrain(4)), tmp_path / "long"))
    list(run_trial(replace(spec, retrain=retrain(first)), tmp_path / "short"))
    further = replace(spec, number=1, retrain=retrain(4), continues=str(tmp_path / "short"))
    reports = list(run_trial(further, tmp_path / "further"))

    assert "compress" not in {report.stage for report in reports}
    assert [r.done for r in reports if r.stage == "retrain"] == list(range(first + 1, 5))
    assert_same_weights(tmp_path / "further", tmp_path / "long")
    assert [e["epoch"] for e in read_result(tmp_path / "further")["epochs"]] == [1, 2, 3, 4]
    assert len(read_result(tmp_path / "short")["epochs"]) == first
    assert (tmp_path / "further" / LAYERS).read_text() == (tmp_path / "short" / LAYERS).read_text()


def test_trial_whose_predecessor_lost_its_checkpoint_begins_anew(spec, tmp_path):
    list(run_trial(spec, tmp_path / "short"))
    (tmp_path / "short" / "checkpoint.pt").unlink()

    reports = list(run_trial(replace(spec, continues=str(tmp_path / "short")), tmp_path / "anew"))

    assert [r.done for r in reports if r.stage == "retrain"] == [1, 2, 3]
    assert_same_weights(tmp_path / "anew", tmp_path / "short")


def test_times_of_layers_are_measured_once_for_all_trials_and_predictions_stand_beside_measurements(
    spec, tmp_path, monkeypatch
):
    short = TrainingConfig(epochs=1).model_dump(mode="json")
    values = {"alpha": 2.0, "optimise_ranks": True, "freeze": "published"}
    timed = replace(spec, method="tucker", hyperparameters=values, retrain=short)
    first = list(run_trial(timed, tmp_path / "one"))[-1].metrics
    assert len(list(Path(spec.cache_folder).glob("latency-*.json"))) == 1
    assert first["train_speedup"] > 0 and first["train_throughput"] > 0
    error = 100 * (first["predicted_speedup"] / first["speedup"] - 1)
    assert first["predicted_speedup_error"] == pytest.approx(error)
    assert first["slower_than_dense"] == float(first["cr_f"] > 0 and first["speedup"] <= 1)

    monkeypatch.setattr("lrsearch.measure.latency.interleaved", None)
    again = list(run_trial(replace(timed, number=1), tmp_path / "two"))[-1].metrics
    assert Recipe.load(tmp_path / "one" / "recipe.json") == Recipe.load(tmp_path / "two" / "recipe.json")
    assert again["predicted_speedup"] == first["predicted_speedup"]


def test_the_dense_network_is_deployed_as_suits_it_best(dense_folder, tmp_path, monkeypatch):
    speeds = {Deployment(4): 100.0, Deployment(16): 300.0, Deployment(64): 200.0}

    def compare(model, dense, example, workplace, gate, other):
        speed = speeds[workplace.deployment]
        return Throughput(speed, speed, speedup=1.0, spread=0.0, reference_speedup=speed / speeds[other])

    monkeypatch.setattr("lrsearch.dense.compare_throughput", compare)
    trained = {**MODEL, "weights": str(dense_folder / "weights.safetensors")}
    list(prepare_dense(DenseSpec(trained, DATA, {}, 0, HERE, tuple(speeds)), tmp_path / "dense"))
    record = load_dense_record(tmp_path / "dense")
    assert record.deployment == asdict(Deployment(16)) and record.throughput == 300


def test_a_network_is_measured_as_it_is_deployed(spec, tmp_path):
    deployed = Deployment(batch_size=4, dtype="bfloat16", channels_last=True, fold_batch_norm=True)
    there = replace(HERE, deployment=deployed)
    once = replace(spec, workplace=there, retrain=TrainingConfig(epochs=0).model_dump(mode="json"))
    metrics = list(run_trial(once, tmp_path / "trial"))[-1].metrics
    dense = load_dense_record(Path(spec.dense_folder))
    assert dense.deployment == asdict(HERE.deployment)
    assert metrics["speedup"] != metrics["speedup_best"] > 0
    assert metrics["throughput"] == pytest.approx(metrics["speedup_best"] * dense.throughput)
    assert all(value.dtype == torch.float32 for value in weights(tmp_path / "trial").values() if value.dim() > 1)


@pytest.mark.slow
def test_networks_that_are_deployed_compiled_are_measured_so(spec, tmp_path):
    """Layers are timed as they are, the network as a whole compiled."""
    compiled = replace(HERE, deployment=Deployment(batch_size=16, compile=True))
    values = {"alpha": 2.0, "optimise_ranks": True}
    once = replace(spec, method="tucker", hyperparameters=values, workplace=compiled)
    once = replace(once, retrain=TrainingConfig(epochs=0).model_dump(mode="json"))
    metrics = list(run_trial(once, tmp_path / "trial"))[-1].metrics
    assert metrics["speedup"] > 0 and metrics["predicted_speedup"] > 0
    assert metrics["throughput"] == pytest.approx(
        metrics["speedup_best"] * load_dense_record(Path(spec.dense_folder)).throughput
    )
