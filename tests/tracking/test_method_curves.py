"""The curves of the ALDS paper against their definitions, and drawn."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrsearch.front import most_compressed
from lrsearch.record import TrialRecord
from lrsearch.tracking.curves_picture import write_curves
from lrsearch.tracking.method_curves import method_curves
from tests.tracking.made_up_sweep import DENSE, finished_trial

figures = st.none() | st.floats(-2, 60, allow_nan=False)
trials = st.lists(
    st.builds(
        TrialRecord,
        number=st.integers(0, 99),
        state=st.sampled_from(["complete", "failed", "pruned"]),
        method=st.sampled_from(["alds", "l_rank"]),
        accuracy_drop=figures,
        cr_p=figures,
        cr_f=figures,
        extra=st.fixed_dictionaries({}, optional={"compressed_accuracy": st.floats(40, 99)}),
    ),
    max_size=9,
)


@given(trials, st.floats(-1, 40))
def test_at_each_accepted_loss_a_curve_reaches_the_delta_table(records: list[TrialRecord], accepted: float) -> None:
    curves = {curve.method: curve for curve in method_curves(DENSE, records, "cr_p", "retrained")}
    for method in ("alds", "l_rank"):
        found = most_compressed([record for record in records if record.method == method], accepted)
        within = [removed for removed, drop in curves[method].best if drop <= accepted] if method in curves else []
        assert (found is None) == (not within)
        assert found is None or within[-1] == max(within) == found.cr_p


@given(trials)
def test_compressed_only_goes_by_the_accuracy_before_retraining(records: list[TrialRecord]) -> None:
    curves = method_curves(DENSE, records, "cr_f", "compressed")
    expected = sorted(
        (record.method, record.cr_f, DENSE.accuracy - record.extra["compressed_accuracy"])
        for record in records
        if record.state == "complete" and record.cr_f is not None and record.extra
    )
    assert sorted((curve.method, *place) for curve in curves for place in curve.places) == expected
    for curve in curves:
        assert set(curve.best) <= set(curve.places)
        for removed, drop in curve.places:
            assert any(more >= removed and less <= drop for more, less in curve.best)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
@pytest.mark.parametrize("number", [0, 1, 40])
def test_any_sweep_is_drawn(number: int, suffix: str, tmp_path: Path) -> None:
    records = [finished_trial(each) for each in range(number)]
    for record in records:
        if record.accuracy is not None:
            record.extra["compressed_accuracy"] = record.accuracy - 3
    path = tmp_path / f"curves{suffix}"
    write_curves(path, "digits", DENSE, records, {"alds": "#0072B2", "tucker": "#D55E00"})
    content = path.read_bytes()
    assert content[:4] == b"\x89PNG" if suffix == ".png" else b"<svg" in content
