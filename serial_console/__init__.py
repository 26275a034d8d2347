"""Browser serial console for libvirt guests: supervisor, relays, REST and command line."""

__version__ = "0.1.0"
