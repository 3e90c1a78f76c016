"""What kind of device figures are measured on: those of two kinds do not compare."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch


def device_kind(device: torch.device | str) -> str:
    """The model of a GPU or of this machine's processor, as its maker names it."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        models = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        models = None
    return models[1] if models else platform.processor() or platform.machine()
