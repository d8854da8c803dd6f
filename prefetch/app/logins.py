"""A user and a password from options: the password never stands on a command line."""

from __future__ import annotations

import os
import re
from pathlib import Path

from prefetch.clientconfig.files import is_text
from prefetch.credentials.credential import Credential, Secret
from prefetch.errors import UsageError

_MAX_PASSWORD = 1 << 20
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def credential_of(
    username: str | None, variable: str | None, file: Path | None
) -> Credential | None:
    """`--username` with `--password-env` or `--password-file`, which is read now; None for none.

    Raises UsageError, also for what Basic credentials cannot carry (RFC 7617, section 2).
    """
    if username is None:
        if variable is None and file is None:
            return None
        raise UsageError("a password needs --username")
    if (variable is None) == (file is None):
        raise UsageError("--username needs either --password-env or --password-file")
    if not username or ":" in username or _CONTROLS.search(username):
        raise UsageError("--username: a name for Basic credentials is not empty and has no colon")
    text = _variable(variable) if variable is not None else _file(file or Path())
    password = text.removesuffix("\n").removesuffix("\r")
    where = f"${variable}" if variable is not None else str(file)
    if not password:
        raise UsageError(f"the password is missing: {where} is empty")
    if not is_text(password + username):
        raise UsageError(f"the user and the password in {where} have to be UTF-8")
    if _CONTROLS.search(password):
        raise UsageError(f"the password in {where} has control characters or several lines")
    return Credential(username, Secret(password))


def _variable(name: str) -> str:
    text = os.environ.get(name)
    if text is None:
        raise UsageError(f"--password-env: the environment has no {ascii(name)[1:-1]}")
    return text


def _file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_PASSWORD + 1)
        text = data.decode()
    except OSError as error:
        raise UsageError(f"--password-file: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--password-file: {path} is not UTF-8") from None
    if len(data) > _MAX_PASSWORD:
        raise UsageError(f"--password-file: {path} is larger than {_MAX_PASSWORD} bytes")
    return text
