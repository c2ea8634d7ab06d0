"""Version of the package, also used for its metadata and its User-Agent header."""

__version__ = "0.1.0"
