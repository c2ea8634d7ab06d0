"""On Windows, which has no POSIX functions, all modules can be imported and what needs the functions raises an error.

The tests simulate Windows in a subprocess: modules that it does not have cannot be imported, and functions and flags
that it does not have are deleted from `os`.
"""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import ociwire

MISSING_MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")
MISSING_NAMES = [
    *(
        "O_CLOEXEC",
        "O_DIRECTORY",
        "O_NOFOLLOW",
        "O_NONBLOCK",
        "fchmod",
        "fchown",
        "geteuid",
        "getuid",
        "kill",
        "killpg",
    ),
    *("pread", "preadv", "pwrite", "pwritev", "posix_fadvise", "posix_fallocate", "sched_getaffinity", "sendfile"),
]
SIMULATION = f"""
import importlib, os, ssl, subprocess, sys, tempfile, urllib3  # import the environment first, which is not simulated
for name in {MISSING_MODULES!r}:
    sys.modules[name] = None  # an import raises ImportError
for name in {MISSING_NAMES!r}:
    if hasattr(os, name):
        delattr(os, name)
"""
MODULES = ["ociwire", *(module.name for module in pkgutil.walk_packages(ociwire.__path__, "ociwire."))]


def run(script: str) -> str:
    """Run a script in the simulation and return its output."""
    done = subprocess.run([sys.executable, "-c", SIMULATION + script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_every_module_succeeds() -> None:
    names = [name for name in MODULES if not name.endswith("__main__")]
    script = f"""
for name in {names!r}:
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"{{name}}: {{type(error).__name__}}: {{error}}")
"""
    assert run(script) == ""


def test_memory_registry_and_client_work() -> None:
    script = """
from ociwire import Client, Descriptor
from ociwire.testing import MemoryRegistry
client = Client("registry.example", MemoryRegistry())
descriptor = client.push_blob("app", Descriptor.of(b"content"), b"content")
print(client.get_blob("app", descriptor.digest).read())
"""
    assert run(script) == "b'content'\n"


def test_download_to_a_file_raises_usage_error() -> None:
    script = """
from ociwire import Client, Descriptor, errors, transfer
from ociwire.testing import MemoryRegistry
client = Client("registry.example", MemoryRegistry())
descriptor = client.push_blob("app", Descriptor.of(b"content"), b"content")
try:
    transfer.download(client, "app", descriptor.digest, "target")
except errors.UsageError as error:
    print(error)
"""
    assert "cannot download to a file: expected a POSIX system" in run(script)
