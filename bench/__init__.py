"""Measurements: `latency.run` (csrm beside other engines), `throughput.run` (many clients at once)
and `kernels.run` (the operators alone).

Every result is a dict that goes to a JSON file with the machine it was taken on; the `csrm bench`
command calls these functions. Needs the `bench` extra (torch, onnx, matplotlib).
"""
