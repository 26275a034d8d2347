"""What a relay uses, as it says itself."""

from __future__ import annotations

import mmap

from serial_console import usage


def test_memory_is_measured_every_ten_seconds() -> None:
    """As docs/monitoring.md says: one that stood still would be missed, one each time costs."""
    memory = usage.Memory()
    first = memory.share(1000.0)
    with mmap.mmap(-1, 32 << 20) as more:
        more.write(b"x" * len(more))
        assert memory.share(1009.9) == first
        assert memory.share(1010.0) > first + (16 << 20)
