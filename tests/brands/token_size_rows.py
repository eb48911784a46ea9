"""Token answers whose size, frames or compression matters (N7): rows of `token_response_rows.ROWS`."""

import gzip
import zlib
from typing import Final

from tests.brands.test_error_details import NO_ANSWER
from tests.brands.token_refusal_rows import Row
from tests.brands.token_refusal_rows import refused as _refused
from tests.hostile_token_endpoint import http_answer, token_body

OF_SIZE: Final = [
    _refused("N7 one byte too large", http_answer(token_body().ljust(65_537)), "the answer is too large"),
    Row("N7 as large as may be", http_answer(token_body().ljust(65_536))),
    Row("N7 gzip", http_answer(gzip.compress(token_body()), Content_Encoding="gzip")),
    Row(
        "N7 in chunks",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"1\r\n%c\r\n" % byte for byte in token_body())
        + b"0\r\n\r\n",
    ),
    _refused(
        "N7 gzip that is none",
        http_answer(token_body(), Content_Encoding="gzip"),
        NO_ANSWER,
        "token_endpoint_unreachable",
    ),
    *[
        _refused(
            f"N7 {name} that ends early",
            http_answer(coded, Content_Encoding=coding),
            NO_ANSWER,
            "token_endpoint_unreachable",
        )
        for name, coding, coded in (
            ("gzip", "gzip", gzip.compress(token_body())[:-1]),
            ("deflate", "deflate", zlib.compress(token_body())[:-1]),
            ("gzip in gzip", "gzip, gzip", gzip.compress(gzip.compress(token_body())[:-1])),
        )
    ],
]
