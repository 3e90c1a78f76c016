"""Methods that need no retraining, on networks that no method was tuned on.

Usage: python tests/benchmarks/other_networks.py [--networks digits mobilenet_v2 ...] [--methods alds_output alds ...]

``digits`` is a residual network trained here on the digits' training images; it is measured by its accuracy on their
test images and by the divergence of its predictions. Others are torchvision's by name with random weights, inputs are
smooth random images; the relative error of the centred logits on unseen images is all there is to measure. ``plain``
is what ``alds_output`` improves on: scheme 0 alone, the sum of the layers' relative output errors.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from lrsearch.compression import drain, make_task
from lrsearch.data import load_data
from lrsearch.measure.gate import DeviceGate
from lrsearch.methods import load_method
from lrsearch.methods.base import Loader, Method
from lrsearch.methods.one_shot.activations import Covariances
from lrsearch.methods.one_shot.output_aware import OutputAware
from lrsearch.models import build_model
from lrsearch.training import TrainingConfig, recalibrate_batch_norm, train

REMOVED = (25, 40, 50, 60, 70)
CPU = torch.device("cpu")

Measure = Callable[[nn.Module], str]


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
    inputs, classes = next(iter(splits.batches("test", 1000)))
    with torch.inference_mode():
        dense = model.eval()(inputs).log_softmax(1)

    @torch.inference_mode()
    def measure(small: nn.Module) -> str:
        logits = small(inputs)
        accuracy = 100 * float((logits.argmax(1) == classes).float().mean())
        divergence = functional.kl_div(logits.log_softmax(1), dense, reduction="batchmean", log_target=True)
        return f"{accuracy:6.2f} % KL {float(divergence):.3f}"

    return model, splits.batches("calibration", 64), measure


def of_random_weights(name: str) -> tuple[nn.Module, Loader, Measure]:
    model, batches = torchvision.models.get_model(name, weights=None, num_classes=10), smooth_images(384).split(64)
    calibration = [(batch, torch.zeros(len(batch))) for batch in batches[:4]]
    recalibrate_batch_norm(model, calibration, CPU)
    unseen = torch.cat(batches[4:])
    with torch.inference_mode():
        dense = centred(model.eval()(unseen))

    @torch.inference_mode()
    def measure(small: nn.Module) -> str:
        error = (centred(small(unseen)) - dense).square().sum() / dense.square().sum()
        return f"error {float(error):.4f}"

    return model, calibration, measure


def centred(logits: Tensor) -> Tensor:
    """What makes the images differ."""
    return logits - logits.mean(0)


def smooth_images(count: int) -> Tensor:
    coarse = torch.randn(count, 3, 12, 12)
    fine = functional.interpolate(coarse, size=64, mode="bicubic")
    return fine + 0.1 * torch.randn_like(fine)


def compare(network: str, methods: Sequence[str]) -> None:
    torch.manual_seed(0)
    model, calibration, measure = trained_on_digits() if network == "digits" else of_random_weights(network)
    task = make_task(model, calibration)
    print(f"\n{network}: dense {measure(model)}")
    print(f"{'removed':16}" + "".join(f"{removed:>19} %" for removed in REMOVED))
    for name in methods:
        method: Method = Plain() if name == "plain" else load_method(name)
        statistics, cells = method.statistics(model, task), []
        for removed in REMOVED:
            values = method.Hyperparameters.model_validate({"budget": {"params": 1 - removed / 100}})
            small = drain(method.compress(model, task, values, statistics)).model
            recalibrate_batch_norm(small, calibration, CPU, reference=model)
            cells.append(f"{measure(small.eval()):>21}")
        print(f"{name:16}" + "".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["digits", "squeezenet1_1", "mobilenet_v2", "resnet18"])
    parser.add_argument("--methods", nargs="+", default=["alds_output", "plain", "alds_plus", "alds", "pca", "svd"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for network in options.networks:
        compare(network, options.methods)


if __name__ == "__main__":
    main()
