"""Run by a Python that a guarded one started, before anything else: turn the egress guard on.

Another `sitecustomize`, which this one hides, is run afterwards.
"""

import importlib.util
import os
import sys
from importlib.machinery import PathFinder

_HERE = os.path.dirname(os.path.abspath(__file__))


def _guard(log: str) -> None:
    """Load the guard by its path (npc_local need not be installed here) and turn it on."""
    name = "npc_local.core.offline.egress"  # so that npc_local, if it is here, finds this very one
    path = os.path.join(os.path.dirname(_HERE), "egress.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    module.arm_child(log)


def _run_hidden() -> None:
    """Run the `sitecustomize` that would have been found without this one."""
    others = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


_log = os.environ.get("NPC_LOCAL_EGRESS_LOG")
if _log:
    _guard(_log)
_run_hidden()
