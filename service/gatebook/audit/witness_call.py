"""One call to a witness (C2SP tlog-witness, add-checkpoint), seen from the book.

Owns the request and the reading of the answer. Nothing that a witness says is believed but a cosignature that verifies,
and a size, which only makes the next proof another one.
"""

from __future__ import annotations

import http.client
import re
import ssl
from base64 import b64encode
from collections.abc import Sequence
from urllib.parse import urlsplit

from gatebook.config import is_loopback
from gatebook.errors import GatebookError, InvalidRequestError, VerificationError
from gatebook.tlog.checkpoint import SIZE_MAX
from gatebook.tlog.cosignature import WitnessKey, parse_signature_lines
from gatebook.tlog.note import Signature, parse_note

CALL_SECONDS = 10.0
ANSWER_BYTES_MAX = 64 * 1024
SIZE_TYPE = "text/x.tlog.size"
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n")
_OK, _CONFLICT = 200, 409


class WitnessAwayError(GatebookError):
    """A witness did not cosign; its book goes on without, and asks again."""


class OtherSizeTold(Exception):  # noqa: N818  # an answer, and no error
    """The witness cosigned another size last."""

    def __init__(self, size: int) -> None:
        """Takes that size."""
        super().__init__(size)
        self.size = size


def require_url(url: str) -> str:
    """Returns the submission prefix of a witness without its trailing slash.

    Raises:
        InvalidRequestError: it is no address, or in plain text beyond this machine.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as err:
        raise InvalidRequestError("witness", f"`{url}` is not a URL: {err}") from err
    if (
        parts.scheme not in {"http", "https"}
        or not host
        or not url.isascii()
        or port == 0
        or parts.query
        or parts.fragment
        or parts.username
    ):
        raise InvalidRequestError(
            "witness", f"`{url}` is not the URL of a witness, such as https://witness.example.org"
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise InvalidRequestError("witness", f"`{url}` is reached in plain text beyond this machine: use https")
    return url.rstrip("/")


def ask(url: str, key: WitnessKey, old_size: int, proof: Sequence[bytes], note: bytes) -> Signature:
    """Returns the cosignature of a witness on a checkpoint, verified.

    Raises:
        OtherSizeTold: it cosigned another size last.
        WitnessAwayError: it does not answer, refuses, or answers something else.
    """
    lines = [f"old {old_size}", *(b64encode(value).decode() for value in proof)]
    status, kind, content = _post(url, ("\n".join(lines) + "\n\n").encode() + note)
    if status == _CONFLICT and kind == SIZE_TYPE:
        match = _SIZE.fullmatch(content)
        if match is None or int(match[1]) > SIZE_MAX:
            raise WitnessAwayError("it told a size that is none")
        raise OtherSizeTold(int(match[1]))
    if status != _OK:
        told = content[:200].decode("ascii", "replace").partition("\n")[0]
        raise WitnessAwayError(f"it answered {status}: {''.join(c if c.isprintable() else '?' for c in told)}")
    text = parse_note(note).text
    try:
        for line in parse_signature_lines(content, text):
            if key.is_of(line):
                key.verify(line, text)
                return line
    except VerificationError as err:
        raise WitnessAwayError(f"its cosignature is false: {err.message}") from err
    raise WitnessAwayError("it did not sign with its key")


def _post(url: str, body: bytes) -> tuple[int, str, bytes]:
    """Returns status, content type and content of an answer."""
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(parts.netloc, timeout=CALL_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=CALL_SECONDS)
    try:
        connection.request("POST", f"{parts.path}/add-checkpoint", body)
        answer = connection.getresponse()
        content = answer.read(ANSWER_BYTES_MAX + 1)
        kind = answer.headers.get("content-type", "")
    except (OSError, http.client.HTTPException, UnicodeError) as err:  # the last of a name that none can have
        raise WitnessAwayError(f"it does not answer: {err}") from err
    finally:
        connection.close()
    if len(content) > ANSWER_BYTES_MAX:
        raise WitnessAwayError("it answered more than a witness has to say")
    return answer.status, kind, content
