"""The benchmarks by name; a new one is one more entry here."""

from __future__ import annotations

from pathlib import Path

from npc_local.bench.suites.suite import Suite
from npc_local.core.errors import ConfigError

SUITES = ("geneval++", "imagine", "shapes")


def open_suite(name: str, data: Path | None = None) -> Suite:
    """Open a benchmark by name, its records read and checked.

    Args:
        name: one of `SUITES`.
        data: the records' file, or the directory that it lies in; None looks where
            scripts/download_models.sh puts it.

    Raises:
        ConfigError: there is no such benchmark; or its records are missing, damaged or incomplete.
    """
    if name == "geneval++":
        from npc_local.bench.suites.geneval_pp import GenEvalPlusPlus

        return GenEvalPlusPlus(data)
    if name == "imagine":
        from npc_local.bench.suites.imagine import ImagineBench

        return ImagineBench(data)
    if name != "shapes":
        raise ConfigError(f"no benchmark {name!r}; known: {', '.join(SUITES)}")
    from npc_local.bench.suites.shapes import ShapesBench

    if data is not None:
        raise ConfigError("the shapes benchmark makes its own records; leave --data out")
    return ShapesBench()
