"""For each method and accepted loss of accuracy the smallest network, as a table, as rows and as LaTeX."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lrsearch.delta_table import delta_latex, delta_rows, delta_table
from lrsearch.front import most_compressed
from lrsearch.record import TrialRecord

figures = st.floats(-2, 100, allow_nan=False)
trials = st.lists(
    st.builds(
        TrialRecord,
        number=st.integers(0, 99),
        state=st.sampled_from(["complete", "failed", "pruned"]),
        method=st.sampled_from(["alds", "l_rank"]),
        accuracy_drop=st.none() | figures,
        cr_p=st.none() | figures,
    ),
    max_size=9,
)


@given(trials, st.floats(0, 5))
def test_no_network_that_is_near_enough_is_smaller(records, drop):
    found = most_compressed(records, drop)

    near = [
        r.cr_p
        for r in records
        if r.state == "complete" and r.accuracy_drop is not None and r.accuracy_drop <= drop and r.cr_p is not None
    ]
    assert (found is None) == (not near)
    if found is not None:
        assert found.cr_p == max(near) and found.accuracy_drop <= drop


def test_each_method_has_a_row_for_each_drop():
    records = [
        TrialRecord(0, "complete", "alds", cr_p=50.0, cr_f=40.0, accuracy_drop=0.2, speedup=1.1),
        TrialRecord(1, "complete", "alds", cr_p=75.0, cr_f=60.0, accuracy_drop=0.9, speedup=1.3),
        TrialRecord(2, "complete", "l_rank", cr_p=60.0, cr_f=50.0, accuracy_drop=3.0, speedup=1.2),
    ]

    rows = delta_rows(records, [0.5, 1])

    assert [(row["method"], row["drop"], row["trial"]) for row in rows] == [
        ("alds", 0.5, 0),
        ("alds", 1, 1),
        ("l_rank", 0.5, None),
        ("l_rank", 1, None),
    ]
    console = Console(file=io.StringIO(), width=80)
    console.print(delta_table(rows))
    lines = console.file.getvalue().splitlines()
    assert lines[2].split() == ["alds", "1", "0.90", "75.0", "60.0", "1.30x", "1"]
    assert lines[3].split() == ["l_rank", "0.5", "-", "-", "-", "-", "-"]
    assert r"alds & -0.20 & 50.00 & 40.00 & -0.90 & 75.00 & 60.00 \\" in delta_latex(rows)
    assert r"l\_rank & - & - & - & - & - & - \\" in delta_latex(rows)
