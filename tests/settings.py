"""The product's own settings, unchanged but for where the databases of a test run live and how passwords are hashed."""

from tests import databases, environment

environment.enter()
databases.enter()

from delegation_site.settings import *  # noqa: E402  the environment has to stand first
from delegation_site.settings import DATABASES  # noqa: E402

if databases.chosen() == databases.SQLITE:
    # A file, since threads with connections of their own cannot share a database in memory.
    DATABASES["default"]["TEST"] = {"NAME": str(databases.run_folder() / "test.sqlite3")}
    # The suite's threads end, and do not close what they kept: from Python 3.13 on that is a warning, and so a failure.
    DATABASES["default"]["CONN_MAX_AGE"] = 0

# The admin's real hasher takes half a second for each sign-in; what it protects is not under test.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
