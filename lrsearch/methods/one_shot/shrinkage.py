"""Second moments that a few samples tell, in many directions of which they say nothing.

A decomposition fitted to what was seen alone would be free to change everything that was not.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shrunk(moments: Tensor, samples: int) -> Tensor:
    """Moments of which a part gave way to the multiple of the identity of the same trace.

    The part is the larger the fewer samples there are for what the matrix holds, by oracle approximating shrinkage:
    Chen, Wiesel, Eldar, Hero 2010, "Shrinkage algorithms for MMSE covariance estimation", eq. 23.

    Args:
        moments: (groups, D, D) in double precision, each the mean of ``samples`` outer products.
        samples: how many.
    """
    side = moments.shape[-1]
    trace = moments.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    squares = moments.square().sum((1, 2), keepdim=True)
    shared = trace.square() / side
    uneven = (samples + 1 - 2 / side) * (squares - shared).clamp_min(torch.finfo(moments.dtype).tiny)
    part = (((1 - 2 / side) * squares + trace.square()) / uneven).clamp_max(1)
    return (1 - part) * moments + part * trace / side * torch.eye(side, dtype=moments.dtype)
