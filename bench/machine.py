"""Describe the machine. Figures cannot be compared without it."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from bench.load import wrk
from bench.processes import can_pin


def description() -> dict[str, str]:
    """Processor, memory and versions, as text."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "django": version("django"),
        "gunicorn": version("gunicorn"),
        "node": _first_line("node", "--version"),
        "load": "wrk" if wrk() else "our own client (bench/client.py), since wrk is not installed",
        "pinned": "servers on one core, database and load on another" if can_pin() else "not pinned to cores",
        "load_average_before": f"{os.getloadavg()[0]:.1f}",
    }


def _processor() -> str:
    names = Path("/proc/cpuinfo")
    if names.exists():
        for line in names.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _first_line(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "none"
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
