"""What a worker process costs: CPU time to import the application, and memory."""

from typing import Any, Final

import psutil

from bench.processes import SERVER_CORE, python
from bench.product import Installation, Server

TIMES: Final = 5
_MIB: Final = 1024 * 1024


def boot_seconds(installation: Installation) -> list[float]:
    """CPU seconds that a process needs to import the application, measured several times."""
    environment = installation.environment
    return [float(python("bench.import_application", environment=environment, core=SERVER_CORE)) for _ in range(TIMES)]


def worker_memory(server: Server) -> dict[str, Any]:
    """Memory of each worker of a server after load, in MiB.

    The resident set includes pages shared with the master process. The unique set is what each further worker adds.
    """
    workers = psutil.Process(server.pid).children()
    return {
        "resident_mib": [round(worker.memory_info().rss / _MIB, 1) for worker in workers],
        "unique_mib": [round(worker.memory_full_info().uss / _MIB, 1) for worker in workers],
    }
