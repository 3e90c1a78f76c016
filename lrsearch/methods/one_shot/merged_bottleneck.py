"""One bottleneck being merged: its subspaces, its weights, and what calibration inputs correct in them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lrsearch.factorize import build_layer
from lrsearch.factorize.bottlenecks import Bottleneck
from lrsearch.methods.one_shot.activation_sums import LeastSquares, Moments
from lrsearch.methods.one_shot.activations import POSITIONS, patches_of
from lrsearch.recipe import Factorization

_LEAST = 1e-9


class Seen(NamedTuple):
    """What went through a dense bottleneck for some images: (N, channels, height, width) each."""

    given: Tensor
    """To the first convolution."""
    middle_given: Tensor
    middle_output: Tensor
    last_given: Tensor
    output: Tensor
    """Of the last convolution."""


class Subspace(NamedTuple):
    """Activations a of w channels as r: h = encode a; what the next layer needs of them is decode h."""

    encode: Tensor
    """(r, w)."""
    decode: Tensor
    """(w, r)."""


def subspace(weight: Tensor, moment: Tensor, rank: int) -> Subspace:
    """The r dimensions of activations that keep most of the next layer's output.

    Best in E |W a - W decode encode a|^2, by the SVD of W in the space whitened by the activations. Among all bases of
    these dimensions that one is taken in which r of the channels stand for themselves: it suffers least from a ReLU.

    Args:
        weight: (rows, w), what the next layer makes of each channel.
        moment: (w, w), second moment of the activations.
        rank: r.
    """
    values, directions = torch.linalg.eigh(moment)
    scale = values.clamp_min(_LEAST * float(values[-1]) or 1.0).sqrt()
    whitened = weight @ (directions * scale)
    leading = torch.linalg.eigh(whitened.mT @ whitened).eigenvectors[:, -rank:]
    encode = (leading / scale[:, None]).mT @ directions.mT
    permutation, _, _ = torch.linalg.lu(encode.mT)
    own = encode[:, permutation.argmax(0)[:rank]]
    return Subspace(torch.linalg.solve(own, encode), (directions * scale) @ leading @ own)


class MergedBottleneck:
    """A bottleneck of r channels in place of a dense one of w.

    Built from the weights alone. Then calibration inputs may improve it, in three rounds: each takes in what is
    ``Seen`` of all images, and concludes from it.

    Attributes:
        bottleneck: the dense one's names.
        forms: name of a layer -> its channels.
        layers: name of a layer -> what takes its place.
    """

    def __init__(self, model: nn.Module, bottleneck: Bottleneck, rank: int) -> None:
        self.bottleneck = bottleneck
        self._rank = rank
        convs = [model.get_submodule(name) for name in bottleneck.convs]
        self._weights = [_exact(conv.get_parameter("weight")) for conv in convs]
        self._biases = [None if conv.bias is None else _exact(conv.get_parameter("bias")) for conv in convs]
        self._affine = [_affine(model.get_submodule(name)) for name in bottleneck.norms]
        inputs, outputs = self._weights[0].shape[1], self._weights[2].shape[0]
        ranks = [(inputs, rank), (rank, rank), (rank, outputs), (rank,), (rank,)]
        names = bottleneck.convs + bottleneck.norms
        self.forms = {name: Factorization(kind="pruned", ranks=each) for name, each in zip(names, ranks, strict=True)}
        self.layers = {name: build_layer(model.get_submodule(name), form) for name, form in self.forms.items()}
        self._first, self._middle, self._last = (self.layers[name] for name in bottleneck.convs)
        self._constant = torch.zeros(outputs, dtype=torch.float64)
        (_, shift_1), (scale_2, shift_2) = self._affine
        white = scale_2[:, None] * self._weights[1].flatten(1)
        mean = shift_2 if self._biases[1] is None else shift_2 + scale_2 * self._biases[1]
        self._set_weights(torch.eye(len(shift_1), dtype=torch.float64), white @ white.mT, mean)
        self._inner, self._outer = Moments(len(shift_1)), Moments(len(shift_2))
        self._before = Moments(rank), Moments(rank)
        self._core_fit = LeastSquares(rank * self._weights[1][0, 0].numel(), rank)
        self._last_fit = LeastSquares(rank, outputs)

    def observe(self, seen: Seen) -> None:
        """Take in the activations behind the ReLUs."""
        self._inner.add(seen.middle_given)
        self._outer.add(seen.last_given)

    def choose_subspaces(self) -> None:
        """Keep what matters of these activations to the next convolution."""
        self._set_weights(self._inner.second, self._outer.covariance, self._outer.mean)

    def compare_core(self, seen: Seen) -> None:
        """Take in what the core's output lacks."""
        before = self._first(seen.given)
        self._before[0].add(before)
        hidden = self._behind(0, before)
        wanted = torch.einsum("rw,nwij->nrij", self._to_core.to(hidden), seen.middle_output)
        self._core_fit.add(*_rows(self._middle, hidden, wanted - self._middle(hidden)))

    def fit_core(self) -> None:
        """Make up for it by the core and by the batch norm behind it; give the one before its statistics."""
        self._set_norm(0, self._before[0])
        self._shifts[1] = self._shifts[1] + _add(self._middle, self._core_fit)
        self._set_norm(1, None)

    def compare_last(self, seen: Seen) -> None:
        """Take in what the last convolution's output lacks."""
        before = self._middle(self._behind(0, self._first(seen.given)))
        self._before[1].add(before)
        hidden = self._behind(1, before)
        present = self._last(hidden) + self._constant.to(hidden)[:, None, None]
        self._last_fit.add(*_rows(self._last, hidden, seen.output - present))

    def fit_last(self) -> None:
        """Make up for it by the last convolution, and give the batch norm before it its statistics."""
        self._set_norm(1, self._before[1])
        self._constant = self._constant + _add(self._last, self._last_fit)

    def shift_output(self, model: nn.Module) -> None:
        """Add the constant part of the output in the merged network, by the batch norm that follows or by the bias."""
        with torch.no_grad():
            if self.bottleneck.last_norm is not None:
                mean = model.get_submodule(self.bottleneck.last_norm).get_buffer("running_mean")
                mean.sub_(self._constant.to(mean))
            elif self._biases[2] is not None:
                bias = model.get_submodule(self.bottleneck.convs[2]).get_parameter("bias")
                bias.add_(self._constant.to(bias))

    def _set_weights(self, inner: Tensor, outer: Tensor, mean: Tensor) -> None:
        """Set all weights for activations of these moments, the second ones about their mean."""
        (scale_1, shift_1), (scale_2, shift_2) = self._affine
        first, middle, last = self._weights
        one = subspace(middle.transpose(0, 1).flatten(1).mT, inner, self._rank)
        two = subspace(last.flatten(1), outer, self._rank)
        self._to_core = two.encode * scale_2
        core = torch.einsum("schw,cr->srhw", middle, one.decode)
        _set(self._first, one.encode * scale_1, first, self._biases[0])
        _set(self._middle, self._to_core, core, self._biases[1])
        with torch.no_grad():
            self._last.get_parameter("weight").copy_(torch.einsum("swij,wr->srij", last, two.decode))
            if self._biases[2] is not None:
                self._last.get_parameter("bias").copy_(self._biases[2])
        self._shifts = [one.encode @ shift_1, two.encode @ shift_2]
        self._constant = last.flatten(1) @ (mean - two.decode @ (two.encode @ mean))
        for place in range(2):
            self._set_norm(place, None)

    def _set_norm(self, place: int, before: Moments | None) -> None:
        """Let a batch norm only shift, whatever the statistics that it is given."""
        norm = self.layers[self.bottleneck.norms[place]]
        mean = before.mean if before else torch.zeros(self._rank, dtype=torch.float64)
        variance = before.covariance.diagonal() if before else torch.ones(self._rank, dtype=torch.float64)
        with torch.no_grad():
            norm.get_buffer("running_mean").copy_(mean)
            norm.get_buffer("running_var").copy_(variance)
            norm.get_parameter("weight").copy_((variance + _eps(norm)).sqrt())
            norm.get_parameter("bias").copy_(self._shifts[place] + mean)

    def _behind(self, place: int, values: Tensor) -> Tensor:
        """What a batch norm and the ReLU behind it, if any, make of a convolution's output."""
        shifted: Tensor = self.layers[self.bottleneck.norms[place]].eval()(values)
        return shifted.relu() if self.bottleneck.rectified[place] else shifted


def _set(conv: nn.Module, mix: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Give a convolution weights and bias, the outputs mixed."""
    with torch.no_grad():
        conv.get_parameter("weight").copy_(torch.einsum("rs,scij->rcij", mix, weight))
        if bias is not None:
            conv.get_parameter("bias").copy_(mix @ bias)


def _rows(conv: nn.Module, hidden: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
    """What some positions of a convolution's output see, and what is missing there."""
    patches, targets = patches_of(conv, hidden), missing.flatten(2).mT
    places = torch.linspace(0, patches.shape[1] - 1, min(POSITIONS, patches.shape[1]), device=hidden.device).long()
    return patches[:, places].flatten(0, 1), targets[:, places].flatten(0, 1)


def _add(conv: nn.Module, fit: LeastSquares) -> Tensor:
    """Add to a convolution's weight what was found missing; returns the constant that is still missing."""
    change, constant = fit.solution()
    weight = conv.get_parameter("weight")
    with torch.no_grad():
        weight.add_(change.reshape(weight.shape).to(weight))
    return constant


def _exact(parameter: Tensor) -> Tensor:
    return parameter.detach().cpu().double()


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """A batch norm in eval mode as scale and shift."""
    mean, variance = _exact(norm.get_buffer("running_mean")), _exact(norm.get_buffer("running_var"))
    scale = _exact(norm.get_parameter("weight")) / (variance + _eps(norm)).sqrt()
    return scale, _exact(norm.get_parameter("bias")) - scale * mean


def _eps(norm: nn.Module) -> float:
    assert isinstance(norm, nn.BatchNorm2d)  # noqa: S101 - a bottleneck's norms are
    return norm.eps
