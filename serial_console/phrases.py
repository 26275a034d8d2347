"""What a person is told of a guest's life, by libvirt's states and events."""

from __future__ import annotations

import libvirt

from .control import State

AWAY = "The connection to libvirt on the host is lost; trying again."
DENIED = "libvirt on the host does not allow this console; trying again."
CONNECTED = {
    State.BUSY: "The console is free again.",
    State.RECONNECTING: "The connection to libvirt is back.",
    State.PAUSED: "The guest runs again.",
    State.CONNECTED: "The console was interrupted; some output may be missing.",
}
HALTED = {
    libvirt.VIR_DOMAIN_PAUSED: "The guest is paused: what you type is held.",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "The guest sleeps: what you type is held.",
    libvirt.VIR_DOMAIN_CRASHED: "The guest has crashed: what you type is held.",
}
"""States of a guest that has a console and does not run."""
SUSPENDED = {
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED: (
        "The guest moves to another host: what you type is held."
    ),
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR: (
        "The guest was paused by an error of its disk: what you type is held."
    ),
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED_WATCHDOG: (
        "The guest was paused by its watchdog: what you type is held."
    ),
}
STARTED = {
    libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED: "The guest has come from another host.",
    libvirt.VIR_DOMAIN_EVENT_STARTED_RESTORED: "The guest goes on where it was saved.",
    libvirt.VIR_DOMAIN_EVENT_STARTED_FROM_SNAPSHOT: "The guest goes on from a snapshot.",
}
RESUMED = {
    libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED: "The guest runs on this host.",
    libvirt.VIR_DOMAIN_EVENT_RESUMED_FROM_SNAPSHOT: "The guest goes on where it was saved.",
}
STOPPED = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: "The guest has shut down",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: "The guest was switched off",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: "The guest has crashed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED: "The guest was saved to disk",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: "The guest was ended by an error on the host",
}
