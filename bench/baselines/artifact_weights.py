"""An artifact's weights as PyTorch tensors, each read and unfolded when it is asked for.

What it is: the matrices of model.onnx, inline or in the file beside it, straight to a device and a
precision: of 8 billion weights no more than one matrix is ever in the host's memory. Not: the
models that are made of them (torch_encoder.py, torch_decoder.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from csrm.errors import BadArtifact


class ArtifactWeights:
    """See the module. `model`: the manifest's object. Errors: BadArtifact."""

    def __init__(
        self, artifact: Path, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self.device = device
        self.dtype = dtype
        self._folder = artifact
        try:
            manifest = json.loads((artifact / "manifest.json").read_text())
            graph = onnx.load(
                artifact / manifest["variants"]["portable"], load_external_data=False
            ).graph
            self.model: dict[str, Any] = dict(manifest["model"])
            self.n_safe = int(self.model["verbalizers"]["safe"])
            self.backbone = str(self.model["backbone"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadArtifact(f"the model cannot be read: {type(error).__name__}") from error
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._nodes = graph.node

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a stored tensor. Errors: BadArtifact."""
        return tuple(self._tensor(name).dims)

    def plain(self, name: str) -> Tensor:
        """A tensor as it is stored, fp32 as the device's precision. Errors: BadArtifact."""
        return torch.from_numpy(np.array(self._stored(name))).to(self.device, self.dtype)

    def exact(self, name: str) -> Tensor:
        """A tensor in fp32. Errors: BadArtifact."""
        return torch.from_numpy(np.array(self._stored(name), np.float32)).to(self.device)

    def matrix(self, name: str) -> Tensor:
        """The matrix `name`.weight as torch holds it, [out, in]. Errors: BadArtifact."""
        return self._unfolded(name, axis=1).T.contiguous()

    def table(self, name: str) -> Tensor:
        """The rows of an embedding table, [rows, width]. Errors: BadArtifact."""
        return self._unfolded(name, axis=0)

    def bias(self, name: str) -> Tensor | None:
        """`name`.bias if there is one."""
        return self.plain(f"{name}.bias") if f"{name}.bias" in self else None

    def norm_epsilon(self) -> float:
        """What the graph's norms add under the root. Errors: BadArtifact."""
        if "norm_epsilon" in self:
            return float(self._stored("norm_epsilon").reshape(()))
        for node in self._nodes:
            if node.op_type == "LayerNormalization":
                return float(next(a.f for a in node.attribute if a.name == "epsilon"))
        raise BadArtifact("the graph has no norm")

    def _unfolded(self, name: str, *, axis: int) -> Tensor:
        stored = torch.from_numpy(np.array(self._stored(f"{name}.weight"))).to(self.device)
        if f"{name}.scale" not in self:
            return stored.to(self.dtype)
        scale = self.exact(f"{name}.scale").reshape((1, -1) if axis == 1 else (-1, 1))
        return (stored.float() * scale).to(self.dtype)

    def _stored(self, name: str) -> NDArray[Any]:
        tensor = self._tensor(name)
        if tensor.data_location != TensorProto.EXTERNAL:
            return np.asarray(numpy_helper.to_array(tensor))
        place = {entry.key: entry.value for entry in tensor.external_data}
        try:
            return np.memmap(
                self._folder / place["location"],
                helper.tensor_dtype_to_np_dtype(tensor.data_type),
                "r",
                int(place.get("offset", 0)),
                tuple(tensor.dims),
            )
        except (OSError, ValueError, KeyError) as error:
            raise BadArtifact(f"the model cannot be read: {type(error).__name__}") from error

    def _tensor(self, name: str) -> TensorProto:
        tensor: TensorProto | None = self._tensors.get(name)
        if tensor is None:
            raise BadArtifact(f"the artifact has no tensor {name}; it is of another kind")
        return tensor
