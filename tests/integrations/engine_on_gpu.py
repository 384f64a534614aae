"""A TensorRT engine run once through NVIDIA's own Python package, with the driver's memory.

What it is: the shortest way from an engine file to its outputs, so that a GPU says whether csrm's
graph computes what it should, whatever csrm's own runtime was compiled for. Not: fast.
"""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


class Driver:
    """The few functions of libcuda.so.1 that a run needs, on the first GPU. Closes its context."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcuda.so.1")
        self.device = ctypes.c_int()
        self.context = ctypes.c_void_p()
        self.stream = ctypes.c_void_p()
        self("cuInit", 0)
        self("cuDeviceGet", ctypes.byref(self.device), 0)
        self("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), self.device)
        self("cuCtxSetCurrent", self.context)
        self("cuStreamCreate", ctypes.byref(self.stream), 0)

    def __call__(self, name: str, *arguments: Any) -> None:
        error = getattr(self.library, name)(*arguments)
        if error:
            raise RuntimeError(f"{name} failed with CUDA error {error}")

    def allocate(self, n_bytes: int) -> ctypes.c_uint64:
        address = ctypes.c_uint64()
        self("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(n_bytes, 1)))
        return address

    def close(self) -> None:
        self("cuStreamDestroy_v2", self.stream)
        self("cuDevicePrimaryCtxRelease_v2", self.device)


def run_engine(package: Any, data: bytes, inputs: Arrays, outputs: Arrays) -> bool:
    """Runs the engine `data` on `inputs` into `outputs`, arrays of the right shapes and types.

    False when the package does not run the engine on this GPU; other failures raise.
    """
    with ExitStack() as stack:
        driver = Driver()
        stack.callback(driver.close)
        runtime = package.Runtime(package.Logger(package.Logger.ERROR))
        engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            return False
        context = engine.create_execution_context()
        addresses = {}
        for name, array in {**inputs, **outputs}.items():
            addresses[name] = driver.allocate(array.nbytes)
            stack.callback(driver, "cuMemFree_v2", addresses[name])
            assert context.set_tensor_address(name, addresses[name].value)
        for name, array in inputs.items():
            assert context.set_input_shape(name, array.shape)
            if array.nbytes:
                pointer = np.ascontiguousarray(array).ctypes.data_as(ctypes.c_void_p)
                size = ctypes.c_size_t(array.nbytes)
                driver("cuMemcpyHtoD_v2", addresses[name], pointer, size)
        assert context.execute_async_v3(driver.stream.value)
        driver("cuStreamSynchronize", driver.stream)
        for name, array in outputs.items():
            pointer = array.ctypes.data_as(ctypes.c_void_p)
            driver("cuMemcpyDtoH_v2", pointer, addresses[name], ctypes.c_size_t(array.nbytes))
        del context, engine, runtime
    return True
