"""One stage of the search: factorizations of all candidates are fitted, and their probabilities trained.

Source: RENE, section 4.2; equation numbers below are of that paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD

from lrsearch.errors import TrialFailedError
from lrsearch.factorize.ranks import Decomposition
from lrsearch.methods.rene_search.candidate_weights import CandidateWeights
from lrsearch.methods.rene_search.mixture import mixture_loss

_MOMENTUM = 0.9
_CLIP = 5.0
_FLOOR = 0.05
"""Relative error that does not matter to a decomposition loss, as even the dense network has a cross-entropy: a product
that can vanish would ask for ranks that fit the weights' last noise."""


@dataclass(frozen=True)
class Settings:
    """How a stage is trained; see the method's hyperparameters."""

    decomposition: Decomposition
    objective: Literal["branch", "paper"]
    rank_loss: Literal["cost", "cap", "paper"]
    beta: float
    gamma: float
    lr: float
    lr_alpha: float
    recalibrate: bool


@dataclass(frozen=True)
class Choice:
    """A layer's candidates in a stage.

    Attributes:
        weights: of the candidates.
        cap: the largest rank the layer could have.
        costs: (K, resources) of each candidate, as fractions of what the layers may cost together.
    """

    weights: CandidateWeights
    cap: int
    costs: Tensor


class Stage:
    """The candidates of all layers, their coefficients alpha, and the two alternating steps.

    ``pressure`` weighs the rank loss against the decomposition's: 1 as in the paper, or, where there is a target,
    steered so that the expected cost meets it.
    """

    def __init__(self, model: nn.Module, choices: Mapping[str, Choice], settings: Settings) -> None:
        self.choices = choices
        self.pressure = 1.0
        self._model, self._settings = model, settings
        self.alpha = {name: torch.zeros_like(c.costs[:, 0]) for name, c in choices.items()}
        parts = [*self.alpha.values(), *self._factors()]
        for part in parts:
            part.requires_grad_()
        options: dict[str, Any] = {"momentum": _MOMENTUM, "nesterov": True}
        self._alpha_optimizer = SGD(self.alpha.values(), lr=settings.lr_alpha, **options)
        factors = self._factors()
        self._factor_optimizer = SGD(factors, lr=settings.lr, **options) if factors else None

    def probabilities(self) -> dict[str, Tensor]:
        """P = softmax(alpha) of each layer."""
        return {name: alpha.softmax(0) for name, alpha in self.alpha.items()}

    def chosen(self, *, steered: bool) -> dict[str, int]:
        """The most probable rank of each layer or, where costs are steered, the candidate nearest to its mean rank.

        What meets the target is the mean: the modes of all layers together cost far more or less.
        """
        found = {}
        for name, p in self.probabilities().items():
            ranks = self.choices[name].weights.ranks
            best = (ranks - (p * ranks).sum()).abs().argmin() if steered else p.argmax()
            found[name] = int(ranks[best])
        return found

    def fit(self) -> None:
        """A step on the factors (eqs. 6 and 8); nothing for ``branch``, where every candidate is its best fit already.

        Raises:
            TrialFailedError: the loss of a layer is not finite.
        """
        if self._factor_optimizer is None:
            return
        self._factor_optimizer.zero_grad()
        probabilities = {name: p.detach() for name, p in self.probabilities().items()}
        scale = float(self._rank_loss(probabilities))
        for name, choice in self.choices.items():
            loss = choice.weights.loss(probabilities[name], self._settings.objective) * scale
            if not bool(loss.isfinite()):
                raise self._failure(name)
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
        if self._settings.decomposition != "tt":
            nn.utils.clip_grad_norm_(self._factors(), _CLIP)
        self._factor_optimizer.step()

    def choose(self, batch: tuple[Tensor, Tensor] | None) -> None:
        """A step on alpha (eqs. 7 and 9), on the cross-entropy of a batch or, without one, on the decomposition loss.

        The step follows the logarithm of eq. 7's product: the same direction, but of a length that does not depend
        on how small the loss of this network is, so that one learning rate serves all.

        Raises:
            TrialFailedError: the loss is not finite.
        """
        self._alpha_optimizer.zero_grad()
        probabilities = self.probabilities()
        if batch is None:
            losses = [c.weights.loss(probabilities[n], self._settings.objective) for n, c in self.choices.items()]
            loss = torch.stack(losses).mean() + _FLOOR
            loss.log().mul(self._settings.gamma).backward(retain_graph=True)  # type: ignore[no-untyped-call]
        else:
            loss = self._backward_through_network(probabilities, batch)
        rank_loss = self._rank_loss(probabilities)
        if not bool(loss.isfinite()):
            raise self._failure(self._worst())
        rank_loss.log().mul(self._settings.gamma * self.pressure).backward()  # type: ignore[no-untyped-call]
        self._alpha_optimizer.step()

    def expected_cost(self) -> float:
        """Of all layers together, as a fraction of what they may cost, in the resource that is scarcest."""
        costs = [p.detach() @ self.choices[name].costs for name, p in self.probabilities().items()]
        return float(torch.stack(costs).sum(0).max())

    def state(self) -> dict[str, Any]:
        """All that changes while a stage is trained, as tensors and plain data."""
        return {
            "alpha": {name: alpha.detach() for name, alpha in self.alpha.items()},
            "factors": [factor.detach() for factor in self._factors()],
            "alpha_optimizer": self._alpha_optimizer.state_dict(),
            "factor_optimizer": self._factor_optimizer.state_dict() if self._factor_optimizer else None,
            "pressure": self.pressure,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a ``state``."""
        with torch.no_grad():
            for name, alpha in self.alpha.items():
                alpha.copy_(state["alpha"][name])
            for factor, kept in zip(self._factors(), state["factors"], strict=True):
                factor.copy_(kept)
        self._alpha_optimizer.load_state_dict(state["alpha_optimizer"])
        if self._factor_optimizer:
            self._factor_optimizer.load_state_dict(state["factor_optimizer"])
        self.pressure = state["pressure"]

    def _factors(self) -> list[Tensor]:
        trained = self.choices.values() if self._settings.objective == "paper" else ()
        return [factor for choice in trained for factor in choice.weights.factors]

    def _rank_loss(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """Eq. 5 without gamma, which the steps carry.

        Ranks are relative to the layer's cap or to its candidates' largest; ``cost`` has what they cost in their place,
        of all layers together.
        """
        if self._settings.rank_loss == "cost":
            costs = [probabilities[name] @ choice.costs for name, choice in self.choices.items()]
            cost: Tensor = torch.stack(costs).sum(0).max() ** self._settings.beta
            return cost
        total = torch.zeros(())
        for name, choice in self.choices.items():
            ranks = choice.weights.ranks
            largest = choice.cap if self._settings.rank_loss == "cap" else int(ranks[-1])
            total = total.to(ranks.device) + ((probabilities[name] * ranks).sum() / largest) ** self._settings.beta
        return total

    def _backward_through_network(self, probabilities: Mapping[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        """Leave the gradient of gamma log(cross-entropy) in alpha; one layer's mixture is differentiated at a time."""
        with torch.no_grad():
            weights = {name: c.weights.mixture(probabilities[name]) for name, c in self.choices.items()}
        loss, gradients = mixture_loss(self._model, weights, *batch, recalibrate=self._settings.recalibrate)
        for name, choice in self.choices.items():
            mixed = choice.weights.mixture(probabilities[name])
            scaled = gradients[name] * (self._settings.gamma / loss.clamp_min(torch.finfo(loss.dtype).tiny))
            torch.autograd.backward(mixed, scaled, inputs=[self.alpha[name]], retain_graph=True)
        return loss

    def _worst(self) -> str:
        """The layer whose candidates fit worst, which is the first with numbers that are not finite if there is one."""
        with torch.no_grad():
            errors = {n: c.weights.loss(self.alpha[n].softmax(0), "branch") for n, c in self.choices.items()}
        return max(errors, key=lambda name: float(errors[name].nan_to_num(nan=torch.inf)))

    def _failure(self, name: str) -> TrialFailedError:
        errors = self.choices[name].weights.errors().detach().nan_to_num(nan=torch.inf)
        rank = int(self.choices[name].weights.ranks[errors.argmax()])
        return TrialFailedError(
            f"the rank search diverged: its loss is not finite at layer {name!r}, candidate of rank {rank}"
        )
