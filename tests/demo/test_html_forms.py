from demo.html_forms import parse_page


def test_a_form_keeps_hidden_fields_and_ticked_boxes_only() -> None:
    page = parse_page(
        '<form method="post" action="/go"><input type="hidden" name="csrf" value="x">'
        '<input type="checkbox" name="scopes" value="openid" checked>'
        '<input type="checkbox" name="scopes" value="orders.read" checked>'
        '<input type="checkbox" name="scopes" value="profile"><input type="submit" name="no" value="no"></form>'
    )
    (form,) = page.forms
    assert (form.method, form.action) == ("POST", "/go")
    assert form.fields == {"csrf": "x", "scopes": ["openid", "orders.read"]}


def test_a_button_is_found_by_its_words_and_brings_its_value() -> None:
    (form,) = parse_page(
        "<form><button name=action value=grant> Allow\n <b>it</b></button><button>Stop</button></form>"
    ).forms
    assert form.button("Allow it") == {"action": "grant"}
    assert form.button("Stop") == {}
    assert form.button("Elsewhere") is None


def test_a_button_that_submits_nothing_is_no_button_of_the_form() -> None:
    (form,) = parse_page("<form><button type=button>Copy code</button></form>").forms
    assert form.button("Copy code") is None


def test_data_attributes_and_words_are_read_and_scripts_are_not() -> None:
    page = parse_page("<title>T</title><script>let x</script><p data-completion-code='493027'>4 9 3 · 0 2 7</p>")
    assert page.data == {"data-completion-code": "493027"}
    assert page.text == "4 9 3 · 0 2 7"
