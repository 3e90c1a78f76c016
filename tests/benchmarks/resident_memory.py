"""How much memory a process holds (Linux)."""

from pathlib import Path


def resident_memory(key: str = "VmRSS") -> int:
    """Bytes resident in this process: ``VmRSS`` now, ``VmHWM`` at its peak.

    Unlike ``ru_maxrss``, the peak is not inherited from the process that started this one.
    """
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{key}:")[1].split()[0])
