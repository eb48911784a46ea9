"""`make mutants`: change the four security modules in one place at a time, and see whether a test notices.

mutmut makes the mutants (`[tool.mutmut]` in pyproject.toml), in the folder `mutants/`. Its own runner sets up a
database for each of them; ours (`tests.mutation.session`) sets one up for all. Arguments go to pytest: tests to choose
from. `MUTANTS="conversations.flow.authorization_requests*"` takes a part; what was tried before is not tried again
until `mutants/` is removed.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from mutmut.__main__ import copy_also_copy_files, copy_src_dir, create_mutants, setup_source_paths

TESTS: Final = ("tests/site", "tests/brands", "tests/conversations")
# Tests with processes and timings: slow, or not about the four modules.
LEFT_OUT: Final = ("crashes", "fairness", "long_poll", "query_counts", "races", "at_once", "transport", "gunicorn")


def main() -> int:
    """Create the missing mutants, then run pytest over them. Returns its exit status."""
    Path("mutants").mkdir(exist_ok=True)
    copy_src_dir()
    copy_also_copy_files()
    setup_source_paths()
    create_mutants(1)
    chosen = sys.argv[1:] or [*TESTS, *(f"--ignore-glob=*{name}*" for name in LEFT_OUT)]
    command = [sys.executable, "-m", "pytest", "--rootdir=.", "-n0", "-q", "--tb=native", "-p", "no:cacheprovider"]
    environment = os.environ | {"PY_IGNORE_IMPORTMISMATCH": "1"}
    return subprocess.run(
        [*command, "-p", "tests.mutation.session", *chosen], cwd="mutants", env=environment, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
