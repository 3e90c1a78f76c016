from __future__ import annotations

from pathlib import Path

import made_up_sweep as made_up
import pytest

from lrsearch.tracking.story import start_course


def test_each_step_is_the_hypervolume_of_what_had_ended_by_then():
    info = made_up.sweep_info(Path("/runs"), 30)
    records = [made_up.finished_trial(number) for number in range(30)]
    made_up.front_of(records)
    marks = [record.pareto for record in records]
    course = start_course(info, made_up.DENSE)
    course.extend(records[:11])
    volumes = course.extend(records)
    assert [record.pareto for record in records] == marks, "records are left as they are"
    assert volumes == [pytest.approx(made_up.front_of(records[: n + 1])) for n in range(30)]
