"""Out of memory, a lost GPU, and neither, in the words of all libraries that report them."""

from __future__ import annotations

import errno

import pytest
import torch

from npc_local.core.device_errors import is_device_lost, is_out_of_memory

# What follows CUDA's words in torch's errors.
REST = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the "
    "stacktrace below might be incorrect.\nCompile with `TORCH_USE_CUDA_DSA` to enable "
    "device-side assertions."
)
FULL = [
    "Triton Error [CUDA]: out of memory",
    "CUDA error 2: out of memory",
    "cuda runtime error (2) : out of memory at /pytorch/aten/src/THC/THCGeneral.cpp:50",
    "cudaMalloc failed: out of memory",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "CUSPARSE_STATUS_INSUFFICIENT_RESOURCES",
    "NVRTC_ERROR_OUT_OF_MEMORY",
    "Invalid buffer size: 16.00 GB",
    "unable to mmap 1024 bytes from file <weights>: Cannot allocate memory (12)",
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.69 GiB",
    "HIP out of memory. Tried to allocate 2.00 GiB",
    "XPU out of memory. Tried to allocate 2.00 GiB",
    "MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 384.00 KB)",
    "CUDA error: out of memory" + REST,
    "CUDA driver error: out of memory",
    "HIP error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasLtCreate(&handle)`",
    "CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    "cuFFT error: CUFFT_ALLOC_FAILED",
    "CUDA_ERROR_OUT_OF_MEMORY: out of memory",
    "cudaErrorMemoryAllocation: out of memory",
    "hipErrorOutOfMemory",
    "rocblas_status_memory_error",
    "miopenStatusAllocFailed",
    "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 68719476736 bytes. Error code 12 (Cannot allocate memory)",
    "[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory: you tried",
    "std::bad_alloc",
]
LOST = [
    "Triton Error [CUDA]: an illegal memory access was encountered",
    "Triton Error [HIP]: unspecified launch failure",
    "cuda runtime error (700) : an illegal memory access was encountered",
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
    "CUDA error: initialization error",
    "cudaErrorUnknown",
    "CUSOLVER_STATUS_EXECUTION_FAILED",
    "CUFFT_EXEC_FAILED",
    "CUDA error: device-side assert triggered" + REST,
    "CUDA error: an illegal memory access was encountered" + REST,
    "CUDA error: an illegal instruction was encountered",
    "CUDA error: unspecified launch failure",
    "CUDA error: unspecified launch timeout",
    "CUDA error: the launch timed out and was terminated" + REST,
    "CUDA error: misaligned address",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDA error: uncorrectable NVLink error detected during the execution",
    "CUDA error: hardware stack error",
    "CUDA error: invalid program counter",
    "CUDA error: operation not supported on global/shared address space",
    "CUDA error: context is destroyed",
    "CUDA error: driver shutting down",
    "CUDA error: no CUDA-capable device is detected",
    "CUDA error: unknown error",
    "CUDA driver error: an illegal memory access was encountered",
    "CUDA driver error: unspecified launch failure",
    "HIP error: an illegal memory access was encountered",
    "HIP error: unspecified launch failure",
    "CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered",
    "CUDA_ERROR_LAUNCH_TIMEOUT",
    "cudaErrorLaunchFailure",
    "hipErrorLaunchFailure",
    "hipErrorECCNotCorrectable",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb)`",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "Unable to determine the device handle for GPU0000:01:00.0: GPU is lost",
    "Memory access fault by GPU node-1 (Agent handle: 0x55) on address 0x7f. Reason: Unknown.",
    "level_zero backend failed with error: 20 (UR_RESULT_ERROR_DEVICE_LOST)",
]
NEITHER = [
    "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)",
    "CUDA error: no kernel image is available for execution on the device" + REST,
    "CUDA error: invalid argument" + REST,
    "CUDA error: invalid configuration argument",
    "CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm( handle, opa, opb)`",
    "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx( handle)`",
    "cuDNN error: CUDNN_STATUS_BAD_PARAM",
    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu",
    "a layer of memory could not be built",
]
KINDS = [RuntimeError, torch.AcceleratorError]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", FULL)
def test_memory_that_does_not_suffice_goes_by_many_names(words: str, kind: type[Exception]) -> None:
    assert is_out_of_memory(kind(words))
    assert not is_device_lost(kind(words))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", LOST)
def test_a_lost_gpu_goes_by_many_names(words: str, kind: type[Exception]) -> None:
    assert is_device_lost(kind(words))
    assert not is_out_of_memory(kind(words))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", NEITHER)
def test_other_errors_are_neither(words: str, kind: type[Exception]) -> None:
    assert not is_device_lost(kind(words))
    assert not is_out_of_memory(kind(words))


@pytest.mark.parametrize(
    ("code", "full", "lost"), [(2, True, False), (700, False, True), (702, False, True), (1, 0, 0)]
)
def test_the_number_of_an_accelerator_error_tells_as_well(
    code: int, full: bool, lost: bool
) -> None:
    error = torch.AcceleratorError("an error in another language")
    error.error_code = code
    assert is_out_of_memory(error) is bool(full)
    assert is_device_lost(error) is bool(lost)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_errors_that_say_so_by_their_kind(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_device_lost(error)


def test_what_an_error_was_raised_from_counts() -> None:
    outer = ValueError("could not decode")
    outer.__cause__ = RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
    assert is_out_of_memory(outer)
    outer.__cause__ = RuntimeError("CUDA error: unspecified launch failure")
    assert is_device_lost(outer)


def test_what_was_being_handled_when_another_error_came_up_counts() -> None:
    outer = ValueError("could not decode")
    outer.__context__ = torch.OutOfMemoryError("CUDA out of memory")
    assert is_out_of_memory(outer)
    outer.__suppress_context__ = True  # raised `from None`
    assert not is_out_of_memory(outer)


def test_the_system_s_own_number_for_no_memory() -> None:
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert not is_out_of_memory(OSError(errno.ENOENT, "no such file"))


@pytest.mark.parametrize("words", [FULL[0], LOST[0]])
def test_words_of_a_user_s_text_in_another_kind_of_error_are_no_state_of_the_gpu(
    words: str,
) -> None:
    assert not is_out_of_memory(ValueError(f"no such prompt: {words!r}"))
    assert not is_device_lost(ValueError(f"no such prompt: {words!r}"))
