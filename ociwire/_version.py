"""Version of the package, also used for its metadata and its User-Agent header."""

__version__ = "0.2.0"
