"""The network whose layers are mixtures of their candidates: one convolution per layer, of mixed weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from lrsearch.measure.modes import evaluation_mode


def mixture_loss(
    model: nn.Module, weights: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, *, recalibrate: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """The cross-entropy with other weights in some layers, and its gradients with respect to these weights.

    Batch norm uses the statistics that the compressed network will have: its running ones or, where those are to be
    re-estimated, the batch's. With stale ones the loss tells which layers shift activations, not which lose
    information. Everything but the weights is frozen. Handed gradients of mixed weights rather than a
    graph, a caller can backpropagate into one layer's candidates after the other.

    Args:
        model: the dense network, left as it is.
        weights: name of a layer -> (S, C / groups, height, width) or (S, C), in the place of its weight.
        inputs: of the network.
        targets: (N,) classes.
        recalibrate: whether batch norm is re-estimated after compressing.
    """
    leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    parameters |= {f"{name}.weight": leaf for name, leaf in leaves.items()}
    parameters |= {name: buffer.clone() for name, buffer in model.named_buffers()}  # training mode updates them
    with torch.enable_grad(), evaluation_mode(model):
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.training = recalibrate and len(inputs) > 1
        loss = cross_entropy(functional_call(model, parameters, (inputs,)), targets)
    gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    return loss.detach(), dict(zip(leaves, gradients, strict=True))
