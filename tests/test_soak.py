"""Short soak test (``python -m tests.soak``) in its own process, so that a hang is a failure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIMIT = 120.0
"""Seconds after which the soak test counts as hanging. It takes about four."""


def test_soak_with_leaks_faults_and_collections_ends_without_violation() -> None:
    command = [sys.executable, "-m", "tests.soak", "--memory", "--operations", "500", "--threads", "16", "--seed", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
