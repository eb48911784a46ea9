"""The token responses of the table "What comes back" (security requirements 2.5) and their expected results."""

from typing import Final

from tests.brands.test_error_details import NO_ANSWER
from tests.brands.token_refusal_rows import OF_BOUND_TOKENS, REFUSALS, Row
from tests.brands.token_refusal_rows import refused as _refused
from tests.brands.token_size_rows import OF_SIZE
from tests.hostile_token_endpoint import ACCESS_TOKEN, REFRESH_TOKEN, http_answer, token_answer, token_body

_FORM: Final = f"access_token={ACCESS_TOKEN}&token_type=bearer&expires_in=3600&refresh_token={REFRESH_TOKEN}".encode()
_FORM_TYPE: Final = "application/x-www-form-urlencoded"
_NOT_TEXT: Final = "access_token is not a text of 1 to 16384 visible ASCII characters"
_NO_SECONDS: Final = "expires_in is not a number of seconds"
_NOT_POSITIVE: Final = "expires_in is not a positive number of seconds"

ROWS: Final = [
    # The first one is valid. All others differ from it in one way.
    Row("E15 with a refresh token", token_answer()),
    _refused("E1 token in a 201", http_answer(token_body(), 201), "HTTP status 201"),
    _refused("E1 token in a 401", http_answer(token_body(), 401), "HTTP status 401", "invalid_client"),
    _refused("E1 token in a 403", http_answer(token_body(), 403), "HTTP status 403", "token_request_refused"),
    _refused("E1 token in a 500", http_answer(token_body(), 500), "HTTP status 500", "server_error"),
    _refused("E1 token in a 503", http_answer(token_body(), 503), "HTTP status 503", "temporarily_unavailable"),
    _refused("E1 token in a 429", http_answer(token_body(), 429), "HTTP status 429", "temporarily_unavailable"),
    _refused(
        "E1 error in a 400",
        http_answer(b'{"error": "invalid_grant", "error_description": "<b>code gone</b>"}', 400),
        "HTTP status 400, error invalid_grant",
        "invalid_grant",
    ),
    *REFUSALS,
    _refused(
        "E2 GitHub's error",
        http_answer(b'{"error": "bad_verification_code"}'),
        "HTTP status 200, error bad_verification_code",
        "invalid_grant",
    ),
    _refused(
        "E2 GitHub's error as a form",
        http_answer(b"error=bad_verification_code&x=y", Content_Type=_FORM_TYPE),
        "HTTP status 200, error bad_verification_code",
        "invalid_grant",
    ),
    _refused(
        "E2 Slack's error",
        http_answer(b'{"ok": false, "error": "invalid_client"}'),
        "HTTP status 200, error invalid_client",
        "invalid_client",
    ),
    _refused(
        "E2 Fitbit's error",
        http_answer(b'{"errors": [{"errorType": "invalid_grant"}], "success": false}'),
        "HTTP status 200, error invalid_grant",
        "invalid_grant",
    ),
    Row("E2 a vendor's error beside a token", token_answer(ErrorCode="invalid_grant", errors=[{"errorType": "x"}])),
    _refused(
        "E2 error beside a token",
        token_answer(error="server_error"),
        "HTTP status 200, error server_error",
        "server_error",
    ),
    _refused(
        "E2 error that could be a secret",
        token_answer(error="S3cret-echoed"),
        "HTTP status 200",
        "token_request_refused",
    ),
    _refused("E2 error that is an object", token_answer(error={"code": 1}), "HTTP status 200", "token_request_refused"),
    Row("E2 error is null", token_answer(error=None)),
    _refused(
        "E3 form, not switched on",
        http_answer(_FORM, Content_Type=_FORM_TYPE),
        "it is form-encoded, which is not switched on for this server",
    ),
    Row(
        "E3 form, switched on",
        http_answer(_FORM, Content_Type=_FORM_TYPE),
        configured={"accept_form_encoded_tokens": True},
    ),
    Row(
        "E3 form with an empty scope, which is GitHub's for nothing granted",
        http_answer(_FORM + b"&scope=", Content_Type=_FORM_TYPE),
        facts={"scope": ""},
        configured={"accept_form_encoded_tokens": True},
    ),
    _refused(
        "E3 form with an empty scope, with a required one",
        http_answer(_FORM + b"&scope=", Content_Type=_FORM_TYPE),
        "not granted: orders.read",
        "insufficient_scope",
        accept_form_encoded_tokens=True,
        required_scope="orders.read",
    ),
    Row(
        "E3 form with an empty error",
        http_answer(_FORM + b"&error=&id_token=", Content_Type=_FORM_TYPE),
        configured={"accept_form_encoded_tokens": True},
    ),
    *[
        _refused(f"E3 form {what}", http_answer(body, Content_Type=_FORM_TYPE), said, accept_form_encoded_tokens=True)
        for what, body, said in (
            ("with a parameter twice", _FORM + b"&expires_in=9", "it has a parameter twice"),
            ("with an empty scope twice", _FORM + b"&scope=&scope=", "it has a parameter twice"),
            ("that is none", b"{}", "it is not form-encoded"),
            ("with broken bytes", b"access_token=%ff", "it is not form-encoded"),
        )
    ],
    _refused(
        "E4 HTML", http_answer(b"<html>Sign in</html>", Content_Type="text/html; charset=utf-8"), "it is HTML, not JSON"
    ),
    _refused("E4 HTML said to be JSON", http_answer(b"<html>Sign in</html>"), "it is not JSON"),
    _refused(
        "E4 JSON said to be text",
        http_answer(token_body(), Content_Type="text/plain"),
        "its content type is not application/json",
    ),
    _refused(
        "E4 no content type", http_answer(token_body(), Content_Type=""), "its content type is not application/json"
    ),
    _refused("E4 empty", http_answer(b""), "it is empty"),
    _refused("E4 byte order mark", http_answer(b"\xef\xbb\xbf" + token_body()), "it begins with a byte order mark"),
    _refused(
        "E4 charset Latin-1",
        http_answer(token_body(), Content_Type="application/json; charset=iso-8859-1"),
        "its charset is not UTF-8",
    ),
    _refused("E4 UTF-16", http_answer(token_body().decode().encode("utf-16-le")), "it is not JSON"),
    _refused("E4 broken bytes", http_answer(token_body().replace(b"4Zq", b"\xff\xfe")), "it is not UTF-8"),
    _refused(
        "E4 nothing said of its content",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(token_body()), token_body()),
        "its content type is not application/json",
    ),
    Row("E4 charset utf8", http_answer(token_body(), Content_Type="application/json; charset=utf8")),
    Row("E4 charset UTF-8", http_answer(token_body(), Content_Type='application/json;charset="UTF-8"')),
    _refused("E5 list", http_answer(b"[" + token_body() + b"]"), "it is JSON, but not an object"),
    _refused("E5 null", http_answer(b"null"), "it is JSON, but not an object"),
    _refused("E5 string", http_answer(b'"token"'), "it is JSON, but not an object"),
    _refused(
        "E5 duplicate key", http_answer(b'{"access_token": "other", ' + token_body()[1:]), "it has a member twice"
    ),
    _refused(
        "E5 duplicate key further in",
        http_answer(token_body()[:-1] + b', "x": {"y": 1, "y": 2}}'),
        "it has a member twice",
    ),
    _refused("E5 NaN", http_answer(token_body()[:-1] + b', "x": NaN}'), "it is not JSON"),
    _refused("E5 very deep", http_answer(b'{"x":' * 9000), "it is not JSON"),
    _refused("E6 missing", token_answer(access_token=...), _NOT_TEXT),
    _refused("E6 null", token_answer(access_token=None), _NOT_TEXT),
    _refused("E6 empty", token_answer(access_token=""), _NOT_TEXT),
    _refused("E6 number", token_answer(access_token=17), _NOT_TEXT),
    _refused("E6 object", token_answer(access_token={"value": "x"}), _NOT_TEXT),
    _refused("E6 with CR LF", token_answer(access_token="abc\r\nX-Admin: yes"), _NOT_TEXT),
    _refused("E6 with a last LF", token_answer(access_token="abc\n"), _NOT_TEXT),
    _refused("E6 with a space", token_answer(access_token="abc def"), _NOT_TEXT),
    _refused("E6 not ASCII", token_answer(access_token="tök\u0435n"), _NOT_TEXT),
    _refused("E6 one character too long", token_answer(access_token="a" * 16385), _NOT_TEXT),
    Row("E6 as long as may be", token_answer(access_token="a" * 16384), facts={"access_token": "a" * 16384}),
    _refused("E7 missing", token_answer(token_type=...), "token_type is missing"),
    _refused("E7 null", token_answer(token_type=None), "token_type is missing"),
    _refused("E7 mac", token_answer(token_type="mac"), "token_type is not Bearer"),
    _refused("E7 DPoP", token_answer(token_type="DPoP"), "token_type is not Bearer"),
    _refused(
        "E7 DPoP, missing allowed",
        token_answer(token_type="DPoP"),
        "token_type is not Bearer",
        accept_missing_token_type=True,
    ),
    *OF_BOUND_TOKENS,
    _refused("E7 number", token_answer(token_type=1), "token_type is not Bearer"),
    Row("E7 in lower case", token_answer(token_type="bearer")),
    Row("E7 in upper case", token_answer(token_type="BEARER")),
    _refused("E7 Apigee's, not switched on", token_answer(token_type="BearerToken"), "token_type is not Bearer"),
    Row(
        "E7 Apigee's, accepted",
        token_answer(token_type="BearerToken"),
        configured={"accepted_token_type": "BearerToken"},
    ),
    Row(
        "E7 eBay's, accepted",
        token_answer(token_type="User Access Token"),
        configured={"accepted_token_type": "user access token"},
    ),
    Row("E7 Bearer beside an accepted one", token_answer(), configured={"accepted_token_type": "BearerToken"}),
    *[
        _refused(f"E7 {named}", token_answer(token_type=sent), said, accepted_token_type="BearerToken")
        for named, sent, said in (
            ("another than the accepted one", "User Access Token", "token_type is not Bearer"),
            ("DPoP beside an accepted one", "DPoP", "token_type is not Bearer"),
            ("empty beside an accepted one", "", "token_type is not Bearer"),
            ("missing beside an accepted one", ..., "token_type is missing"),
        )
    ],
    *[
        _refused(
            f"E7 {named}, accepted by SQL",
            token_answer(token_type=named),
            "token_type is not Bearer",
            accepted_token_type=named,
        )
        for named in ("DPoP", "mac", "PoP", "N_A", "")
    ],
    Row("E7 missing, allowed", token_answer(token_type=...), configured={"accept_missing_token_type": True}),
    Row(
        "E8 missing",
        token_answer(expires_in=...),
        facts={"lifetime": 1800 - 30, "lifetime_assumed": True},
        configured={"default_token_lifetime": 1800},
    ),
    Row("E8 null", token_answer(expires_in=None), facts={"lifetime_assumed": True}),
    Row(
        "E8 missing, the default above an hour",
        token_answer(expires_in=...),
        facts={"lifetime_assumed": True},
        configured={"default_token_lifetime": 7200},
    ),
    Row(
        "E8 missing, the brand's maximum below",
        token_answer(expires_in=...),
        facts={"lifetime": 54, "lifetime_assumed": True},
        configured={"max_token_lifetime": 60},
    ),
    _refused("E9 zero", token_answer(expires_in=0), _NOT_POSITIVE),
    _refused("E9 zero as text", token_answer(expires_in="0"), _NOT_POSITIVE),
    _refused("E9 half a second", token_answer(expires_in=0.5), _NOT_POSITIVE),
    _refused("E9 negative", token_answer(expires_in=-5), _NOT_POSITIVE),
    _refused("E9 negative as text", token_answer(expires_in="-5"), _NO_SECONDS),
    _refused("E9 true", token_answer(expires_in=True), _NO_SECONDS),
    _refused("E9 false", token_answer(expires_in=False), _NO_SECONDS),
    Row(
        "E9 zero, taken as not told",
        token_answer(expires_in=0),
        facts={"lifetime": 1800 - 30, "lifetime_assumed": True},
        configured={"accept_zero_expires_in": True, "default_token_lifetime": 1800},
    ),
    *[
        Row(
            f"E9 {zero!r}, taken as not told",
            token_answer(expires_in=zero),
            facts={"lifetime_assumed": True},
            configured={"accept_zero_expires_in": True},
        )
        for zero in ("0", 0.0)
    ],
    Row("E9 an hour, where zero is taken as not told", token_answer(), configured={"accept_zero_expires_in": True}),
    *[
        _refused(
            f"E9 {expires_in!r}, where zero is taken as not told",
            token_answer(expires_in=expires_in),
            detail,
            accept_zero_expires_in=True,
        )
        for expires_in, detail in (
            (-1, _NOT_POSITIVE),
            (0.5, _NOT_POSITIVE),
            (False, _NO_SECONDS),
            ("", _NO_SECONDS),
            ([], _NO_SECONDS),
        )
    ],
    Row("E10 as text", token_answer(expires_in="3600")),
    Row("E10 float", token_answer(expires_in=3600.9)),
    _refused("E10 float as text", token_answer(expires_in="3600.5"), _NO_SECONDS),
    _refused("E10 text", token_answer(expires_in="an hour"), _NO_SECONDS),
    _refused("E10 other digits", token_answer(expires_in="\u0663\u0666\u0660\u0660"), _NO_SECONDS),
    _refused("E10 list", token_answer(expires_in=[3600]), _NO_SECONDS),
    _refused("E10 infinite", http_answer(token_body(expires_in=...)[:-1] + b', "expires_in": 1e999}'), _NO_SECONDS),
    Row("E11 ten days", token_answer(expires_in=864000), facts={"lifetime": 86400 - 30}),
    Row("E11 10^18", token_answer(expires_in=10**18), facts={"lifetime": 86400 - 30}),
    Row("E11 10^400", token_answer(expires_in=10**400), facts={"lifetime": 86400 - 30}),
    Row(
        "E11 the product's maximum",
        token_answer(expires_in=10**18),
        facts={"lifetime": 7 * 86400 - 30},
        configured={"max_token_lifetime": 10**9},
    ),
    Row("E12 expires_at in the past", token_answer(expires_at=1)),
    Row("E12 expires_at far off", token_answer(expires_at="2099-01-01T00:00:00Z")),
    Row("E12 a short lifetime", token_answer(expires_in=100), facts={"lifetime": 90}),
    Row("E13 narrower", token_answer(scope="orders.read"), facts={"scope": "orders.read"}),
    Row("E13 nothing granted", token_answer(scope=""), facts={"scope": ""}),
    Row(
        "E13 narrower, the required one there",
        token_answer(scope="orders.read"),
        facts={"scope": "orders.read"},
        configured={"required_scope": "orders.read"},
    ),
    _refused(
        "E13 the required one missing",
        token_answer(scope="profile"),
        "not granted: orders.read",
        "insufficient_scope",
        required_scope="orders.read",
    ),
    Row(
        "E14 wider",
        token_answer(scope="orders.read profile admin"),
        facts={"scope": "orders.read profile admin", "scope_widened": True},
    ),
    Row(
        "E14 separated by commas, not switched on",
        token_answer(scope="orders.read,profile"),
        facts={"scope": "orders.read,profile", "scope_widened": True},
    ),
    _refused(
        "E14 separated by commas, not switched on, with a required one",
        token_answer(scope="orders.read,profile"),
        "not granted (the answer has commas: see the scope separator): orders.read",
        "insufficient_scope",
        required_scope="orders.read",
    ),
    Row(
        "E14 separated by commas, switched on",
        token_answer(scope="orders.read,profile"),
        configured={"scope_separator": "comma", "required_scope": "orders.read"},
    ),
    Row(
        "E14 separated by commas in the answer alone, switched on",
        token_answer(scope="orders.read, profile,,"),
        configured={"scope_separator": "comma_in_response", "required_scope": "orders.read profile"},
    ),
    Row(
        "E14 spaces where commas are switched on",
        token_answer(scope="orders.read profile"),
        configured={"scope_separator": "comma"},
    ),
    Row(
        "E14 list where commas are switched on",
        token_answer(scope=["orders.read,profile"]),
        configured={"scope_separator": "comma"},
    ),
    Row(
        "E14 4,000 characters",
        token_answer(scope="a" * 4000),
        facts={"scope": "a" * 4000, "scope_widened": True},
    ),
    _refused("E14 4,001 characters", token_answer(scope="a" * 4001), "scope has more than 4000 characters"),
    _refused(
        "E14 a list of 4,001 characters",
        token_answer(scope=["a" * 2000, "b" * 2000]),
        "scope has more than 4000 characters",
    ),
    Row("E14 the same scope a thousand times", token_answer(scope="orders.read profile " * 1000)),
    Row("E14 list", token_answer(scope=["orders.read", "profile"])),
    Row("E14 null", token_answer(scope=None)),
    Row("E14 a scope twice", token_answer(scope="orders.read  profile orders.read")),
    Row("E14 number", token_answer(scope=5), facts={"scope": "5", "scope_widened": True}),
    _refused("E14 true", token_answer(scope=True), "scope is not a list of scopes"),
    _refused("E14 object", token_answer(scope={"orders.read": True}), "scope is not a list of scopes"),
    _refused("E14 list of numbers", token_answer(scope=[1, 2]), "scope is not a list of scopes"),
    _refused("E14 line break", token_answer(scope="orders.read\nprofile"), "scope is not a list of scopes"),
    _refused(
        "E16 no ID token",
        token_answer(),
        "openid was asked for, and there is no ID token",
        "invalid_id_token",
        scope="openid orders.read profile",
    ),
    _refused(
        "E16 ID token is an object",
        token_answer(id_token={"sub": "ada"}),
        "id_token is not a text",
        "invalid_id_token",
        scope="openid orders.read profile",
    ),
    Row("E16 ID token that was not asked for", token_answer(id_token="a.b.c")),
    *[
        _refused(
            f"N4 redirect {status}",
            http_answer(token_body(), status, Location="https://rival.example/token"),
            f"HTTP status {status}",
        )
        for status in (301, 302, 303, 307, 308)
    ],
    *OF_SIZE,
    _refused(
        "E20 not HTTP",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        NO_ANSWER,
        "token_endpoint_unreachable",
    ),
]
