"""How a network's answers are judged, which depends on what a data set asks for.

Both scores are of a confusion matrix over all that was asked, images or pixels: entry (i, j) counts what is of class i
and was taken for class j.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Score = Callable[[Tensor], dict[str, float]]
"""(C, C) confusion matrix -> metrics in percent: ``accuracy``, which the search goes by, and what else is shown."""

IGNORED = -100
"""The target of what does not count, pixels of no class; cross-entropy passes it over too."""


def top1(confusion: Tensor) -> dict[str, float]:
    """The share of right answers; NaN where nothing was asked."""
    counts = confusion.double()
    return {"accuracy": float(100 * counts.trace() / counts.sum())}


def mean_iou(confusion: Tensor) -> dict[str, float]:
    """Intersection over union of each class that occurs, in targets or answers, averaged; and the share of pixels.

    Source: Everingham et al. 2015, "The Pascal Visual Object Classes Challenge: A Retrospective", 2.1.4: over the
    pixels of all images together.
    """
    counts = confusion.double()
    right = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - right
    return {
        "accuracy": float(100 * (right / union).nanmean()),
        "pixel_accuracy": top1(confusion)["accuracy"],
    }
