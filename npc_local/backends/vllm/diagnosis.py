"""Why a vLLM server ended or never got ready: the first cause in its log, and what to do about it.

The last lines of such a log are those of a process that reports another's end; what ended that one
stands far above. Wordings of vLLM 0.32, torch 2.11, Triton, FlashInfer and the compilers that they
call; a cause without advice is shown all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

KILLED = 128 + 9  # the exit status after SIGKILL
_MISSING = r"(?:not found|No such file|not installed|is required|does not exist|not set)"
_COMPILERS = r"(?:\S*-)?(?:cc|gcc|g\+\+|c\+\+|clang\+\+|clang|cc1plus)"


def _missing(name: str) -> str:
    """Return what a line that misses a program looks like; others name it in their commands."""
    return rf"(?:^|\W){name}\W.*{_MISSING}|(?:{_MISSING}|Could not find).*\W{name}\b"


# What a line says, and what to do; the first that matches a line counts.
_ADVICE = {
    r"No module named '?vllm'?$": (
        "that Python has no vLLM; set server.python to the interpreter of the environment that "
        "has it"
    ),
    r"Free memory on device|less than desired GPU memory utilization": (
        "other programs hold the GPU's memory: end them (nvidia-smi lists them), lower "
        'gpu_memory_utilization, or use gpu = "phased"'
    ),
    r"Error in memory profiling": (
        "another program gave GPU memory back while the server measured it; start again once "
        "nothing else starts or ends on that GPU"
    ),
    r"No available memory for the cache": (
        "its share of the GPU does not hold the model itself; raise gpu_memory_utilization, or "
        "take a smaller or quantised model"
    ),
    r"KV cache.*larger|larger.*KV cache|estimated maximum model length": (
        "its share of the GPU has no room for what it keeps of a question and its answer (KV "
        "cache); lower max_model_len, or raise gpu_memory_utilization"
    ),
    r"max_num_seqs.*exceeds": 'lower that number: server.arguments = ["--max-num-seqs=16"]',
    r"out of memory|OutOfMemory|CUBLAS_STATUS_ALLOC_FAILED": (
        'out of memory; lower gpu_memory_utilization or max_model_len, or use gpu = "phased"'
    ),
    r"Python\.h": (
        "it compiles a kernel and finds no Python.h: install the headers of its Python (Debian, "
        "Ubuntu: apt install python3-dev; Fedora: dnf install python3-devel)"
    ),
    _missing("ninja"): (
        "it compiles a kernel and finds no ninja: install it into the server's environment "
        "(ENVIRONMENT/bin/pip install ninja)"
    ),
    rf"{_missing('nvcc')}|CUDA_HOME.*{_MISSING}": (
        "it compiles a kernel and finds no nvcc: install the CUDA toolkit of its torch's version "
        "and say where (server.environment, CUDA_HOME), or have it sample without FlashInfer "
        '(server.environment, VLLM_USE_FLASHINFER_SAMPLER = "0")'
    ),
    rf"Failed to find C compiler|cannot execute.*cc1plus|{_missing(_COMPILERS)}": (
        "it compiles a kernel and finds no C compiler: install one (Debian, Ubuntu: apt install "
        "build-essential; Fedora: dnf install gcc-c++)"
    ),
    r"Bfloat16 is only supported": (
        'the GPU is too old for bfloat16: set server.dtype = "float16"'
    ),
    r"driver on your system is too old|driver version is insufficient|unsupported toolchain"
    r"|forward compatibility was attempted|unsupported display driver": (
        "the NVIDIA driver is older than this vLLM's CUDA: update the driver, or install a vLLM "
        "built for an older CUDA (nvidia-smi says which one the driver takes)"
    ),
    r"no kernel image is available": (
        "this vLLM has no kernels for this GPU: install a build that has"
    ),
    r"No CUDA GPUs are available|Failed to infer device type|libcuda\.so|no NVIDIA driver": (
        "it finds no GPU: see that nvidia-smi lists one, and that CUDA_VISIBLE_DEVICES leaves it "
        "visible"
    ),
    r"unrecognized arguments|error: argument": (
        "it refuses one of its flags; see server.arguments, and use vLLM 0.32 or newer"
    ),
    r"trust_remote_code=True|--trust-remote-code|contains custom code": (
        "the model wants to run code of its own, which npc-local does not allow"
    ),
    r"architectures.*not supported|does not recognize this architecture": (
        "this vLLM does not know the model; install a newer one into the server's environment"
    ),
    r"OfflineModeIsEnabled|LocalEntryNotFound|outgoing traffic has been disabled": (
        "the model's directory lacks a file that it would fetch; `npc-local doctor` names it"
    ),
    r"No space left on device": "a disk, or /dev/shm, is full",
}
_SIGNS = [(re.compile(sign, re.IGNORECASE), advice) for sign, advice in _ADVICE.items()]
# A record of vLLM's log that reports no error; Python's warnings can be the only ones to say why.
_HARMLESS = re.compile(r"\b(?:DEBUG|INFO|WARNING) \d\d-\d\d")
_ERROR = re.compile(r"\b\w*(?:Error|Exception)\b: ?\S|\b(?:fatal )?error: |: command not found$")
_WARNING = re.compile(r"\w*Warning: ")
_CONSEQUENCE = re.compile(r"Engine core initialization failed|See root cause above|SystemExit")
# What loggers put before a line: the process, level and time, file and line.
_PREFIX = re.compile(r"^(?:\([^()]*\)\s*)?(?:ERROR \d\d-\d\d [\d:.]+ \[[^\]]*\]\s*)?")


@dataclass(frozen=True, slots=True)
class Cause:
    """The first line that says what went wrong, without its logger's words, and what to do."""

    line: str
    advice: str


def first_cause(lines: Iterable[str]) -> Cause | None:
    """Return what went wrong first, by the lines of a log: a known cause before an unknown one."""
    unknown: Cause | None = None
    for line in lines:
        if _HARMLESS.search(line) or _CONSEQUENCE.search(line):
            continue
        for sign, advice in _SIGNS:
            if sign.search(line):
                return Cause(_plain(line), advice)
        if unknown is None and _ERROR.search(line) and not _WARNING.search(line):
            unknown = Cause(_plain(line), "")
    return unknown


def _plain(line: str) -> str:
    return _PREFIX.sub("", line).strip()
