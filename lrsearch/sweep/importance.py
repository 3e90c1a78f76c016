"""How much each hyperparameter matters to each objective of a sweep."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from lrsearch.sweep.points import METHOD

ALL_METHODS = "all methods"
FEWEST_TRIALS = 10
"""Complete trials below which nothing can be said."""

Importances = dict[str, dict[str, dict[str, float]]]
"""Method, or ``ALL_METHODS`` -> objective -> hyperparameter, the most important first -> share; they add up to 1."""


def importances(trials: Sequence[FrozenTrial], objectives: Mapping[str, str]) -> Importances:
    """Optuna's importances (PED-ANOVA: Watanabe, Bansal and Hutter, IJCAI 2023).

    They are told for the trials of each method and, of hyperparameters that all methods have by the same name, such
    as ``budget.params``, beside the choice of the method for all trials.

    Args:
        trials: of one study, in any state.
        objectives: metric name -> "max" or "min", in the order of the trials' values.

    Returns:
        What can be said: of groups with enough complete trials in which two hyperparameters or more were varied.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    groups: dict[str, list[FrozenTrial]] = {ALL_METHODS: complete}
    for trial in complete:
        groups.setdefault(trial.params[METHOD], []).append(trial)
    if len(groups) == 2:
        del groups[ALL_METHODS]
    told = {name: _group_importances(group, objectives) for name, group in groups.items()}
    return {name: shares for name, shares in told.items() if shares}


def _group_importances(trials: Sequence[FrozenTrial], objectives: Mapping[str, str]) -> dict[str, dict[str, float]]:
    rows = [_bare(trial) for trial in trials]
    varied = _shared_and_varied(rows)
    if len(trials) < FEWEST_TRIALS or len(varied) < 2:
        return {}
    found = {}
    for i, (name, way) in enumerate(objectives.items()):
        losses = [-trial.values[i] if way == "max" else trial.values[i] for trial in trials]
        if len(set(losses)) > 1:
            found[name] = _shares([{key: row[key] for key in varied} for row in rows], varied, losses)
    return found


def _shares(
    rows: Sequence[dict[str, Any]], distributions: dict[str, BaseDistribution], losses: Sequence[float]
) -> dict[str, float]:
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # imports scikit-learn, slowly

    study = optuna.create_study()
    for row, loss in zip(rows, losses, strict=True):
        study.add_trial(create_trial(value=loss, params=row, distributions=distributions))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where the good are all, or one in many, shares come out equal
        shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return {name: float(share) for name, share in shares.items()}


def _bare(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's hyperparameters without the method in their names."""
    prefix = f"{trial.params[METHOD]}."
    return {name.removeprefix(prefix): value for name, value in trial.params.items()}


def _shared_and_varied(rows: Sequence[Mapping[str, Any]]) -> dict[str, BaseDistribution]:
    """What every trial has and not all have the same of, with what was tried as its range."""
    distributions: dict[str, BaseDistribution] = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows if name in row]
        if len(values) < len(rows) or len(set(map(str, values))) == 1:
            continue
        numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
        choices = list({str(value): value for value in values}.values())
        distributions[name] = (
            FloatDistribution(min(values), max(values)) if numeric else CategoricalDistribution(choices)
        )
    return distributions
