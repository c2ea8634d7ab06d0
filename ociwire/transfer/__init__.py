"""Large transfers, on top of the client: a blob into a file, out of one, and whole artifacts between registries."""

from ._copy import copy
from ._download import download
from ._progress import Progress, ProgressCallback
from ._upload import upload

__all__ = ["download", "upload", "copy", "Progress", "ProgressCallback"]
