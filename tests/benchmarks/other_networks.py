"""Methods that need no retraining, on networks that no method was tuned on.

Usage: python tests/benchmarks/other_networks.py [--networks digits resnet18 ...] [--methods alds_output alds ...]

``digits`` is a residual network trained here on the digits' training images; it is measured by its accuracy on their
test images and by the divergence of its predictions.

Others are torchvision's by name with random weights, of which too little is left for their predictions to tell methods
apart. What they are measured by is what the methods minimise, taken from the replaced layers themselves, each fed by
the dense network, with no table of any method; inputs are smooth random images, and means are left out, since a bias or
batch norm behind a layer makes up for them:

- ``output``: the sum over layers of the relative squared error of the layer's output, on calibration inputs and on
  unseen ones. ``plain`` minimises it with scheme 0 alone, and so is what ``alds_output`` improves on; ``pca`` a product
  of the same errors.
- ``divergence``: the sum over layers of the Kullback-Leibler divergence, in thousandths, between the predictions on
  unseen inputs and those with that layer alone replaced. The objective of ``alds_output``.
- ``spectral``: the largest singular value of a slice of a layer's change, relative to the largest of its weight; the
  largest of any layer. The objective of ``alds`` and ``alds_plus``, exactly solved; ``alternating`` is Algorithm 1 of
  the paper with 15 seeds, as its authors solve it.

Found at 25 / 40 / 50 / 60 / 70 % removed:

- squeezenet1_1: divergence .002 / .005 / .009 / .017 / .045 with ``alds_output``, .011 / .024 / .038 / .078 / .149 with
  ``pca``, 3.0 / 3.5 / 4.1 / 5.6 / 5.2 with ``alds_plus alternating``. Spectral .3441 / .3888 / .4117 / .4348 / .4545
  with ``alds``, .3480 / .3995 / .4227 / .4380 / .4592 with ``alds alternating``.
- mobilenet_v2: divergence 4.5 / 13.0 / 20.0 / 33.7 / 57.1 with ``alds_output``, 9.9 / 18.0 / 30.3 / 49.1 / 74.7 with
  ``pca``, 94 / 117 / 214 / 227 / 252 with ``alds_plus alternating``. Spectral .3431 / .4366 / .5710 / .6445 / .6917
  with ``alds``, .3482 / .4766 / .6046 / .6658 / .7041 with ``alds alternating``.
- resnet18, whose last stage sees 1,024 positions of 4,608 columns: divergence 11.3 / 19.8 / 36.6 / 60.1 / 94.7 with
  ``alds_output`` (12.1 / 36.4 / 125 / 485 / 161 without shrinkage), 20.6 / 38.7 / 48.7 / 66.1 / 99.3 with ``pca``, 134
  / 129 / 188 / 225 / 324 with ``alds_plus alternating``. Spectral .2315 / .2534 / .2632 / .2726 / .2826 with ``alds``,
  .2326 / .2554 / .2665 / .2743 / .2832 with ``alds alternating``.

So each leads in what it minimises, and in that alone: ``pca`` has the smaller output errors on unseen inputs, and
``alds alternating`` smaller ones than the exact solution.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from lrsearch.compression import drain, make_task
from lrsearch.data import load_data
from lrsearch.factorize.materialize import multiplied_out
from lrsearch.factorize.svd import fold
from lrsearch.measure.gate import DeviceGate
from lrsearch.methods import load_method
from lrsearch.methods.base import Compressed, Loader, Method
from lrsearch.methods.one_shot.activations import Covariances
from lrsearch.methods.one_shot.output_aware import OutputAware
from lrsearch.models import build_model
from lrsearch.training import TrainingConfig, recalibrate_batch_norm, train

REMOVED = (25, 40, 50, 60, 70)
ALTERNATING = " alternating"
METHODS = ("alds_output", "plain", "alds_plus", "alds_plus alternating", "alds", "alds alternating", "pca", "svd")
NETWORKS = ("digits", "squeezenet1_1", "mobilenet_v2", "resnet18")
CPU = torch.device("cpu")

Measure = Callable[[Compressed], dict[str, str]]
"""What came of a method -> figures by the name of their table."""


class Plain(OutputAware):
    name = "plain"
    schemes = (0,)
    observer = Covariances

    def error(self, lost: np.ndarray) -> np.ndarray:
        return lost / max(lost[0], np.finfo(float).tiny)


def trained_on_digits() -> tuple[nn.Module, Loader, Measure]:
    splits = load_data({"name": "digits"})
    model = build_model({"name": "digits_resnet", "width": 16})
    for _ in train(model, splits, TrainingConfig(), device=CPU, seed=0, gate=DeviceGate(CPU)):
        pass
    calibration = splits.batches("calibration", 64)
    inputs, classes = next(iter(splits.batches("test", 1000)))
    with torch.inference_mode():
        dense = model.eval()(inputs)
    print(f"dense {accuracy(dense, classes):.2f} %")

    def measure(compressed: Compressed) -> dict[str, str]:
        small = compressed.model
        recalibrate_batch_norm(small, calibration, CPU, reference=model)
        with torch.inference_mode():
            logits = small.eval()(inputs)
        return {"test accuracy, divergence": f"{accuracy(logits, classes):.2f} % {divergence(dense, logits):.3f}"}

    return model, calibration, measure


def of_random_weights(name: str) -> tuple[nn.Module, Loader, Measure]:
    model, batches = torchvision.models.get_model(name, weights=None, num_classes=10), smooth_images(320).split(64)
    calibration = [(batch, torch.zeros(len(batch))) for batch in batches[:4]]
    recalibrate_batch_norm(model, calibration, CPU)
    model.eval()

    def measure(compressed: Compressed) -> dict[str, str]:
        factorizations = {name: f for name, f in compressed.recipe.layers.items() if f.kind != "dense"}
        layers = {name: compressed.model.get_submodule(name).eval() for name in factorizations}
        seen, unseen = output_errors(model, layers, torch.cat(batches[:4])), output_errors(model, layers, batches[4])
        changes = [
            spectral_change(model.get_submodule(name), layer, factorizations[name].scheme, factorizations[name].groups)
            for name, layer in layers.items()
        ]
        return {
            "output, calibration": f"{seen:.3f}",
            "output, unseen": f"{unseen:.3f}",
            "divergence, unseen": f"{1000 * single_divergences(model, layers, batches[4]):.3f}",
            "spectral": f"{max(changes):.4f}",
        }

    return model, calibration, measure


@torch.inference_mode()
def output_errors(model: nn.Module, layers: Mapping[str, nn.Module], inputs: Tensor) -> float:
    """The sum of the relative errors of the layers' outputs, each fed by the dense network."""
    errors = []

    def hook(dense: nn.Module, given: tuple[Tensor], output: Tensor, layer: nn.Module) -> None:
        changed = layer(*given) - output
        spread = (part - means(dense, part) for part in (changed, output))
        lost, whole = (part.square().sum() for part in spread)
        errors.append(float(lost / whole))

    watched(model, layers, inputs, hook)
    return sum(errors)


@torch.inference_mode()
def single_divergences(model: nn.Module, layers: Mapping[str, nn.Module], inputs: Tensor) -> float:
    """The sum of the divergences that each layer makes when it alone is replaced."""
    expected = model(inputs)

    def hook(dense: nn.Module, given: tuple[Tensor], output: Tensor, layer: nn.Module) -> Tensor:
        changed = layer(*given)
        return changed + means(dense, output - changed)

    return sum(divergence(expected, watched(model, {name: layer}, inputs, hook)) for name, layer in layers.items())


def watched(
    model: nn.Module, layers: Mapping[str, nn.Module], inputs: Tensor, hook: Callable[..., Tensor | None]
) -> Tensor:
    """What the model gives while ``hook`` is called with each dense layer, its inputs and output, and its successor."""
    handles = [
        model.get_submodule(name).register_forward_hook(lambda *seen, layer=layer: hook(*seen, layer=layer))
        for name, layer in layers.items()
    ]
    try:
        return model(inputs)
    finally:
        for handle in handles:
            handle.remove()


def means(layer: nn.Module, outputs: Tensor) -> Tensor:
    """Of each output channel."""
    channels = 1 if isinstance(layer, nn.Conv2d) else outputs.dim() - 1
    return outputs.mean([axis for axis in range(outputs.dim()) if axis != channels], keepdim=True)


@torch.inference_mode()
def spectral_change(dense: nn.Module, layer: nn.Module, scheme: int, subspaces: int) -> float:
    groups = getattr(dense, "groups", 1)
    change = multiplied_out(layer, dense)[0] - dense.weight
    largest = torch.linalg.matrix_norm(fold(change, groups, scheme, subspaces), 2).max()
    return float(largest / torch.linalg.matrix_norm(fold(dense.weight, groups, 0, 1), 2).max())


def divergence(expected: Tensor, found: Tensor) -> float:
    logs = (logits.double().log_softmax(1) for logits in (found, expected))
    return float(functional.kl_div(*logs, reduction="batchmean", log_target=True))


def accuracy(logits: Tensor, classes: Tensor) -> float:
    return 100 * float((logits.argmax(1) == classes).float().mean())


def smooth_images(count: int) -> Tensor:
    coarse = torch.randn(count, 3, 12, 12)
    fine = functional.interpolate(coarse, size=64, mode="bicubic")
    return fine + 0.1 * torch.randn_like(fine)


def compare(network: str, names: Sequence[str]) -> None:
    torch.manual_seed(0)
    print(f"\n{network}")
    model, calibration, measure = trained_on_digits() if network == "digits" else of_random_weights(network)
    task = make_task(model, calibration)
    tables: dict[str, list[str]] = {}
    for name in names:
        method: Method = Plain() if name == "plain" else load_method(name.removesuffix(ALTERNATING))
        asked = {"rule": "alternating"} if name.endswith(ALTERNATING) else {}
        statistics, found = method.statistics(model, task), []
        for removed in REMOVED:
            values = method.Hyperparameters.model_validate({"budget": {"params": 1 - removed / 100}, **asked})
            found.append(measure(drain(method.compress(model, task, values, statistics))))
        for title in found[0]:
            cells = "".join(f"{figures[title]:>16}" for figures in found)
            tables.setdefault(title, []).append(f"{name:24}{cells}")
    for title, rows in tables.items():
        print(f"{title:24}" + "".join(f"{removed:>14} %" for removed in REMOVED))
        print(*rows, sep="\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for network in options.networks:
        compare(network, options.methods)


if __name__ == "__main__":
    main()
