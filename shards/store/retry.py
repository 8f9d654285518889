"""What an object store's error means, and trying again where that may help.

    no answer, 408, 409, 425, 429, 5xx, a body that breaks off      tried again after each pause
    404                                                             FileNotFoundError
    412, or "exists already"                                        FileExistsError
    403, no such bucket, no credentials, another 4xx, 501, what the library cannot do    UserError at once: one line

fsspec's file systems raise exceptions of their own libraries; the HTTP status is found in them, or in their cause.
"""

import errno
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from toto.errors import UserError
from toto.uris import shown

T = TypeVar("T")

PAUSES_S = (0.5, 2.0, 8.0, 30.0)  # on top of what the libraries try by themselves
_PASSING = frozenset({408, 409, 425, 429})
_CUT_OFF = frozenset({"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"})  # S3's, with 400
_BROKEN_OFF = frozenset({"ClientPayloadError", "HttpProcessingError"})  # aiohttp's; the 400 in them is its own
_OUR_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
# A wrong URI or option, or a library that is missing: the same again a second later, so it is told at once.
_HOPELESS = (ValueError, TypeError, AttributeError, NotImplementedError, ImportError)
_NO_LOGIN = ("Credentials", "Token", "Profile", "Auth", "ParamValidation")  # in names of botocore's, google's errors


def patiently(act: Callable[[], T], place: str, pauses_s: Sequence[float] | None = None) -> T:
    """What `act` returns, tried again after each pause while its failure may pass; `place` stands in errors.

    Raises FileNotFoundError, FileExistsError, an OSError of this machine's disk, or UserError.
    """
    for pause_s in (*(PAUSES_S if pauses_s is None else pauses_s), None):
        try:
            return act()
        except Exception as error:
            lasting = _lasting(error, place)
            if lasting is not None:
                raise lasting from None
            if pause_s is None:
                raise UserError(f"{place}: the store does not answer ({told(error)}); run again later") from None
            time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")


def told(error: BaseException) -> str:
    """An error in at most 200 characters of one line, without the secrets that its URLs may hold."""
    text = shown(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__


def _lasting(error: Exception, place: str) -> Exception | None:
    """The error to raise where trying again is of no use; None where it may help."""
    if isinstance(error, UserError) or (isinstance(error, OSError) and error.errno in _OUR_DISK):
        return error
    if isinstance(error, TimeoutError | json.JSONDecodeError) or _code(error) in _CUT_OFF or _broke_off(error):
        return None
    status = _status(error)
    if "bucket does not exist" in str(error).lower():
        return UserError(f"{place}: no such bucket; create it, or correct its name")
    if isinstance(error, FileNotFoundError) or status == 404:
        return FileNotFoundError(errno.ENOENT, "no such file", place)
    if isinstance(error, FileExistsError) or status == 412:
        return FileExistsError(errno.EEXIST, "exists", place)
    if isinstance(error, PermissionError) or status in (401, 403) or any(n in type(error).__name__ for n in _NO_LOGIN):
        return UserError(f"{place}: access denied ({told(error)}); check the credentials and what they allow")
    refused = status is not None and (400 <= status < 500 or status == 501) and status not in _PASSING
    if refused or isinstance(error, _HOPELESS):
        return UserError(f"{place}: the store refuses ({told(error)})")
    return None


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error, or the one that caused it, carries."""
    return next((status for link in _chain(error) for status in _statuses(link)), None)


def _code(error: BaseException) -> str | None:
    """The name that S3 gives its error, where there is one."""
    answers = (getattr(link, "response", None) for link in _chain(error))
    return next((answer.get("Error", {}).get("Code") for answer in answers if isinstance(answer, dict)), None)


def _broke_off(error: BaseException) -> bool:
    """Whether an answer ended too early, or is not one of HTTP."""
    return any(kind.__name__ in _BROKEN_OFF for link in _chain(error) for kind in type(link).__mro__)


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _statuses(error: BaseException) -> Iterator[int]:
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    yield from filter(_is_status, (response, getattr(response, "status_code", None)))  # the latter: requests
    for name in ("status", "code"):  # aiohttp, gcsfs
        yield from filter(_is_status, (getattr(error, name, None),))


def _is_status(value: object) -> bool:
    return isinstance(value, int) and 100 <= value < 600
