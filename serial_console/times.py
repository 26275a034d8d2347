"""Times as programs and people are told them."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(seconds: float, timespec: str = "milliseconds") -> str:
    """Return a Unix time in RFC 3339, UTC, as exact as datetime's ``timespec`` says."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
