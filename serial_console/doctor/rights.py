"""The services' rights: that root can read a file says nothing about who has to."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator


@contextlib.contextmanager
def of(user: str) -> Iterator[None]:
    """Open files as a user may, until the context ends; "": as ourselves.

    Raises:
        KeyError: there is no such user.
        OSError: we are not root.
    """
    if not user:
        yield
        return
    entry = pwd.getpwnam(user)
    os.initgroups(user, entry.pw_gid)  # root needs none of its own back
    os.setegid(entry.pw_gid)
    os.seteuid(entry.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def denied(user: str, path: str) -> bool:
    """Tell whether a file, or a directory on the way to it, keeps a user from reading it."""
    with of(user):
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
        except PermissionError:
            return True
        except OSError:  # told of by others
            pass
    return False
