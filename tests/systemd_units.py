"""Read the systemd units of `deploy/`."""

from configparser import ConfigParser
from pathlib import Path


def unit(path: Path) -> ConfigParser:
    """Parse a unit. Of a directive that is given several times, only the last is kept."""
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the names have upper case
    parser.read(path)
    return parser
