"""Parameters and FLOPs of a whole network."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lrsearch.factorize import ChannelGather
from lrsearch.measure.modes import evaluation_mode


class Cost(NamedTuple):
    """The size of a network.

    ``params``: all parameters, biases and batch norm included, shared ones once, and orders of
    channels that are kept with the weights. ``flops``: of one forward
    pass on the example input, two for each multiply-add of convolutions and matrix products; None without input.
    """

    params: int
    flops: int | None


def count_cost(model: nn.Module, example_input: Tensor | None) -> Cost:
    """Count a network's parameters and, with an example input, the FLOPs that it takes.

    Modes, batch-norm statistics and random state are left as they were.
    """
    orders = (module.index for module in model.modules() if isinstance(module, ChannelGather))
    params = sum(tensor.numel() for tensor in (*model.parameters(), *orders))
    if example_input is None:
        return Cost(params, None)
    devices = [example_input.device] if example_input.is_cuda else []
    # The counter does not see into the fused kernels of attention's fast path, nor into all of those that PyTorch
    # takes for scaled dot products where they suit the device.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            evaluation_mode(model),
            torch.random.fork_rng(devices),
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            model(example_input)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return Cost(params, int(counter.get_total_flops()))
