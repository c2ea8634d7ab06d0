"""Large transfers: download a blob to a file, upload one, and copy artifacts between registries."""

from ._copy import copy
from ._download import download
from ._progress import Progress, ProgressCallback
from ._upload import upload

__all__ = ["download", "upload", "copy", "Progress", "ProgressCallback"]
