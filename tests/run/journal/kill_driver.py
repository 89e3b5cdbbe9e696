"""Runs the world of `journal_world` again and again; each run kills itself at one more point.

    python tests/kill_driver.py FOLDER

Run n, in FOLDER/n, ends by SIGKILL when it crosses its n-th commit point: before and after every
fsync, rename and statement to the database, and before and after every file. Prints a line "n: name
of the point" a run, and at last "end", when a run has come to its end. Each run is a process of
its own, forked so that nothing has to be imported again.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from functools import partial
from pathlib import Path

from npc_local.core.files import atomic as durable
from npc_local.run.journal import images as journal_images
from tests.run.journal import world as journal_world


class Crossings:
    """Counts commit points, and dies at one of them."""

    def __init__(self, fatal: int, note: Path) -> None:
        self.left, self.note = fatal, note

    def __call__(self, where: str) -> None:
        self.left -= 1
        if not self.left:
            self.note.write_text(where)
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, name, function):
        def crossing(*arguments, **options):
            self(f"before {name}")
            result = function(*arguments, **options)
            self(f"after {name}")
            return result

        return crossing


def install(cross: Crossings) -> None:
    """Put the points where they belong."""

    class Connection(sqlite3.Connection):
        def execute(self, statement, *values):
            what = " ".join(statement.split()[:3])
            if what.startswith(("SELECT", "PRAGMA")):
                return super().execute(statement, *values)
            return cross.around(what, super().execute)(statement, *values)

        def executescript(self, script):
            return cross.around("schema", super().executescript)(script)

    sqlite3.connect = partial(sqlite3.connect, factory=Connection)
    os.fsync = cross.around("fsync", os.fsync)
    os.replace = cross.around("replace", os.replace)
    write = cross.around("file", durable.write_durably)
    durable.write_durably = journal_images.write_durably = write


def main(folder: Path) -> None:
    """Fork a run a point, until one comes to its end."""
    point = 0
    while True:
        point += 1
        home = folder / str(point)
        home.mkdir()
        child = os.fork()
        if not child:
            install(Crossings(point, home / "point"))
            journal_world.run(home / "run", journal_world.Log(home / "calls"))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            print("end", flush=True)
            return
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, status
        print(f"{point}: {(home / 'point').read_text()}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
