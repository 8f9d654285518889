"""URIs as messages print them: whoever reads a log must not get the rights of whoever wrote it."""

import re

from toto.errors import UsageError

_USER = re.compile(r"(\w://)[^/@\s'\"]*@")
_QUERY = re.compile(r"(\w://[^\s'\"?]*)\?[^\s'\")]*")  # a signed URL's signature is in its query


def shown(text: str) -> str:
    """A URI, or text with URIs in it, without users, passwords and queries; other text stays as it is."""
    return _QUERY.sub(r"\1", _USER.sub(r"\1", text))


def refuse_secrets(uri: str, what: str) -> None:
    """Raises UsageError for a URI with secrets: they would stand in logs, errors and what is published."""
    if has_secrets(uri):
        raise UsageError(
            f"{shown(uri)}: an address of {what} must hold no password and no query; "
            "give the credentials as this store's library takes them (environment, configuration file)"
        )


def has_secrets(uri: str) -> bool:
    """Whether a URI carries a password, or a query as signed URLs do."""
    if uri.startswith("file://"):  # a name may hold any of these signs
        return False
    user = _USER.search(uri)
    return bool(_QUERY.search(uri)) or (user is not None and ":" in user.group()[user.group().index("//") :])
