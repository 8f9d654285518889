"""URIs as messages print them: whoever reads a log must not get the rights of whoever wrote it."""

import re

_USER = re.compile(r"(\w://)[^/@\s'\"]*@")
_QUERY = re.compile(r"(\w://[^\s'\"?]*)\?[^\s'\")]*")  # a signed URL's signature is in its query


def shown(text: str) -> str:
    """A URI, or text with URIs in it, without users, passwords and queries; other text stays as it is."""
    return _QUERY.sub(r"\1", _USER.sub(r"\1", text))


def has_secrets(uri: str) -> bool:
    """Whether a URI carries a password, or a query as signed URLs do."""
    user = _USER.search(uri)
    return bool(_QUERY.search(uri)) or (user is not None and ":" in user.group()[user.group().index("//") :])
