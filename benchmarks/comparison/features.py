"""Rows about features of the packages, and about operations that take one call."""

from __future__ import annotations

import base64
import importlib
import json
import pkgutil
import re
from contextlib import suppress
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.resources import files

from benchmarks.comparison.clients import PASSWORD, REPOSITORY, USER, Contender, run
from benchmarks.comparison.rows import Rows, fails
from benchmarks.comparison.servers import (
    CONTENT,
    DESCRIPTOR,
    Lab,
    generous,
    guarded,
    has_content,
    with_content,
)
from ociwire.testing import MemoryRegistry, serve

ROWS = Rows()


@ROWS.ask(
    "Ships a fake for tests without a server",
    dict.fromkeys(
        ("oras-py", "dxf"), "It uses requests, for which other packages provide fakes: `responses`, `requests-mock`."
    ),
)
def fakes(make: type[Contender], lab: Lab) -> bool:
    package = importlib.import_module(make.package)
    for module in pkgutil.walk_packages(package.__path__, f"{make.package}."):
        if re.search(r"__main__|\.tests\b", module.name):
            continue
        names = vars(importlib.import_module(module.name))
        if any(re.search("Fake|Mock|Memory|Scripted|Stub", name) for name in names):
            return True
    return False


@ROWS.ask("Ships type hints (`py.typed`)")
def typed(make: type[Contender], lab: Lab) -> bool:
    return files(make.package).joinpath("py.typed").is_file()


@ROWS.ask("Number of dependencies, including indirect ones")
def dependencies(make: type[Contender], lab: Lab) -> str:
    needed: set[str] = set()
    _collect(distribution(make.distribution), needed)
    return str(len(needed))


def _collect(package: Distribution, needed: set[str]) -> None:
    for requirement in package.requires or ():
        name = re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-")
        if name in needed or re.search(r"\bextra\b", requirement):
            continue
        with suppress(PackageNotFoundError):  # its environment marker excludes it here
            found = distribution(name)
            needed.add(name)
            _collect(found, needed)


@ROWS.ask("Finds Docker's stored credentials without configuration")
def logins_found(make: type[Contender], lab: Lab) -> bool:
    store = MemoryRegistry()
    with serve(generous(guarded(store)), tls=lab.tls) as url:
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        config = lab.folder / ".docker" / "config.json"
        config.parent.mkdir(exist_ok=True)
        config.write_text(json.dumps({"auths": {url.host: {"auth": auth}}}))
        try:
            failed = fails(lambda: make(url.host, lab.ca, login=False).push(lab.file()))
        finally:
            config.unlink()
    return not failed and has_content(store)


@ROWS.ask("Reports upload progress")
def told(make: type[Contender], lab: Lab) -> bool:
    with serve(MemoryRegistry()) as url:
        return make(url.host).push_told(lab.file()) == len(CONTENT)


@ROWS.ask("Pushes a directory as an artifact and pulls it in one call each")
def folders(make: type[Contender], lab: Lab) -> bool:
    source = lab.empty(f"{make.package}-source")
    (source / "one.txt").write_text("one")
    (source / "two.txt").write_text("two")
    target = lab.empty(f"{make.package}-target")
    with serve(MemoryRegistry()) as url:
        make(url.host).push_folder(source)
        make(url.host).pull_folder(target)
    return (target / source.name / "two.txt").read_text() == "two"


@ROWS.ask("Pulls an image into an OCI image layout on disk")
def layouts(make: type[Contender], lab: Lab) -> bool:
    target = lab.folder / f"{make.package}-layout"
    with serve(with_content(MemoryRegistry())) as url:
        make(url.host).pull_layout("v1", target)
    return (target / "blobs" / "sha256" / DESCRIPTOR.digest.encoded).read_bytes() == CONTENT


@ROWS.ask("Writes a login to Docker's configuration file")
def logins_written(make: type[Contender], lab: Lab) -> bool:
    config = lab.folder / f"{make.package}.json"
    make("127.0.0.1:9").write_login(config)
    return "127.0.0.1:9" in json.loads(config.read_text())["auths"]


@ROWS.ask(
    "Has a command that pushes and pulls",
    {
        "oras-py": "The `oras` command is a separate project, written in Go.",
        "ociwire": "The `ociwire` command explains how a reference is resolved; it neither pushes nor pulls.",
    },
)
def commands(make: type[Contender], lab: Lab) -> bool:
    store = MemoryRegistry()
    push, pull = make.commands
    with serve(store) as url:
        variables = {"DXF_HOST": url.host, "DXF_INSECURE": "1"}
        pushed = run("-m", make.package, push, REPOSITORY, str(lab.file()), **variables)
        pulled = run("-m", make.package, pull, REPOSITORY, DESCRIPTOR.digest, **variables)
    return pushed.returncode == 0 and has_content(store) and pulled.stdout == CONTENT
