from __future__ import annotations

import logging

import pytest

from lrsearch.files import write_json
from lrsearch.tracking.layer_profile import kept, rank_summary, rank_text, read_layers


@pytest.mark.parametrize(
    ("kind", "ranks", "text"),
    [
        ("dense", [], "dense"),
        ("svd", [7], "7"),
        ("svd", [14, 14, 14], "3×14"),
        ("messi", [3, 4], "3·4"),
        ("tucker2", [12, 12], "12·12"),
        ("cp", [5], "5"),
        ("pruned", [16, 24], "16→24"),
    ],
)
def test_ranks_are_told_as_their_kind_means_them(kind, ranks, text):
    assert rank_text({"kind": kind, "ranks": ranks}) == text


def test_a_network_in_a_few_words():
    entries = [{"kind": "svd", "ranks": [3, 9]}, {"kind": "dense", "ranks": []}, {"kind": "svd", "ranks": [4]}]
    assert rank_summary(entries) == "ranks 3–9 in 2 of 3 layers"
    assert rank_summary(entries[1:2]) == rank_summary([]) == ""
    assert kept({"params": 25, "dense_params": 100}) == 0.25


def test_layers_that_are_missing_or_damaged_cost_themselves_alone(tmp_path, caplog):
    assert read_layers(tmp_path / "none") == ()
    (tmp_path / "layers.json").write_text("[{")
    with caplog.at_level(logging.WARNING):
        assert read_layers(tmp_path) == ()
    assert "damaged" in caplog.text
    write_json(tmp_path / "other" / "layers.json", [{"layer": "a"}])
    assert read_layers(tmp_path / "other") == [{"layer": "a"}]
