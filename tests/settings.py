"""The product's own settings, except for the test databases and the password hasher."""

from tests import databases, environment

environment.enter()
databases.enter()

from delegation_site.settings import *  # noqa: E402  the environment has to stand first
from delegation_site.settings import DATABASES  # noqa: E402

if databases.chosen() == databases.SQLITE:
    # A file, because threads with their own connections cannot share a database in memory.
    DATABASES["default"]["TEST"] = {"NAME": str(databases.run_folder() / "test.sqlite3")}
    # The suite's threads do not close persistent connections. From Python 3.13 on that is a warning, and so a failure.
    DATABASES["default"]["CONN_MAX_AGE"] = 0

# The real hasher takes half a second for each sign-in. It is not under test.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
