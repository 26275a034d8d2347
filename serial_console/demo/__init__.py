"""A guest, a private libvirtd and the console on top, for whoever wants to see it work."""
