import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, Optimizer

from lrsearch.errors import TrialFailedError
from lrsearch.factorize import find_layers, replace_layers
from lrsearch.training.dlrt.integrators import Integrator
from lrsearch.training.dlrt.layers import LowRankLayer, low_rank
from lrsearch.training.dlrt.step import Stepper
from lrsearch.training.dlrt.truncation import rank_within, truncate
from tests.training.dlrt.reference import factors, product, three_pass_step


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 14), nn.Tanh(), nn.Linear(14, 10)).double()


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 12, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.Conv2d(12, 10, (3, 2), dilation=2, padding=(2, 1), groups=2),
        nn.Tanh(),
        nn.Conv2d(10, 2, 1),
        nn.Flatten(),
    ).double()


def batch_of(model: nn.Sequential) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (30, 20) if isinstance(model[0], nn.Linear) else (6, 4, 7, 7)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return x, torch.randint(10, (len(x),), generator=generator)


def made_low_rank(model: nn.Module, rank: int) -> tuple[nn.Module, dict[str, LowRankLayer]]:
    small = copy.deepcopy(model)
    layers = {name: low_rank(small.get_submodule(name), rank) for name in find_layers(small)[0]}
    replace_layers(small, layers)
    return small.train(), layers


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs, targets)


def stepper(
    small: nn.Module, layers: dict[str, LowRankLayer], optimizer: Optimizer, integrator: Integrator = "bug"
) -> Stepper:
    return Stepper(small, layers, optimizer, integrator, loss_of)


@pytest.mark.parametrize("make", [perceptron, convolutional])
def test_one_pass_is_worth_three(make: Callable[[], nn.Sequential]) -> None:
    model, lr = make(), 0.3
    small, layers = made_low_rank(model, 2)
    x, y = batch_of(model)
    expected = three_pass_step(model, [factors(layer) for layer in layers.values()], x, y, lr)
    stepper(small, layers, SGD(small.parameters(), lr)).step(x, y, seed=0)
    for layer, after, dense in zip(layers.values(), expected, (m for m in model if hasattr(m, "weight")), strict=True):
        torch.testing.assert_close(layer.weight(), product(after), rtol=0, atol=1e-10)
        torch.testing.assert_close(layer.bias, dense.bias, rtol=0, atol=1e-10)


@pytest.mark.parametrize("make", [perceptron, convolutional])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_augmenting_leaves_the_weight_and_orthonormality(make: Callable[[], nn.Sequential], rank: int) -> None:
    """Also where twice the rank is more than there is room for."""
    model = make()
    small, layers = made_low_rank(model, rank)
    before = {name: layer.weight() for name, layer in layers.items()}
    ranks = {name: layer.rank for name, layer in layers.items()}
    stepper(small, layers, SGD(small.parameters(), lr=0.0)).step(*batch_of(model), seed=0)
    for name, layer in layers.items():
        torch.testing.assert_close(layer.weight(), before[name], rtol=0, atol=1e-12)
        for basis, side in ((layer.U, layer.shape[0]), (layer.V, layer.shape[1])):
            assert basis.shape[-1] == min(2 * ranks[name], side)
            assert error_of_orthonormality(basis) < 1e-12


def error_of_orthonormality(basis: Tensor) -> float:
    return float((basis.mT @ basis - torch.eye(basis.shape[-1], dtype=basis.dtype)).abs().max())


def test_the_parallel_step_lacks_the_corner_of_the_gradient_alone() -> None:
    model, lr = perceptron(), 0.3
    x, y = batch_of(model)
    steps = {}
    for integrator in ("bug", "parallel"):
        small, layers = made_low_rank(model, 2)
        bases = [factors(layer) for layer in layers.values()]
        stepper(small, layers, SGD(small.parameters(), lr), integrator).step(x, y, seed=0)
        steps[integrator] = [layer.weight() for layer in layers.values()]
    for whole, parallel, (u, _, v) in zip(*steps.values(), bases, strict=True):
        missing = whole - parallel
        assert missing.norm() > 1e-6
        torch.testing.assert_close(u.mT @ missing, torch.zeros_like(u.mT @ missing), rtol=0, atol=1e-12)
        torch.testing.assert_close(missing @ v, torch.zeros_like(missing @ v), rtol=0, atol=1e-12)


def test_fixed_rank_takes_the_bases_of_k_and_l_and_then_a_step_of_s() -> None:
    """Ceruti and Lubich 2022, 3.1, on one layer, by torch's own gradients."""
    torch.manual_seed(0)
    model, lr = nn.Sequential(nn.Linear(20, 10)).double(), 0.2
    small, layers = made_low_rank(model, 3)
    u, s, v = factors(layers["0"])
    x, y = batch_of(model)

    def gradient(weight: Tensor) -> Tensor:
        leaf = weight[0].clone().requires_grad_()
        return torch.autograd.grad(cross_entropy(x @ leaf.mT + model[0].bias, y), leaf)[0][None]

    g = gradient(u @ s @ v.mT)
    new_u, new_v = (torch.linalg.qr(m).Q for m in (u @ s - lr * g @ v, v @ s.mT - lr * g.mT @ u))
    core = new_u.mT @ (u @ s @ v.mT) @ new_v
    core = core - lr * new_u.mT @ gradient(new_u @ core @ new_v.mT) @ new_v
    stepper(small, layers, SGD(small.parameters(), lr), "fixed_rank").step(x, y, seed=0)
    torch.testing.assert_close(layers["0"].weight(), new_u @ core @ new_v.mT, rtol=0, atol=1e-10)


def test_s_only_moves_no_basis() -> None:
    model = perceptron()
    small, layers = made_low_rank(model, 3)
    before = factors(layers["0"])
    stepper(small, layers, SGD(small.parameters(), lr=0.1), "s_only").step(*batch_of(model), seed=0)
    after = factors(layers["0"])
    assert torch.equal(after.left, before.left)
    assert torch.equal(after.right, before.right)
    assert not torch.equal(after.core, before.core)


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_optimizer_state_follows_the_bases(kind: str) -> None:
    """A momentum of gradients is the same matrix in any bases, so that W moves as if it had been seen in fixed ones.

    At full rank all bases span everything: with momentum the low-rank step is the dense one.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 10, bias=False)).double()
    x, y = torch.randn(30, 10, dtype=torch.float64), torch.randint(10, (30,))
    small, layers = made_low_rank(model, 10)
    if kind == "momentum":
        optimizers = [SGD(m.parameters(), lr=0.3, momentum=0.9, weight_decay=0.01) for m in (model, small)]
        for step in range(6):
            optimizers[0].zero_grad()
            cross_entropy(model(x), y).backward()
            optimizers[0].step()
            stepper(small, layers, optimizers[1]).step(x, y, seed=0)
            truncate(layers, lambda _: {"0": 10}, optimizers[1].state)
            torch.testing.assert_close(layers["0"].weight()[0], model[0].weight.detach(), msg=f"step {step}")
        return
    optimizer = Adam(small.parameters(), lr=0.01)
    stepper(small, layers, optimizer).step(x, y, seed=0)
    state, core = optimizer.state[layers["0"].S], layers["0"].S.detach().clone()
    first, second = state["exp_avg"].clone(), state["exp_avg_sq"].clone()
    left, _, right = torch.linalg.svd(core, full_matrices=False)
    truncate(layers, lambda _: {"0": 4}, optimizer.state)
    left, right = left[..., :4], right.mT[..., :4]
    torch.testing.assert_close(state["exp_avg"], left.mT @ first @ right)
    torch.testing.assert_close(state["exp_avg_sq"], (left.mT @ second.sqrt() @ right).square())
    assert state["step"] == 1


@pytest.mark.parametrize("integrator", ["bug", "parallel", "fixed_rank"])
def test_batch_norm_and_dropout_see_one_step(integrator: Integrator) -> None:
    """Whatever the number of passes: the running mean moves once, and both passes draw the same masks."""
    torch.manual_seed(0)
    masks: list[Tensor] = []

    class Watched(nn.Dropout):
        def forward(self, input: Tensor) -> Tensor:
            output = super().forward(input)
            masks.append(output == 0)
            return output

    model = nn.Sequential(nn.BatchNorm1d(20), Watched(0.5), nn.Linear(20, 10)).double()
    small, layers = made_low_rank(model, 3)
    x, y = batch_of(perceptron())
    state = torch.get_rng_state()
    stepper(small, layers, SGD(small.parameters(), lr=0.1), integrator).step(x, y, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert small[0].num_batches_tracked == 1
    torch.testing.assert_close(small[0].running_mean, 0.1 * x.mean(0))
    assert len(masks) == (2 if integrator == "fixed_rank" else 1)
    assert all(torch.equal(mask, masks[0]) for mask in masks)


def test_clipping_bounds_the_step() -> None:
    model = perceptron()
    small, layers = made_low_rank(model, 3)
    before = [layer.weight() for layer in layers.values()] + [layer.bias.detach().clone() for layer in layers.values()]
    optimizer = SGD(small.parameters(), lr=1.0)
    Stepper(small, layers, optimizer, "bug", loss_of, clip=1e-3).step(*batch_of(model), seed=0)
    after = [layer.weight() for layer in layers.values()] + [layer.bias.detach() for layer in layers.values()]
    moved = math.sqrt(sum(float((b - a).square().sum()) for a, b in zip(before, after, strict=True)))
    assert moved == pytest.approx(1e-3, rel=1e-4)


@pytest.mark.parametrize("clip", [None, 3e-6])
@pytest.mark.parametrize("integrator", ["bug", "fixed_rank", "s_only"])
def test_small_gradients_survive_float16(integrator: Integrator, clip: float | None) -> None:
    """A tiny part of the loss at a rate as much larger: without scaling its gradients are near 0 in float16."""
    model, factor, weights = perceptron().float(), 1e-5, []
    x, y = batch_of(perceptron())
    for precision in (torch.float32, torch.float16):
        small, layers = made_low_rank(model, 3)
        optimizer = SGD(small.parameters(), lr=0.3 / factor)
        loss: Callable[[Tensor, Tensor], Tensor] = lambda y, t: factor * cross_entropy(y, t)  # noqa: E731
        Stepper(small, layers, optimizer, integrator, loss, clip=clip, precision=precision).step(x.float(), y, seed=0)
        weights.append([layer.weight()[0] for layer in layers.values()])
    start = [layer.weight()[0] for layer in made_low_rank(model, 3)[1].values()]
    for before, exact, half in zip(start, *weights, strict=True):
        assert (half - exact).norm() < 0.02 * (exact - before).norm()


@pytest.mark.parametrize("integrator", ["bug", "fixed_rank"])
def test_bases_stay_orthonormal_for_a_thousand_steps(integrator: Integrator) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 24), nn.ReLU(), nn.Linear(24, 10))
    small, layers = made_low_rank(model, 4)
    optimizer = SGD(small.parameters(), lr=0.1, momentum=0.9)
    training = stepper(small, layers, optimizer, integrator)
    x, y = torch.randn(64, 30), torch.randint(10, (64,))
    for step in range(1000):
        training.step(x, y, seed=step)
        if integrator == "bug":
            truncate(layers, lambda _: dict.fromkeys(layers, 4), optimizer.state)
    for layer in layers.values():
        assert layer.S.isfinite().all()
        assert max(error_of_orthonormality(layer.U), error_of_orthonormality(layer.V)) < 1e-5


def test_the_rank_grows_to_that_of_the_target() -> None:
    """Least squares on a matrix of rank 10, from rank 2."""
    torch.manual_seed(0)
    target = torch.randn(40, 10, dtype=torch.float64) @ torch.randn(10, 30, dtype=torch.float64) / 20
    small, layers = made_low_rank(nn.Sequential(nn.Linear(30, 40, bias=False)).double(), 2)
    optimizer = SGD(small.parameters(), lr=0.3)
    training = Stepper(small, layers, optimizer, "bug", lambda y, _: (y - target.mT).square().sum() / 2)
    ranks = []
    for _ in range(60):
        training.step(torch.eye(30, dtype=torch.float64), torch.zeros(30), seed=0)
        truncate(layers, lambda spectra: {"0": rank_within(spectra["0"], 1e-3)}, optimizer.state)
        ranks.append(layers["0"].rank)
    assert ranks[0] <= 4
    assert ranks[-1] == 10
    torch.testing.assert_close(layers["0"].weight()[0], target, rtol=0, atol=1e-2)


@pytest.mark.parametrize("tau", [0.3, 0.5])
def test_at_rest_the_rank_is_at_most_one_over_tau_squared(tau: float) -> None:
    torch.manual_seed(0)
    layers = {"0": low_rank(nn.Linear(64, 64), 64)}
    for _ in range(50):
        truncate(layers, lambda spectra: {"0": rank_within(spectra["0"], tau)}, {})
    assert layers["0"].rank <= math.ceil(1 / tau**2)


def test_a_loss_that_is_not_finite_is_told() -> None:
    model = perceptron()
    small, layers = made_low_rank(model, 2)
    x, y = batch_of(model)
    with pytest.raises(TrialFailedError, match="loss is nan"):
        stepper(small, layers, SGD(small.parameters(), lr=0.1)).step(x * float("nan"), y, seed=0)


def test_a_weight_that_is_not_finite_is_told() -> None:
    """As after a gradient that is not, of a loss that is."""
    small, layers = made_low_rank(perceptron(), 2)
    optimizer = SGD(small.parameters(), lr=0.1)
    Stepper(small, layers, optimizer, "bug", lambda y, _: (0 * y).abs().sqrt().sum()).step(*batch_of(perceptron()), 0)
    with pytest.raises(TrialFailedError, match="the weight of layer 0 is not finite"):
        truncate(layers, lambda _: dict.fromkeys(layers, 2), optimizer.state)
