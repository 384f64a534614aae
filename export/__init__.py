"""Checkpoint -> artifact: ONNX graphs, int8 storage, manifest and parity. Needs `csrm[export]`."""
