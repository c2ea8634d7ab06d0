"""Checks the README's comparison by experiments: ``python -m benchmarks.comparison``.

Every row is an experiment in `http_behaviour` or `features`, which runs ociwire, oras-py and dxf against servers on
loopback. The command prints the table. With ``--write`` it updates the README, otherwise a README with another table is
an error.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks.comparison import features, http_behaviour
from benchmarks.comparison.clients import CONTENDERS, Contender, NotOfferedError, without_sleeps
from benchmarks.comparison.rows import Row
from benchmarks.comparison.servers import Lab

_README = Path(__file__).parent.parent.parent / "README.md"
_BEGIN, _END = "<!-- checked by `python -m benchmarks.comparison`: -->\n", "<!-- end of the checked table -->\n"


def main() -> None:
    """Run all experiments, print the table, and compare it with the README or write it there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comparison", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write the table into {_README.name}")
    write = parser.parse_args().write
    logging.disable()  # the faults in the experiments make servers and clients log errors
    with tempfile.TemporaryDirectory() as name:
        os.environ["HOME"] = name  # isolates the experiments from the user's own logins
        for variable in ("DOCKER_CONFIG", "DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
            os.environ.pop(variable, None)
        table = "\n".join(_table(Lab.furnish(Path(name)))) + "\n"
    print(table)
    _hold(table, write=write)


def _table(lab: Lab) -> list[str]:
    names = [f"{make.name} {version(make.distribution)}" for make in CONTENDERS]
    lines = ["| | " + " | ".join(["ociwire", *names[1:]]) + " |", "|---" * (len(names) + 1) + "|"]
    notes: list[str] = []
    for row in [*http_behaviour.ROWS, *features.ROWS]:
        cells = [_cell(row, make, lab, notes) for make in CONTENDERS]
        lines.append("| " + " | ".join([row.question, *cells]) + " |")
    return [*lines, *([""] if notes else []), *(f"{number}. {note}" for number, note in enumerate(notes, 1))]


def _cell(row: Row, make: type[Contender], lab: Lab, notes: list[str]) -> str:
    note = row.notes.get(make.name, "")
    with without_sleeps():
        try:
            result = row.check(make, lab)
        except NotOfferedError as error:
            result, note = error.verdict, str(error)
        except Exception:  # noqa: BLE001 - any exception means that the feature does not work
            result = False
    text = result if isinstance(result, str) else "yes" if result else "no"
    if not note or text == "yes":
        return text
    if note not in notes:
        notes.append(note)
    return f"{text} ({notes.index(note) + 1})"


def _hold(table: str, *, write: bool) -> None:
    text = _README.read_text("utf-8")
    before, begun, rest = text.partition(_BEGIN)
    there, ended, after = rest.partition(_END)
    if not (begun and ended):
        print(f"no table in {_README.name}: expected {_BEGIN.strip()} ... {_END.strip()}", file=sys.stderr)
    elif write:
        _README.write_text(before + _BEGIN + "\n" + table + "\n" + _END + after, "utf-8")
    elif there.strip() != table.strip():
        sys.exit(f"{_README.name} has another table: update it with `python -m benchmarks.comparison --write`")


if __name__ == "__main__":
    main()
