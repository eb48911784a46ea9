"""Why a key was not wrapped or unwrapped, in words for the operator."""

from typing import Final

NOT_OF_THIS_FORM: Final = "E040"
NOT_INSTALLED: Final = "E041"
NOT_REACHED: Final = "E042"
NOT_PERMITTED: Final = "E043"
NOT_THIS_KEY: Final = "E044"
OPEN_TO_OTHERS: Final = "E045"


class ProviderFailed(Exception):
    """A key was not wrapped or unwrapped.

    `number` is the id of the check that says so. `message` and `hint` contain no key, PIN or credential.
    """

    def __init__(self, number: str, message: str, hint: str) -> None:
        super().__init__(f"{message} {hint}")
        self.number, self.message, self.hint = number, message, hint
