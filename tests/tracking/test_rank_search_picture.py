import json
from pathlib import Path

import pytest
from PIL import Image

from lrsearch.tracking.history_pictures import draw_history
from lrsearch.tracking.rank_search_picture import write_rank_search

HISTORY = {
    "alpha": [
        {"stem": {"8": 0.7, "16": 0.3}, "block.conv": {"8": 1.0}},
        {"stem": {"4": 0.1, "5": 0.9}, "block.conv": {"7": 0.4, "8": 0.6}},
    ],
    "ranks": {"stem": [8, 5], "block.conv": [8, 8]},
}


def blue(path: Path) -> int:
    image = Image.open(path).convert("RGB")
    return sum(count for count, colour in image.getcolors(1 << 20) or [] if colour == (0, 114, 178))


def test_stages_stand_side_by_side_and_probable_ranks_are_large(tmp_path: Path) -> None:
    write_rank_search(tmp_path / "two.png", HISTORY)
    single = {"alpha": HISTORY["alpha"][:1], "ranks": HISTORY["ranks"]}
    write_rank_search(tmp_path / "one.png", single)
    improbable = {**single, "alpha": [{"stem": {"8": 0.1, "16": 0.1}, "block.conv": {"8": 0.1}}]}
    write_rank_search(tmp_path / "improbable.png", improbable)
    assert Image.open(tmp_path / "two.png").width > Image.open(tmp_path / "one.png").width
    assert blue(tmp_path / "two.png") > blue(tmp_path / "one.png") > 3 * blue(tmp_path / "improbable.png") > 0


@pytest.mark.parametrize("content", [None, "{", "{}", json.dumps({"alpha": [], "ranks": {}}), '{"alpha": [3]}'])
def test_a_trial_without_a_search_has_no_picture(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "history.json").write_text(content)
    draw_history(tmp_path)
    assert not (tmp_path / "rank_search.png").exists()


def test_a_trial_with_a_search_has_one(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text(json.dumps({"metrics": {}, **HISTORY}))
    draw_history(tmp_path)
    assert Image.open(tmp_path / "rank_search.png").height > 100
