"""Where something was measured."""

import os
import platform
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")


def machine() -> dict[str, str | int | None]:
    """Processor, cores that this process may use, system and interpreter."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def processor() -> str:
    """The name that Linux gives it, or the architecture."""
    names = [line for line in _lines(_CPU_INFO) if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []
