"""Import the application as a worker does, and print the CPU seconds of this process."""

import resource
import sys
from importlib import import_module

import_module("delegation_site.wsgi")
used = resource.getrusage(resource.RUSAGE_SELF)
sys.stdout.write(f"{used.ru_utime + used.ru_stime:.3f}\n")
