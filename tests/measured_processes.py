"""Where the suite's coverage is measured (`make coverage`), so is that of every process that a test starts.

coverage asks for it in the environment. Whoever starts a process with an environment made anew, as the demo does on
purpose, loses that; here it is given back for the time of the tests, and neither product nor demo has to know.
"""

import os
import subprocess
from typing import Any, Final

import pytest

_ASKED_FOR_IN: Final = "COVERAGE_PROCESS_CONFIG"


def install(patched: pytest.MonkeyPatch) -> None:
    """Have processes of their own environment measured too."""
    if _ASKED_FOR_IN not in os.environ:
        return
    asked = {_ASKED_FOR_IN: os.environ[_ASKED_FOR_IN]}
    start: Any = subprocess.Popen.__init__

    def measured(process: Any, *arguments: Any, env: Any = None, **options: Any) -> None:
        start(process, *arguments, env=env if env is None else asked | env, **options)

    patched.setattr(subprocess.Popen, "__init__", measured)
