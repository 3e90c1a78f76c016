"""How long an epoch of ResNet-20 on CIFAR-10 takes at batch 128, and what bounds it.

Usage: python -m tests.benchmarks.resnet20_epoch [--device cuda] [--images 45000] [--epochs 3] [--processes 1,4]

Images are noise of CIFAR-10's shape, on the device and augmented there, as the product's own sets are; the training is
the product's (``train``), float32 with the device's own matrix precision, then bfloat16. ``kernels`` is the time that
the device spends in kernels during profiled steps of the same training: where it is well below the time of a step, the
processor, which starts them one by one, is what bounds the epoch. Then several processes share the device, each
training a network of its own: how many more images they see together tells how much of the device one leaves idle.
"""

import argparse
import multiprocessing
import statistics
from multiprocessing.synchronize import Barrier
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import TensorDataset

from lrsearch.data import Splits
from lrsearch.data.images import IMAGENET, ImageTensors, ShiftAndFlip
from lrsearch.measure.gate import DeviceGate
from lrsearch.models import build_model
from lrsearch.training import TrainingConfig, train

BATCH = 128
PRECISIONS = ("float32", "bfloat16")


def splits(images: int) -> Splits:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images, 3, 32, 32), generator=generator).to(torch.uint8)
    data = ImageTensors(pixels, torch.arange(images) % 10, IMAGENET)
    few = TensorDataset(*data[torch.arange(BATCH)])
    return Splits("noise", data, few, few, few, 10, ShiftAndFlip(4, IMAGENET.black, flip=True))


def epoch_seconds(device: str, images: int, epochs: int, precision: str) -> list[float]:
    """Of every epoch but the first, which warms up."""
    model: nn.Module = build_model({"name": "resnet20"})
    config = TrainingConfig(preset="cifar10_resnet20", epochs=epochs + 1, schedule_epochs=182, precision=precision)
    with TemporaryDirectory() as folder:
        gate = DeviceGate(device, Path(folder))
        where = torch.device(device)
        found = [
            each.seconds for each in train(model, splits(images).on(where), config, device=where, seed=0, gate=gate)
        ]
    return found[1:]


def kernel_share(device: str, precision: str, steps: int = 50) -> tuple[float, float, int]:
    """Milliseconds of a profiled step by the clock, of its kernels, and their number."""
    epoch_seconds(device, BATCH * steps, 1, precision)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        (seconds,) = epoch_seconds(device, BATCH * steps, 1, precision)
    kernels = [each for each in profiler.key_averages() if each.device_type == DeviceType.CUDA]
    every = 2 * steps  # the first epoch's, too
    took, count = sum(each.self_device_time_total for each in kernels), sum(each.count for each in kernels)
    return 1000 * seconds / steps, took / 1000 / every, round(count / every)


def together(device: str, images: int, processes: int) -> float:
    """Images per second of several processes that train at once."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    with context.Pool(processes, _meet_at, (barrier,)) as pool:
        found = pool.map(_share, [(device, images)] * processes, chunksize=1)
    return sum(images / seconds for seconds in found)


def _meet_at(barrier: Barrier) -> None:
    global meeting
    meeting = barrier


def _share(job: tuple[str, int]) -> float:
    device, images = job
    epoch_seconds(device, 10 * BATCH, 1, PRECISIONS[0])
    meeting.wait()
    return statistics.median(epoch_seconds(device, images, 2, PRECISIONS[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--images", type=int, default=45_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--processes", default="1")
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"ResNet-20, {options.images} images, batch {BATCH}, {name}")
    for precision in PRECISIONS:
        found = epoch_seconds(options.device, options.images, options.epochs, precision)
        line = f"{precision:9} {statistics.median(found):6.2f} s ({min(found):.2f} to {max(found):.2f})"
        if options.device == "cuda":
            step, kernels, count = kernel_share(options.device, precision)
            line += f"; a profiled step {step:.2f} ms, its {count} kernels {kernels:.2f} ms"
        print(line, flush=True)
    for processes in map(int, options.processes.split(",")):
        found = together(options.device, options.images // 4, processes)
        print(f"{processes} training at once: {found:,.0f} images per second", flush=True)


if __name__ == "__main__":
    main()
