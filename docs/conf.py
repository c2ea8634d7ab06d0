"""Sphinx configuration. CONTRIBUTING.md, "Documentation", says how to build the site."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from ociwire import __version__

project = "ociwire"
author = "The ociwire authors"
copyright = "2026, the ociwire authors"  # noqa: A001 - Sphinx's name
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "made", "references"]

default_role = "py:obj"
nitpicky = True
# `references` in _ext resolves short names, parameters and names of other packages. The rest is not documented:
nitpick_ignore = [
    ("py:class", "Buffer"),  # of typing_extensions, which autodoc does not import
    ("py:class", "_Hash"),  # of typeshed: the result of hashlib.new()
    ("py:obj", "origin_policy"),  # a module, named where an error of it is explained
]
nitpick_ignore_regex = [
    ("py:class", r"([\w.]+\.)?[TR]"),  # type variables
    ("py:class", r"([\w.]+\.)?_(Unset|Threads|Call)"),  # defaults and types that only ociwire creates
    ("py:class", r"([\w.]+\.)?(Repository|IncompleteUpload)"),  # parameters of `BlobWriter`, which only the client sets
    (
        "py:class",
        r"([\w.]+\.)?(BodyContent|_Content|Source|Reader|BinaryReader|CredentialsLike|TLS)",
    ),  # aliases: the content types of `Body.of`, and the types of the options ``credentials`` and ``tls``
    # Keyword arguments of `replace` and `from_reference`, which are those of the constructor.
    ("py:class", r"[A-Z]\w+(Fields|Options)"),
]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
add_module_names = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = "ociwire"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
