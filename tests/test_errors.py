"""Faults are told without giving passwords away."""

import pytest

from lrsearch.errors import BudgetUnreachableError, LrsearchError, hide_passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ada:s3cret@db:5432/runs is away", "postgresql://ada:***@db:5432/runs is away"),
        ("http://ada:a@b:c@mlflow/x?y", "http://ada:***@mlflow/x?y"),
        (
            "mysql+pymysql://:s3cret@db/x and s3://KEY:s3cret@bucket/a",
            "mysql+pymysql://:***@db/x and s3://KEY:***@bucket/a",
        ),
        ("postgresql://db/runs?user=ada&password=s3cret&x=1", "postgresql://db/runs?user=ada&password=***&x=1"),
        ("host=db password='x' Token=abc", "host=db password='x' Token=***"),
        ("http://mlflow:5000/a@b is no password", "http://mlflow:5000/a@b is no password"),
        ("sqlite:////home/ada/runs/mlflow.db", "sqlite:////home/ada/runs/mlflow.db"),
    ],
)
def test_passwords_in_addresses_are_hidden(text, shown):
    assert hide_passwords(text) == shown


def test_every_error_hides_them():
    assert str(LrsearchError("store postgresql://a:b@c/d is away")) == "store postgresql://a:***@c/d is away"
    assert str(BudgetUnreachableError("not below 0.3", 0.3)) == "not below 0.3"
