"""A real server and its client where there is loopback alone; and the control of its trace."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.air_gap import departures, sealing, tracing
from tests.real_vllm.conftest import skip
from tests.real_vllm.tiny_qwen import ROOT


def test_the_agents_answer_where_there_is_only_loopback(vllm_python):
    test = f"{ROOT}/tests/real_vllm/test_real_vllm.py::test_the_agents_answer"
    try:
        command = sealing([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test])
    except LookupError as error:
        skip(str(error))
    environment = os.environ | {"NPC_LOCAL_CI": "1", "NPC_LOCAL_VLLM_PYTHON": str(vllm_python)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "1 passed" in done.stdout


def test_without_our_switches_vllm_does_reach_out_and_the_trace_shows_it(vllm_python, tmp_path):
    """The control: the same trace, of one thing that vLLM does when nobody tells it its address."""
    asks = "from vllm.utils.network_utils import get_ip; get_ip()"
    trace = tmp_path / "trace"
    try:
        command = tracing([str(vllm_python), "-c", asks], trace)
    except LookupError as error:
        skip(str(error))
    environment = {"PATH": os.environ["PATH"], "VLLM_NO_USAGE_STATS": "1"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert "8.8.8.8" in "".join(departures(trace.read_text(errors="replace")))
