"""Keys in files of one folder, named by their ids: systemd's credentials, secrets of containers (K8).

A file is bound to its id by its name. What protects it are its mode and owner, which are checked.
"""

import base64
import binascii
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from infrastructure.key_providers.failures import (
    NOT_OF_THIS_FORM,
    NOT_PERMITTED,
    NOT_REACHED,
    NOT_THIS_KEY,
    OPEN_TO_OTHERS,
    ProviderFailed,
)

# systemd hands a credential over with an access list, which shows as a mode that lets the group read.
_OTHERS: Final = stat.S_IRWXO | stat.S_IWGRP
_WRITERS: Final = stat.S_IWGRP | stat.S_IWOTH


def unwrap(place: str, wrapped: Mapping[str, bytes]) -> dict[str, bytes]:
    """Read the file of each id. Raises `ProviderFailed`."""
    inline = next((key_id for key_id, value in wrapped.items() if value), None)
    if inline:
        hint = "With ENCRYPTION_KEYS_FROM=file:... write the ids alone, newest first: k2,k1"
        raise ProviderFailed(
            NOT_OF_THIS_FORM, f"ENCRYPTION_KEYS has a value for the key {inline}, not its id alone.", hint
        )
    return {key_id: _key_in(Path(place, key_id)) for key_id in wrapped}


def wrap(place: str, key_id: str, key: bytes) -> bytes:
    """Write a new file that only its owner can read. Raises `ProviderFailed`, also if there is one."""
    path = Path(place, key_id)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(base64.b64encode(key) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink()  # half a key; with it there, the id could not be used again
            raise
    except FileExistsError:
        raise ProviderFailed(NOT_REACHED, f"There is a file {path} already.", "Give the new key another id.") from None
    except OSError as error:
        raise _unusable(path, error) from None
    return b""


def read_private(path: Path) -> bytes:
    """Read a file that nobody else may read or change. Raises `ProviderFailed`."""
    try:
        with path.open("rb") as file:
            _refuse_others(path, os.fstat(file.fileno()), _OTHERS)
            _refuse_others(path.parent, path.parent.stat(), _WRITERS)
            return file.read().strip()
    except OSError as error:
        raise _unusable(path, error) from None


def _key_in(path: Path) -> bytes:
    try:
        return base64.b64decode(read_private(path), validate=True)
    except (binascii.Error, ValueError):
        hint = "Make another key with manage.py wrap_key, or put the right file there."
        raise ProviderFailed(NOT_THIS_KEY, f"The file {path} does not hold a key in base64.", hint) from None


def _refuse_others(path: Path, status: os.stat_result, modes: int) -> None:
    """Refuse a file that others can read, and what others can change or have put there (K8)."""
    # In a folder with the sticky bit, as containers have it, nobody can replace what belongs to another.
    is_open = status.st_mode & modes and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX)
    if is_open or status.st_uid not in {0, os.geteuid()}:
        hint = f"Let it belong to root or the service's own user, and nobody else touch it: chmod go-w,o= {path}"
        raise ProviderFailed(OPEN_TO_OTHERS, f"Others than the service can read or change {path}.", hint)


def _unusable(path: Path, error: OSError) -> ProviderFailed:
    if isinstance(error, PermissionError):
        hint = "Let the user that runs the service read it, or give it to systemd's LoadCredential=."
        return ProviderFailed(NOT_PERMITTED, f"This user may not use {path}.", hint)
    hint = "Put the file there, or correct its folder in ENCRYPTION_KEYS_FROM and the ids in ENCRYPTION_KEYS."
    return ProviderFailed(NOT_REACHED, f"{path} cannot be used: {error.strerror or type(error).__name__}.", hint)
