"""Parse an HTML page: its forms, its text and its data attributes."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

Attributes = list[tuple[str, str | None]]
SILENT = frozenset({"script", "style", "title"})


@dataclass
class Button:
    name: str
    value: str
    words: str = ""


@dataclass
class Form:
    action: str
    method: str
    fields: dict[str, str | list[str]] = field(default_factory=dict)
    buttons: list[Button] = field(default_factory=list)

    def add(self, name: str, value: str) -> None:
        """Add a field. Several ticked boxes with the same name become a list."""
        earlier = self.fields.get(name)
        if earlier is None:
            self.fields[name] = value
        else:
            self.fields[name] = [*(earlier if isinstance(earlier, list) else [earlier]), value]

    def button(self, words: str) -> dict[str, str] | None:
        """The fields that the button adds to the form; None if the form has no such button."""
        for button in self.buttons:
            if button.words.startswith(words):
                return {button.name: button.value} if button.name else {}
        return None


@dataclass
class ParsedPage:
    forms: list[Form] = field(default_factory=list)
    data: dict[str, str] = field(default_factory=dict)
    text: str = ""


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = ParsedPage()
        self.words: list[str] = []
        self.form: Form | None = None
        self.button: Button | None = None
        self.silent = False

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        given = {name: value or "" for name, value in attrs}
        self.page.data.update({name: value for name, value in given.items() if name.startswith("data-")})
        self.silent = tag in SILENT
        if tag == "form":
            self.form = Form(given.get("action", ""), given.get("method", "get").upper())
            self.page.forms.append(self.form)
        elif tag == "button":
            self._open_button(given)
        elif tag == "input":
            self._read_input(given)

    def handle_endtag(self, tag: str) -> None:
        self.silent = False
        if tag == "form":
            self.form = None
        elif tag == "button":
            self.button = None

    def handle_data(self, data: str) -> None:
        words = " ".join(data.split())
        if self.silent or not words:
            return
        self.words.append(words)
        if self.button is not None:
            self.button.words = f"{self.button.words} {words}".strip()

    def _open_button(self, given: dict[str, str]) -> None:
        self.button = Button(given.get("name", ""), given.get("value", ""))
        if self.form is not None and given.get("type", "submit") == "submit":
            self.form.buttons.append(self.button)

    def _read_input(self, given: dict[str, str]) -> None:
        kind, name = given.get("type", "text"), given.get("name", "")
        unticked = kind in {"checkbox", "radio"} and "checked" not in given
        if self.form is not None and name and not unticked and kind not in {"submit", "button", "reset"}:
            self.form.add(name, given.get("value", ""))


def parse_page(html: str) -> ParsedPage:
    parser = _Parser()
    parser.feed(html)
    parser.page.text = " ".join(parser.words)
    return parser.page
