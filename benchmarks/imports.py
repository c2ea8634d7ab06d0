"""Import time with compiled bytecode, as in an installed package."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import ociwire
from benchmarks.figures import Figure

_TURNS = 25
_TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
_URLLIB3 = "import urllib3"


def figures(folder: Path) -> Iterator[Figure]:
    """Yield the import times of ociwire and of its client, compared with urllib3."""
    installed = Path(shutil.copytree(Path(ociwire.__file__).parent, folder / "installed" / "ociwire"))
    compileall.compile_dir(installed, quiet=1)
    for statement, bound in (("import ociwire", "at most 1.4"), ("from ociwire import Client", "")):
        taken = [(_seconds(statement, installed.parent), _seconds(_URLLIB3, installed.parent)) for _ in range(_TURNS)]
        milliseconds = median(one for one, _ in taken) * 1000
        ratio = median(one / other for one, other in taken)
        yield Figure(f"`{statement}`", f"{milliseconds:.1f} ms", ratio, f"`{_URLLIB3}`", bound)


def _seconds(statement: str, path: Path) -> float:
    environment = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, "-c", _TIMED.format(statement)]
    return float(
        subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment, cwd=path).stdout
    )
