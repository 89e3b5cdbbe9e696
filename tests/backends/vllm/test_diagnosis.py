"""What logs of servers that died say first, and what people are told to do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_local.backends.vllm.diagnosis import first_cause

ERROR = "(EngineCore_DP0 pid=71) ERROR 11-29 10:00:01 [core.py:936] "
# A line as its program words it, and a part of the advice.
CAUSES = {
    "/opt/venv/bin/python: No module named vllm": "has no vLLM",
    "ModuleNotFoundError: No module named 'vllm'": "has no vLLM",
    "ValueError: Free memory on device cuda:0 (3.1/23.6 GiB) on startup is less than desired GPU "
    "memory utilization (0.9, 21.3 GiB).": "nvidia-smi lists them",
    "AssertionError: Error in memory profiling. Initial free memory 10.1 GiB, current free memory "
    "20.2 GiB.": "start again once",
    "ValueError: No available memory for the cache blocks. Try increasing "
    "`gpu_memory_utilization` when initializing the engine.": "raise gpu_memory_utilization",
    "ValueError: To serve at least one request with the model's max seq len (8192), 1.0 GiB KV "
    "cache is needed, which is larger than the available KV cache memory (0.4 GiB).": "max_model",
    "ValueError: The model's max seq len (8192) is larger than the maximum number of tokens that "
    "can be stored in KV cache (2400).": "max_model_len",
    "ValueError: max_num_seqs (1024) exceeds available Mamba cache blocks (969).": "max-num-seqs",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.": "out of memory",
    "fatal error: Python.h: No such file or directory": "python3-dev",
    "FileNotFoundError: [Errno 2] No such file or directory: 'ninja'": "pip install ninja",
    "RuntimeError: Ninja is required to load C++ extensions": "pip install ninja",
    "/bin/sh: 1: ninja: not found": "pip install ninja",
    "/bin/sh: 1: /usr/local/cuda/bin/nvcc: not found": "CUDA toolkit",
    "RuntimeError: Could not find nvcc and default cuda_home='/opt/cuda' doesn't exist": "toolkit",
    "OSError: CUDA_HOME environment variable is not set. Please set it to your CUDA.": "toolkit",
    "RuntimeError: Failed to find C compiler. Please specify via CC environment.": "C compiler",
    "FileNotFoundError: [Errno 2] No such file or directory: 'gcc'": "build-essential",
    "/bin/sh: 1: g++: not found": "build-essential",
    "bash: x86_64-linux-gnu-gcc: command not found": "build-essential",
    "gcc: fatal error: cannot execute 'cc1plus': execvp: No such file or directory": "build-essent",
    "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your "
    "Tesla T4 GPU has compute capability 7.5.": 'dtype = "float16"',
    "UserWarning: CUDA initialization: The NVIDIA driver on your system is too old (found version "
    "11040).": "update the driver",
    "RuntimeError: CUDA error: CUDA driver version is insufficient for CUDA runtime version": (
        "update the driver"
    ),
    "CUDA error: the provided PTX was compiled with an unsupported toolchain.": "the driver",
    "CUDA error: no kernel image is available for execution on the device": "no kernels",
    "RuntimeError: No CUDA GPUs are available": "finds no GPU",
    "RuntimeError: Failed to infer device type": "finds no GPU",
    "api_server.py: error: unrecognized arguments: --max-pixels=3": "server.arguments",
    "ValueError: The repository contains custom code which must be executed to correctly load the "
    "model.": "code of its own",
    "ValueError: Model architectures ['Qwen9VL'] are not supported for now.": "newer one",
    "OSError: [Errno 28] No space left on device": "is full",
}
# What stands in logs of servers that are well, or report another's end.
HARMLESS = [
    "INFO 11-29 10:00:00 [utils.py:233] args: {'trust_remote_code': False, 'port': 8000}",
    "(EngineCore pid=1) WARNING 11-29 10:00:00 [x.py:1] No module named 'vllm._C'",
    "(APIServer pid=1) WARNING 11-29 10:00:00 [x.py:1] FlashInfer: ninja is not installed",
    "INFO 11-29 10:00:00 [x.py:1] Try --max-num-seqs if you run out of memory",
    "ninja: no work to do.",
    "[1/2] /usr/local/cuda/bin/nvcc --generate-dependencies-with-compile -c x.cu -o x.o",
    "[2/2] c++ x.o -shared -o x.so",
    "RuntimeError: Engine core initialization failed. See root cause above.",
    '  File "/opt/venv/lib/python3.12/site-packages/vllm/v1/engine/core.py", line 936, in run',
    "Traceback (most recent call last):",
    "fake vLLM, start 1",
]


@pytest.mark.parametrize("line", CAUSES)
@pytest.mark.parametrize("prefix", ["", ERROR])
def test_a_known_cause_comes_with_what_to_do(line, prefix):
    cause = first_cause([prefix + line])
    assert cause is not None
    assert CAUSES[line] in cause.advice
    assert cause.line == line


@pytest.mark.parametrize("line", HARMLESS)
def test_what_is_no_cause_is_not_taken_for_one(line):
    assert first_cause([line]) is None


@given(
    st.lists(st.sampled_from(HARMLESS)),
    st.sampled_from(sorted(CAUSES)),
    st.lists(st.sampled_from([*HARMLESS, "KeyError: 'x'", *CAUSES])),
)
def test_the_first_cause_counts_whatever_stands_around_it(before, line, after):
    cause = first_cause([*before, "KeyError: 'something'", ERROR + line, *after])
    assert cause is not None
    assert cause.line == line


def test_an_unknown_error_is_shown_without_advice():
    lines = [*HARMLESS, ERROR + "KeyError: 'layers.0.weight'", "RuntimeError: another"]
    cause = first_cause(lines)
    assert cause is not None
    assert (cause.line, cause.advice) == ("KeyError: 'layers.0.weight'", "")


def test_a_log_without_errors_has_no_cause():
    assert first_cause([]) is None
