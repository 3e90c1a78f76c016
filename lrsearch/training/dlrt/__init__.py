"""Dynamical low-rank training: layers of weight U S V^T, integrators of their gradient flow, and truncation."""

from lrsearch.training.dlrt.integrators import AUGMENTING, Integrator
from lrsearch.training.dlrt.layers import LowRankLayer, low_rank
from lrsearch.training.dlrt.state import SavedTraining
from lrsearch.training.dlrt.step import Stepper
from lrsearch.training.dlrt.trainer import LowRankTraining, Phase
from lrsearch.training.dlrt.truncation import (
    ChooseRanks,
    PermittedRanks,
    Spectrum,
    rank_within,
    tail_norms,
    truncate,
    widen,
)

__all__ = [
    "AUGMENTING",
    "ChooseRanks",
    "Integrator",
    "LowRankLayer",
    "LowRankTraining",
    "PermittedRanks",
    "Phase",
    "SavedTraining",
    "Spectrum",
    "Stepper",
    "low_rank",
    "rank_within",
    "tail_norms",
    "truncate",
    "widen",
]
