"""How the admin writes moments: as the timeline and the documents do. Django's own has no zone and no seconds."""

from typing import Final

DATETIME_FORMAT: Final = r"Y-m-d H:i:s \U\T\C"
