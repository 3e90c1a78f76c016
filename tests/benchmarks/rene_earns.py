"""Does a rank search earn its cost? RENE against one rank for all layers and against the allocator, all tensor trains.

Usage: python -m tests.benchmarks.rene_earns RESULTS.json [--network digits|resnet20] [--keep 0.2] [--seeds 0,1,2]

Every way keeps the same fraction of the parameters, chooses among the same candidates (a tensor train of equal ranks
in each layer, every rank up to break-even), corrects batch norm on the same calibration images and is fine-tuned with
the same loss (RENE's, distillation included) for the same epochs. Test accuracies before and after fine-tuning in
percent, mean and standard deviation over seeds; those of search and fine-tuning, and for the digits of the dense
network too. The ResNet-20 is that of ``shared/data``; both networks see only ``--images`` training images. Results of
earlier calls with the same file count as well.

Measured: RENE does not earn its cost here: it is never ahead of both others. ResNet-20, half kept (``--network resnet20
--keep 0.5 --images 1000 --test-images 1000 --steps 12 --batch-size 32 --ways cost,summed,one``), seeds 0 to 2, before
and after one epoch of 16 steps of fine-tuning: RENE 75.30 ± 1.13 and 74.83 ± 1.27 in 4.8 s; allocator, summed energy
75.80 and 76.00 ± 0.80 in 1.2 s; one rank 72.90 and 74.30 ± 1.21 in 1.1 s. Digits, a tenth kept (``--keep 0.1 --steps
60``), the same seeds and ways: RENE 97.59 and 98.70 ± 0.16 in 12 s; allocator 93.59 and 97.96 ± 0.43 in 0.2 s; one rank
97.40 and 98.79 ± 0.16 in 0.2 s.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lrsearch.allocate import Candidates
from lrsearch.compression import compress_steps, drain, make_task
from lrsearch.data import Splits, load_data
from lrsearch.factorize import LayerShape
from lrsearch.measure.accuracy import evaluate
from lrsearch.measure.cost import count_cost
from lrsearch.measure.gate import DeviceGate
from lrsearch.methods import load_method, parse_hyperparameters
from lrsearch.methods.base import Budget, Compressed, Task
from lrsearch.methods.one_shot.candidates import Family
from lrsearch.methods.one_shot.cap import Caps
from lrsearch.methods.one_shot.within_budget import compress_within
from lrsearch.methods.rene_search.budget import by_rank, smaller_members
from lrsearch.methods.rene_search.candidate_weights import TrainSlices
from lrsearch.models import build_model
from lrsearch.training import TrainingConfig, recalibrate_batch_norm, train
from tests.benchmarks.resnet20_curve import read
from tests.conftest import REAL_DATA

DEVICE, GATE = torch.device("cpu"), DeviceGate("cpu")


def digits(options: argparse.Namespace, seed: int) -> tuple[nn.Module, Splits]:
    torch.manual_seed(seed)
    model, splits = build_model({"name": "digits_resnet", "width": 32}), load_data({"name": "digits"})
    for _ in train(model, splits, TrainingConfig(epochs=12), device=DEVICE, seed=seed, gate=GATE):
        pass
    return model, splits


def resnet20(options: argparse.Namespace, seed: int) -> tuple[nn.Module, Splits]:
    model = build_model({"name": "resnet20", "weights": str(REAL_DATA / "resnet20_cifar10_jpeg.pt")})
    (inputs, classes), test = read(REAL_DATA / "cifar10.tar.xz", options.images + 500)
    items, calibration = (TensorDataset(inputs[part], classes[part]) for part in (slice(500, None), slice(500)))
    order = torch.randperm(len(test[0]), generator=torch.Generator().manual_seed(0))[: options.test_images]
    tested = TensorDataset(test[0][order], test[1][order])
    return model, Splits("cifar10 as JPEG", items, calibration, calibration, tested, classes=10)


def rene(rank_loss: str) -> Callable[..., Compressed]:
    def compress(model: nn.Module, task: Task, keep: float, options: argparse.Namespace) -> Compressed:
        search = {"steps": options.steps, "initial_step": options.initial_step, "factor": 8, "stages": options.stages}
        search |= {"batch_size": options.batch_size, "rank_loss": rank_loss}
        return drain(compress_steps(model, "rene", {**search, "budget": {"params": keep}}, task))

    return compress


def allocated(rule: str) -> Callable[..., Compressed]:
    """Ranks by a rule of the allocator, with the relative errors of the candidates, or one rank for all layers."""

    def compress(model: nn.Module, task: Task, keep: float, _: argparse.Namespace) -> Compressed:
        def families(name: str, shape: LayerShape) -> list[Family]:
            members = smaller_members(shape, "tt")
            family = by_rank(shape, members)
            if not members or rule == "one rank":
                return [family]
            weight = model.get_submodule(name).get_parameter("weight")
            errors = TrainSlices(weight, shape, range(1, len(members) + 1)).errors().double().numpy()
            return [replace(family, errors=errors if rule == "sum" else np.sqrt(errors))]

        def spread(caps: Caps, layers: Sequence[Candidates]) -> list[int]:
            return caps.allocate(layers, "sum" if rule == "sum" else "max")

        result = drain(compress_within(model, task, "allocated", Budget(params=keep), families, spread))
        recalibrate_batch_norm(result.model, task.calibration, DEVICE, reference=model)
        return result

    return compress


WAYS: Mapping[str, Callable[..., Compressed]] = {
    "RENE, pressing on cost": rene("cost"),
    "RENE, pressing on ranks": rene("cap"),
    "allocator, largest error": allocated("max"),
    "allocator, summed energy": allocated("sum"),
    "one rank for all layers": allocated("one rank"),
}


def run(options: argparse.Namespace, seed: int) -> list[dict[str, float | str]]:
    model, splits = {"digits": digits, "resnet20": resnet20}[options.network](options, seed)
    dense = evaluate(model, splits.batches("test", 250), DEVICE, GATE)["accuracy"]
    config = TrainingConfig(epochs=options.epochs, lr=options.lr, batch_size=64)
    rows = []
    for name, compress in WAYS.items():
        if not any(way in name for way in options.ways.split(",")):
            continue
        started = time.perf_counter()
        result = compress(model, make_task(model, splits, seed=seed), options.keep, options)
        seconds = time.perf_counter() - started
        before = evaluate(result.model, splits.batches("test", 250), DEVICE, GATE)["accuracy"]
        extra = load_method("rene").retraining(result, model, parse_hyperparameters("rene", {}))
        for _ in train(result.model, splits, config, device=DEVICE, seed=seed, gate=GATE, retraining=extra):
            pass
        after = evaluate(result.model, splits.batches("test", 250), DEVICE, GATE)["accuracy"]
        removed = 100 * (1 - count_cost(result.model, None).params / count_cost(model, None).params)
        key = f"{options.network} keep {options.keep:g} epochs {options.epochs}"
        rows.append({"run": key, "way": name, "seed": seed, "dense": dense, "cr_p": removed, "before": before})
        rows[-1] |= {"after": after, "seconds": seconds}
        print(rows[-1], flush=True)
    return rows


def show(rows: list[dict]) -> None:
    print(f"\n{'':28}{'way':26}{'seeds':>6}{'CR-P':>7}{'before':>16}{'after':>16}{'seconds':>9}")
    for key, way in dict.fromkeys((row["run"], row["way"]) for row in rows):
        found = list({row["seed"]: row for row in rows if (row["run"], row["way"]) == (key, way)}.values())
        cells = [[row[column] for row in found] for column in ("before", "after")]
        texts = [f"{statistics.mean(c):9.2f} ± {statistics.stdev(c) if len(c) > 1 else 0:4.2f}" for c in cells]
        others = [statistics.mean(row[column] for row in found) for column in ("cr_p", "seconds")]
        print(f"{key:28}{way:26}{len(found):6}{others[0]:7.2f}{texts[0]}{texts[1]}{others[1]:9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--network", choices=("digits", "resnet20"), default="digits")
    parser.add_argument("--keep", type=float, default=0.2, help="fraction of the parameters")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--ways", default="", help="only those whose names contain one of these")
    parser.add_argument("--epochs", type=int, default=1, help="of fine-tuning")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--steps", type=int, default=100, help="of RENE, in each stage")
    parser.add_argument("--initial-step", type=int, default=8)
    parser.add_argument("--stages", type=int, help="of RENE; until the step is 1 by default")
    parser.add_argument("--batch-size", type=int, default=128, help="of RENE's steps")
    parser.add_argument("--images", type=int, default=2000, help="of training, for resnet20")
    parser.add_argument("--test-images", type=int, default=2000, help="for resnet20")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(options.results.read_text()) if options.results.exists() else []
    for seed in map(int, options.seeds.split(",")):
        rows += run(options, seed)
        options.results.write_text(json.dumps(rows, indent=1))
    show(rows)


if __name__ == "__main__":
    main()
