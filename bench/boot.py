"""The cost of a worker process: CPU time to import the application, and memory."""

from typing import Any, Final

import psutil

from bench.processes import SERVER_CORE, python
from bench.product import Installation, Server

TIMES: Final = 5
_MIB: Final = 1024 * 1024


def boot_seconds(installation: Installation) -> list[float]:
    """Return the CPU seconds that each of several processes needs to import the application."""
    environment = installation.environment
    return [float(python("bench.import_application", environment=environment, core=SERVER_CORE)) for _ in range(TIMES)]


def worker_memory(server: Server) -> dict[str, Any]:
    """Return the memory of each worker of a running server, in MiB.

    The resident set includes memory shared with the first process. The unique set is what one more worker adds.
    """
    workers = psutil.Process(server.pid).children()
    return {
        "resident_mib": [round(worker.memory_info().rss / _MIB, 1) for worker in workers],
        "unique_mib": [round(worker.memory_full_info().uss / _MIB, 1) for worker in workers],
    }
