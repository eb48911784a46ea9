"""Measure coverage (`make coverage`) in every process that a test starts, too.

coverage uses environment variables for this. A process with a new environment, such as the demo's, does not get them.
This module adds them during tests, so that product and demo need not know of coverage.
"""

import os
import subprocess
from typing import Any, Final

import pytest

_ASKED_FOR_IN: Final = "COVERAGE_PROCESS_CONFIG"


def install(patched: pytest.MonkeyPatch) -> None:
    """Measure processes with their own environment too."""
    if _ASKED_FOR_IN not in os.environ:
        return
    asked = {_ASKED_FOR_IN: os.environ[_ASKED_FOR_IN]}
    start: Any = subprocess.Popen.__init__

    def measured(process: Any, *arguments: Any, env: Any = None, **options: Any) -> None:
        start(process, *arguments, env=env if env is None else asked | env, **options)

    patched.setattr(subprocess.Popen, "__init__", measured)
