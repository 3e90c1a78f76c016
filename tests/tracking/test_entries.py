from __future__ import annotations

import math
from pathlib import Path

import made_up_sweep as made_up

from lrsearch.record import DIRECTIONS, Report, TrialRecord
from lrsearch.tracking import entries
from lrsearch.tracking.links import RunLinks
from lrsearch.tracking.panels import answers

VALUES = {"budget": {"params": 0.25, "flops": None}, "k": 3, "scheme": "auto", "recalibrate": True, "ranks": [1, 2]}


def test_nested_values_become_dotted_parameters():
    assert entries.parameters(VALUES) == {
        "budget.params": "0.25",
        "k": "3",
        "scheme": "auto",
        "recalibrate": "true",
        "ranks": "[1, 2]",
    }


def test_a_distribution_is_one_parameter_in_words():
    space = {"alds": {"budget": {"params": {"uniform": [0.1, 0.8]}}, "k": {"choice": [1, "auto"]}}}
    assert entries.parameters(space) == {"alds.budget.params": "uniform [0.1, 0.8]", "alds.k": 'choice [1, "auto"]'}


def test_only_numbers_become_metrics():
    assert entries.numbers(VALUES) == {"hp.budget.params": 0.25, "hp.k": 3.0}


def test_an_epoch_reads_the_same_live_and_from_the_history():
    epoch = made_up.history(0)[2]
    live = Report("retrain", 3, 4, {key: value for key, value in epoch.items() if key != "epoch"})
    assert entries.stage_metrics(live) == entries.epoch_metrics(epoch)
    assert entries.epoch_metrics(epoch)[1] == 3


def test_other_stages_keep_their_name():
    assert entries.stage_metrics(Report("measure", 1, 1, {"speedup": 2})) == ({"measure/speedup": 2.0}, 1)


def test_the_last_report_is_the_result_and_not_told_twice():
    assert entries.stage_metrics(Report("done", 1, 1, {"speedup": 2})) == ({}, 1)


def test_results_have_the_names_of_the_json_output_and_no_unknown_values():
    record = made_up.finished_trial(0)
    record.test_accuracy = 97.0
    assert entries.result_metrics(record) == {name: getattr(record, name) for name in (*DIRECTIONS, "test_accuracy")}
    failed = TrialRecord(1, "failed", "alds", accuracy=math.nan, seconds=3.0)
    assert entries.result_metrics(failed) == {"seconds": 3.0}


def test_description_asks_the_question_and_tells_the_reference():
    info = made_up.sweep_info(Path("/runs"), 24)
    before, after = entries.describe(info, None), entries.describe(info, made_up.DENSE)
    for text in (before, after):
        assert "`accuracy` (max), `flops` (min) and `throughput` (max)" in text
        assert "24 trials" in text and "`accuracy_drop` ≤ 5.0" in text and "`alds` or `tucker`" in text
    assert "272,474" in after and "272,474" not in before


def test_answers_lead_to_their_runs():
    info = made_up.sweep_info(Path("/runs"), 24)
    records = [made_up.finished_trial(number) for number in range(24)]
    made_up.front_of(records)
    links = RunLinks("7", "parent", {record.number: f"run{record.number}" for record in records})
    told = entries.describe(info, made_up.DENSE, records, links)
    for asked, record in answers(info.objectives, records).items():
        address = f"#/experiments/7/runs/run{record.number}?workflowType=machine_learning"
        assert f"| {asked} | [{record.number}, `{record.method}`]({address}) |" in told
    assert "(#/experiments/7/runs/parent/artifacts/front/pareto.html?workflowType=machine_learning)" in told
    assert "](" not in entries.describe(info, made_up.DENSE, records)


def test_description_of_a_bare_space_still_reads():
    info = made_up.sweep_info(Path("/runs"), 1)
    info.space.clear()
    assert "None" not in entries.describe(info, made_up.DENSE).split("\n")[0]


def test_networks_that_are_slower_than_dense_are_tagged():
    extras: list[dict[str, float]] = [{}, {"slower_than_dense": 1.0}]
    tags = [entries.result_tags(TrialRecord(1, "complete", "alds", extra=extra)) for extra in extras]
    assert "lrsearch.slower_than_dense" not in tags[0] and tags[1]["lrsearch.slower_than_dense"] == "true"
