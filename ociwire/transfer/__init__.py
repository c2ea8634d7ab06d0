"""Large transfers, on top of the client: a blob into a file, out of one, and whole artifacts between registries."""

from .copy import copy
from .download import download
from .progress import Progress, ProgressCallback
from .upload import upload

__all__ = ["download", "upload", "copy", "Progress", "ProgressCallback"]
