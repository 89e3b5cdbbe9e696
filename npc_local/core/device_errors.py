"""What torch and the libraries below it say when memory runs out, or when a GPU is lost for good.

The same two things have many names: torch's own exception, the words of CUDA's and HIP's runtimes
and drivers, of cuBLAS, cuDNN and their kin, and the number that a `torch.AcceleratorError` carries.
Leaves out: what to do about it (`generator.out_of_memory`, `run.supervisor`).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

# Numbers of cudaError_t; those of hipError_t are the same.
_FULL_CODES = frozenset({2})
_LOST_CODES = frozenset({100, 214, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999})

# Torch's words, older ones with the number, and Triton's.
_RUNTIME = (
    r"((CUDA|HIP|MUSA|XPU)( driver| runtime)? error( ?\(?\d+\)?)? ?: |Triton Error \[\w+\]: )"
)
_FULL = re.compile(
    rf"(CUDA|HIP|MPS backend|XPU) out of memory|{_RUNTIME}(out of memory|memory allocation)"
    r"|cudaMalloc\w* failed: out of memory|Invalid buffer size: [\d.]+ ?[GT]i?B"
    r"|cudaErrorMemoryAllocation|NVRTC_ERROR_OUT_OF_MEMORY|CUDA_ERROR_OUT_OF_MEMORY|hipErrorOutOfMemory"
    r"|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE|HIPBLAS|HIPSOLVER|HIPSPARSE)_STATUS_(ALLOC_FAILED|INSUFFICIENT_RESOURCES)"
    r"|(HOST|DEVICE)_ALLOCATION_FAILED|CUFFT_ALLOC_FAILED|rocblas_status_memory_error"
    r"|miopenStatus(AllocFailed|OutOfMemory)|UR_RESULT_ERROR_OUT_OF_(DEVICE|HOST)_MEMORY"
    # Handles are made when they are first needed, and their workspace is all that can fail then.
    r"|cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"
    r"|STATUS_NOT_INITIALIZED when calling `?(cublas|cublasLt|cudnn|hipblas|hipblasLt)Create"
    r"|DefaultCPUAllocator: (can't allocate|not enough memory)"
    r"|Cannot allocate memory|std::bad_alloc|\bbad allocation",
    re.IGNORECASE,
)
# After one of these, every later call of the process fails as well, whatever it asks for.
_LOST = re.compile(
    rf"{_RUNTIME}(device-side assert|an illegal (memory access|instruction)|unspecified launch"
    r"|the launch timed out|misaligned address|uncorrectable|hardware stack error"
    r"|invalid program counter|operation not supported on global/shared address space"
    r"|context is destroyed|invalid device context|driver shutting down|device not found"
    r"|no (CUDA|ROCm)-capable device|Invalid access of peer GPU memory|unknown error"
    r"|external device|initialization error|.*busy or unavailable|.*contained error)"
    r"|cudaError(Assert|IllegalAddress|IllegalInstruction|LaunchFailure|LaunchTimeout"
    r"|MisalignedAddress|ECCUncorrectable|HardwareStackError|InvalidPc|InvalidAddressSpace"
    r"|ContextIsDestroyed|NoDevice|DevicesUnavailable|Unknown)"
    r"|CUDA_ERROR_(ASSERT|ILLEGAL_ADDRESS|ILLEGAL_INSTRUCTION|LAUNCH_FAILED|LAUNCH_TIMEOUT"
    r"|MISALIGNED_ADDRESS|ECC_UNCORRECTABLE|HARDWARE_STACK_ERROR|INVALID_PC|CONTEXT_IS_DESTROYED"
    r"|NO_DEVICE|UNKNOWN)"
    r"|hipError(Assert|IllegalAddress|LaunchFailure|LaunchTimeOut|ECCNotCorrectable"
    r"|ContextIsDestroyed|NoDevice|Unknown)"
    r"|GPU (has fallen off the bus|is lost)|Memory access fault by GPU|UR_RESULT_ERROR_DEVICE_LOST"
    r"|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE|HIPBLAS)_STATUS_EXECUTION_FAILED|CUFFT_EXEC_FAILED|HSA_STATUS_ERROR_(EXCEPTION|MEMORY_FAULT)",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or the one that it was raised from, says that memory does not suffice."""
    return any(_is_full(reason) for reason in _reasons(error))


def is_device_lost(error: BaseException) -> bool:
    """Whether an error, or the one that it was raised from, says that the GPU is of no more use.

    To this process, that is: a new one may go on.
    """
    return any(
        isinstance(reason, RuntimeError)
        and not _is_full(reason)
        and (_code(reason) in _LOST_CODES or _LOST.search(str(reason)) is not None)
        for reason in _reasons(error)
    )


def _is_full(error: BaseException) -> bool:
    import torch

    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and (_code(error) in _FULL_CODES or _FULL.search(str(error)) is not None)
    )


def _code(error: RuntimeError) -> int | None:
    """Return the number that `torch.AcceleratorError` carries; other errors have none."""
    code = getattr(error, "error_code", None)
    return code if isinstance(code, int) else None


def _reasons(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        # What a library raises while it handles the real one tells less than the real one.
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
