"""The switches: set over the environment's own, never too late in silence, and in children too."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from npc_local.core.errors import ConfigError
from npc_local.core.offline.egress import CHILD_HOME
from npc_local.core.offline.switches import SWITCHES, UNSET, child_environment, go_offline


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter whose environment asks for the network."""
    online = os.environ | dict.fromkeys(SWITCHES, "0") | variables
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=online)


def test_hub_is_offline_whatever_the_environment_says() -> None:
    run = python(
        "from npc_local.core.offline.switches import go_offline; go_offline(); go_offline(); "
        "from huggingface_hub import constants; "
        "print(constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY)"
    )
    assert run.stdout == "True True\n"


def test_a_hub_that_was_imported_online_is_switched_off() -> None:
    """As in a notebook, where a pipeline was loaded before npc-local is called."""
    run = python(
        "import diffusers, huggingface_hub; from huggingface_hub import errors; "
        "from npc_local.core.offline.switches import go_offline; go_offline()\n"
        "try: huggingface_hub.HfApi().model_info('org/name')\n"
        "except errors.OfflineModeIsEnabled: print('refused before any request')"
    )
    assert run.stdout == "refused before any request\n", run.stderr


def test_shared_compile_caches_are_off_whatever_the_environment_says() -> None:
    names = [name for name in SWITCHES if name.startswith("TORCH")]
    run = python(
        "from npc_local.core.offline.switches import go_offline; go_offline()\n"
        "import os, torch._dynamo.config as d, torch._functorch.config as f\n"
        "import torch._inductor.config as i\n"
        "print(i.fx_graph_remote_cache, i.autotune_remote_cache, i.bundled_autotune_remote_cache,\n"
        "      f.enable_remote_autograd_cache, d.automatic_dynamic_remote_pgo,\n"
        "      *(name in os.environ for name in ('TRITON_REMOTE_CACHE_BACKEND',)))",
        **dict.fromkeys(names, "1"),
        TRITON_REMOTE_CACHE_BACKEND="somewhere:Cache",
    )
    assert run.stdout.split() == ["False"] * 6, run.stderr


@pytest.fixture
def clean(monkeypatch):
    """Leave the environment of the other tests as it was."""
    for name in [*SWITCHES, *UNSET, "MPLCONFIGDIR", "TRITON_CACHE_DIR"]:
        monkeypatch.setenv(name, "set")
    return monkeypatch


def test_a_writable_home_keeps_its_caches(clean, tmp_path) -> None:
    clean.setenv("HOME", str(tmp_path))
    clean.delenv("MPLCONFIGDIR")
    go_offline()
    assert "MPLCONFIGDIR" not in os.environ
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_home_gets_caches_for_this_process_alone(tmp_path) -> None:
    """F36; that of a root that may write anywhere: a home that is no directory."""
    home = tmp_path / "home"
    home.write_text("")
    run = python(
        "import os; os.environ.pop('MPLCONFIGDIR', None); os.environ['TRITON_CACHE_DIR'] = 'mine'\n"
        "from npc_local.core.offline.switches import child_environment, go_offline; go_offline()\n"
        "print(os.environ['MPLCONFIGDIR'], os.environ['TRITON_CACHE_DIR'])\n"
        "assert child_environment({})['MPLCONFIGDIR'] == os.environ['MPLCONFIGDIR']\n"
        "import matplotlib; assert matplotlib.get_cachedir() == os.environ['MPLCONFIGDIR']"
        if _has_matplotlib()
        else "import os; os.environ.pop('MPLCONFIGDIR', None)\n"
        "os.environ['TRITON_CACHE_DIR'] = 'mine'\n"
        "from npc_local.core.offline.switches import go_offline; go_offline()\n"
        "print(os.environ['MPLCONFIGDIR'], os.environ['TRITON_CACHE_DIR'])",
        HOME=str(home),
        TMPDIR=str(tmp_path),
    )
    assert run.returncode == 0, run.stderr
    matplotlib, triton = run.stdout.split()
    assert matplotlib.startswith(str(tmp_path))
    assert triton == "mine"
    assert list(tmp_path.iterdir()) == [home]  # removed at the end


def test_caches_of_a_process_that_was_killed_go_with_the_next_one(tmp_path) -> None:
    (tmp_path / "home").write_text("")
    where = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    code = (
        "import os, sys, tempfile; os.environ.pop('MPLCONFIGDIR', None)\n"
        "from npc_local.core.offline.switches import go_offline; go_offline()\n"
        "print(len([*os.scandir(tempfile.gettempdir())]), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code + "sys.stdin.read()"],
        env=os.environ | where,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as living:
        assert living.stdout is not None
        assert living.stdout.readline() == b"2\n"  # the home, and its own caches
        killed = python(code + "os.kill(os.getpid(), 9)", **where)
        assert killed.stdout == "3\n"
        assert python(code, **where).stdout == "3\n"  # not those of one that lives
        living.communicate()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def _has_matplotlib() -> bool:
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def test_a_child_gets_what_it_needs_and_no_more(clean) -> None:
    clean.setenv("PATH", "/bin")
    clean.setenv("LC_ALL", "C.UTF-8")
    clean.setenv("CUDA_VISIBLE_DEVICES", "1")
    clean.setenv("PYTHONPATH", "/ours")
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "NVIDIA_API_KEY", "HTTPS_PROXY", "http_proxy"):
        clean.setenv(name, "secret")
    child = child_environment({"MINE": "1", "PYTHONPATH": "/theirs"})
    assert (child["PATH"], child["LC_ALL"], child["MINE"]) == ("/bin", "C.UTF-8", "1")
    assert child["CUDA_VISIBLE_DEVICES"] == "1"
    assert "secret" not in child.values()
    assert SWITCHES.items() <= child.items()
    assert not set(UNSET) & set(child)
    assert child["PYTHONPATH"] == os.pathsep.join([str(CHILD_HOME), "/theirs"])
    assert (child["NO_PROXY"], child["no_proxy"]) == ("*", "*")


@pytest.mark.parametrize(
    "name",
    [
        "HF_HUB_OFFLINE",
        "https_proxy",
        "ALL_PROXY",
        "TRITON_REMOTE_CACHE_BACKEND",
        "NPC_LOCAL_EGRESS_LOG",
    ],
)
def test_a_child_cannot_be_given_the_network(name) -> None:
    with pytest.raises(ConfigError, match=name):
        child_environment({name: "0"})


def test_a_switch_may_be_repeated() -> None:
    assert child_environment({"HF_HUB_OFFLINE": "1"})["HF_HUB_OFFLINE"] == "1"
