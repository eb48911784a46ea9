#!/usr/bin/env python
"""Django's command-line entry point."""

import os
import sys
from pathlib import Path

from django.core.management import execute_from_command_line

from delegation_site import first_settings
from delegation_site.checks import refuse_dangerous_settings

if __name__ == "__main__":
    if sys.argv[1:2] == ["init"]:  # there are no settings yet
        sys.exit(first_settings.main(sys.argv[2:], Path(__file__).resolve().parent))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "delegation_site.settings")
    if sys.argv[1:2] == ["runserver"]:
        # runserver runs checks in a thread, prints a failure as a traceback and continues.
        refuse_dangerous_settings()
    execute_from_command_line(sys.argv)
