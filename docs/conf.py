"""The documents as a site, and the man pages: ``make docs``, ``make man``."""

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from serial_console import __version__  # noqa: E402 - the same environment

project = "Serial console"
version = release = __version__

extensions = ["myst_parser", "sphinx_argparse_cli", "rest_reference", "titles"]
exclude_patterns = ["_ext"]
nitpicky = True

myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]

highlight_language = "text"

html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_use_index = False

man_pages = [
    ("cli", "serial-console", "browser serial console for libvirt guests", "", 1),
    ("configuration", "serial-console-config", "configuration of serial-console", "", 5),
    ("websockify", "websockify_tokens", "serial-console's token plugin for websockify", "", 8),
]
