"""``python -m serial_console`` and the command ``serial-console``."""

from __future__ import annotations

import sys

try:
    from .cli import main
except ModuleNotFoundError as missing:
    # For the doctor too: nothing works then, and that is all that there is to say.
    sys.exit(
        f"serial-console: the Python package {missing.name} is missing; "
        "install serial-console again (docs/install.md)"
    )

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
