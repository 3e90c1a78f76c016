"""Training: the loop, its configuration and checkpoints, and the re-estimation of batch-norm statistics."""

from lrsearch.training.checkpoint import Epoch, read_history
from lrsearch.training.config import RetrainingConfig, TrainingConfig
from lrsearch.training.loop import train
from lrsearch.training.recalibrate import recalibrate_batch_norm
from lrsearch.training.retraining import Retraining

__all__ = [
    "Epoch",
    "Retraining",
    "RetrainingConfig",
    "TrainingConfig",
    "read_history",
    "recalibrate_batch_norm",
    "train",
]
