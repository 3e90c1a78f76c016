"""Batch norm folded into the layer before it, as networks are deployed."""

from __future__ import annotations

import warnings

from torch import fx, nn
from torch.fx.experimental.optimization import fuse

from lrsearch.errors import LrsearchError


def fold_batch_norm(model: nn.Module) -> fx.GraphModule:
    """A copy of a network, in eval mode, in which every batch norm that follows a convolution is part of it.

    Raises:
        LrsearchError: the network's forward pass depends on its input in a way that cannot be traced.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            folded: fx.GraphModule = fuse(model.eval())  # type: ignore[assignment]
    except Exception as error:  # the tracer runs the network's own code, which may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LrsearchError(f"the network cannot be traced to fold its batch norm: {reason}") from error
    return folded
