"""Large tensors of ONNX graphs in a file beside them, each written once for all graphs.

What it is: ONNX external data, written while a graph is built, so that no graph ever holds its
matrices: that is how a model of more than protobuf's 2 GiB is written, and in little memory. Each
tensor begins at a page, so an engine can map it. Not: sharing between finished graphs
(csrm.export.shared_weights).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from csrm.errors import Internal
from csrm.export.onnx_builder import OnnxBuilder

PAGE = 4096


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in the file."""

    offset: int
    length: int
    shape: tuple[int, ...]


class WeightsFile:
    """The file while it is written. Not thread-safe. Close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.places: dict[str, Place] = {}
        self.n_bytes = 0
        self._hash = hashlib.sha256()
        self._file: BinaryIO = path.open("wb")

    def __enter__(self) -> WeightsFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, name: str, values: NDArray[np.generic]) -> Place:
        """Writes a tensor under a new name."""
        data = np.ascontiguousarray(values)
        self._write(bytes(-self.n_bytes % PAGE))
        place = self.places[name] = Place(self.n_bytes, data.nbytes, data.shape)
        self._write(data.reshape(-1).view(np.uint8).data)
        return place

    def describe(self) -> dict[str, str | int]:
        """Digest and size, as a manifest lists them."""
        return {"sha256": self._hash.hexdigest(), "bytes": self.n_bytes}

    def _write(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._file.write(data)
        self.n_bytes += len(data)


class FiledBuilder(OnnxBuilder):
    """An OnnxBuilder whose int8 tensors lie in a WeightsFile.

    A name that the file has already stands for what it holds: the new value is not looked at.
    """

    def __init__(self, file: WeightsFile) -> None:
        super().__init__()
        self._weights = file

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """An initialiser, written once per name. Errors: Internal, a name of two shapes."""
        if value.dtype != np.int8:
            return super().constant(name, value)
        if name not in self.initialisers:
            place = self._weights.places.get(name) or self._weights.add(name, value)
            if place.shape != value.shape:
                raise Internal(f"tensor {name} has two shapes")
            tensor = TensorProto(name=name, data_type=TensorProto.INT8, dims=value.shape)
            tensor.data_location = TensorProto.EXTERNAL
            location = {"location": self._weights.name, "offset": place.offset}
            for key, entry in {**location, "length": place.length}.items():
                tensor.external_data.add(key=key, value=str(entry))
            self.initialisers[name] = tensor
        return name
