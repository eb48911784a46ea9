"""Conversation ids: what the API accepts, and how to make one of whatever a messaging platform has."""

import hashlib
import re

LONGEST_ID = 200
# "." and ".." are refused: HTTP clients take them out of a path, and the call would go elsewhere.
_ACCEPTED = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._~:@|=;,+!$*()-]{1,200}")


def conversation_id_of(*names: str) -> str:
    """Return the id of one person's chat: of the platform's id of a private chat, or of a room and a person.

    Different names get different ids. Raises `ValueError` if a name is missing.
    """
    if not (names and all(names)):
        raise ValueError("name room and person: without the person, everybody in a room would share one permission")
    # Of the characters that an id may have, "|" and "=" are kept for this. All others become = and two hex digits.
    other = rb"\." if names in {(".",), ("..",)} else rb"[^A-Za-z0-9._~:@;,+!$*()-]"
    parts = (name.encode("utf-8", "surrogatepass") for name in names)
    chat = b"|".join(re.sub(other, lambda found: b"=%02X" % ord(found[0]), part) for part in parts).decode()
    return chat if len(chat) <= LONGEST_ID else f"sha256=={hashlib.sha256(chat.encode()).hexdigest()}"


def accepted(conversation_id: str) -> str:
    """Pass an id through. Raises `ValueError` for one that the API would refuse."""
    if not _ACCEPTED.fullmatch(conversation_id):
        raise ValueError("this is no conversation id: make one of the platform's id with conversation_id_of()")
    return conversation_id
