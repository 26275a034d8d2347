"""``serial-console doctor``: what is wrong on this host, and what to do. It changes nothing."""
