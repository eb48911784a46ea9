"""A finding of the set-up doctor, made from the row of its code (`brands.doctor.table`)."""

from dataclasses import dataclass
from typing import Any

from brands.doctor.table import ROWS, Side, Verdict


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found. `field` is the form's field that the finding is about, or is empty.

    `tried` says what was sent, and `answer` what came back: the status and known codes, never a body or a header.
    """

    verdict: Verdict
    code: str
    field: str = ""
    side: Side = Side.NOBODY
    tried: str = ""
    answer: str = ""
    meaning: str
    remedy: str = ""


def found(
    code: str, verdict: Verdict | None = None, *, field: str = "", tried: str = "", answer: str = "", **values: Any
) -> Finding:
    """Return a finding of this code; the verdict and the field of its row can be replaced."""
    row = ROWS[code]
    return Finding(
        verdict=verdict or row.verdict,
        code=code,
        field=field or row.field,
        side=row.side,
        tried=tried,
        answer=answer,
        meaning=row.meaning.format(**values).strip(),
        remedy=row.remedy.format(**values).strip(),
    )
