"""A transcript may be pasted into an issue or a chat: it holds the beginning of a secret at most."""

import io
from collections.abc import Callable

from demo.transcript import Transcript, conceal, conceal_fields, phrase, shorten

SECRET = "Zm9vYmFyYmF6cXV4"


def test_a_secret_keeps_its_first_six_characters() -> None:
    assert shorten(SECRET) == "Zm9vYm…"


def test_of_a_short_secret_nothing_is_shown() -> None:
    assert shorten("123456") == "…"


def test_the_token_of_a_link_is_shortened_and_what_follows_stays() -> None:
    assert conceal(f"http://localhost:8000/c/{SECRET}/done") == "http://localhost:8000/c/Zm9vYm…/done"


def test_parameters_that_are_secrets_are_shortened_and_others_stay() -> None:
    address = f"http://a.example/authorize?scope=openid&state={SECRET}&nonce={SECRET}&client_id=consumer-delegation"
    assert conceal(address) == (
        "http://a.example/authorize?scope=openid&state=Zm9vYm…&nonce=Zm9vYm…&client_id=consumer-delegation"
    )


def test_code_challenge_method_is_no_secret() -> None:
    assert conceal("?code_challenge_method=S256") == "?code_challenge_method=S256"


def test_a_link_inside_a_parameter_is_shortened_too() -> None:
    assert conceal(f"/login/?next=%2Fauthorize%3Fstate%3D{SECRET}%26scope%3Dopenid") == (
        "/login/?next=%2Fauthorize%3Fstate%3DZm9vYm…%26scope%3Dopenid"
    )


def test_a_redirect_uri_inside_a_parameter_is_shortened_too() -> None:
    assert SECRET not in conceal(f"?redirect_uri=http%3A%2F%2Flocalhost%2Fcallback%2F{SECRET}&scope=openid")
    assert SECRET not in conceal(f"?next=%2Fa%3Fredirect_uri%3Dhttp%253A%252F%252Flocalhost%252Fcallback%252F{SECRET}")


def test_a_bearer_is_shortened() -> None:
    assert conceal(f"Authorization: Bearer {SECRET}") == "Authorization: Bearer Zm9vYm…"


def test_fields_are_shortened_at_any_depth_and_empty_ones_left_out() -> None:
    body = {"access_token": SECRET, "list": [{"url": f"http://localhost/c/{SECRET}"}], "expires_in": 9, "none": None}
    assert conceal_fields(body) == {
        "access_token": "Zm9vYm…",
        "list": [{"url": "http://localhost/c/Zm9vYm…"}],
        "expires_in": 9,
    }


def test_a_status_is_told_with_its_words() -> None:
    assert phrase(201) == "201 Created"
    assert phrase(299) == "299"


def told(tell: Callable[[Transcript], None]) -> list[str]:
    out = io.StringIO()
    tell(Transcript(out))
    return out.getvalue().splitlines()


def test_a_transcript_reads_like_a_story_and_counts_its_checks() -> None:
    out = io.StringIO()
    transcript = Transcript(out)
    transcript.chapter("The bot reads the token", "It has waited long enough.")
    transcript.request("bot", "GET", "http://a.example/token?min_ttl=60")
    transcript.answer(200)
    transcript.json("answered", {"access_token": SECRET, "scope": "openid"})
    transcript.held("status is authorized")
    assert out.getvalue().splitlines() == [
        "",
        "1. The bot reads the token",
        "   It has waited long enough.",
        "   bot       GET    http://a.example/token?min_ttl=60",
        "             → 200 OK",
        '               answered {"access_token": "Zm9vYm…", "scope": "openid"}',
        "             ✓ status is authorized",
    ]
    assert (transcript.chapters, transcript.checks) == (1, 1)


def test_of_a_brief_object_the_checked_fields_are_shown() -> None:
    assert told(lambda it: it.json("answered", {"status": "issued", "scope": "openid"}, only=["status"])) == [
        '               answered {"status": "issued", …}'
    ]


def test_a_redirect_shows_its_parameters_once() -> None:
    address = f"http://a.example/authorize?scope=openid+orders.read&state={SECRET}&next=%2Fother%3Fstate%3D{SECRET}"

    def twice(transcript: Transcript) -> None:
        transcript.answer(303, address)
        transcript.answer(302, address)

    assert told(twice) == [
        "             → 303 See Other, on to http://a.example/authorize",
        "                 scope=openid orders.read",
        "                 state=Zm9vYm…",
        "                 next=/other?…",
        "             → 302 Found, on to http://a.example/authorize?…",
    ]
