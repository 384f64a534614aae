"""csrm.export.typed_graph: the same function as the portable graph, in the types it promises.

Tiny random models in ONNX Runtime on the CPU, which rounds at every node as the graph says. Not:
TensorRT (tests/integrations/test_tensorrt.py), nor the shipped model's figures (docs/log.md).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
import tiny_decoder
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from csrm import errors
from csrm.export.decoder_graph import build_decoder_graph
from csrm.export.graph import build_graph
from csrm.export.typed_graph import ELEMENTS, HEAD, Precision, constant, typed_graph

# fp32 in another order of sums, where the engine fuses another group of nodes.
SAME = 2e-5
# 11 bits of fp16 through two or three layers whose weights are drawn far wider than trained ones.
HALF_REWARD = 0.15
EXACT = ("LayerNormalization", "Softmax", "ReduceLogSumExp", "ReduceMean", "Sqrt", "Sigmoid")
OUTPUTS = ["key", "value", "reward", "compliance"]
Feeds = dict[str, NDArray[np.generic]]


def encoder_graph(storage: str = "int8") -> onnx.ModelProto:
    return build_graph(tiny.encoder(), tiny.CALIBRATION, storage=storage)  # type: ignore[arg-type]


@pytest.fixture(params=["int8", "fp32", "decoder"])
def portable(request: pytest.FixtureRequest, tmp_path: Path) -> onnx.ModelProto:
    if request.param != "decoder":
        return encoder_graph(request.param)
    pytest.importorskip("transformers")
    return build_decoder_graph(tiny_decoder.decoder(tmp_path, "qwen2"), tiny.CALIBRATION)


def run(model: onnx.ModelProto, n_prefix: int) -> list[NDArray[np.float32]]:
    """key, value, reward, compliance of two rows of five tokens, two of them judged."""
    random = np.random.default_rng(3)
    prefix = next(i for i in model.graph.input if i.name == "prefix_key").type.tensor_type
    layers, heads, _, dim = (d.dim_value for d in prefix.shape.dim)
    kind = helper.tensor_dtype_to_np_dtype(prefix.elem_type)
    feeds: Feeds = {
        "input_ids": random.integers(100, 150, (2, 5)),
        "position_ids": np.tile(np.arange(5) + n_prefix, (2, 1)),
        "segment_ids": np.ones((2, 5), dtype=np.int64),
        "visible": np.array([[1, 2, 3, 4, 5], [3, 3, 3, 0, 0]]),
        "pooled_at": np.array([[4, 0], [2, -1]]),
    }
    for name in ("prefix_key", "prefix_value"):
        feeds[name] = random.normal(size=(layers, heads, n_prefix, dim)).astype(kind)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    # The int8 storage is unfolded to fp32 at load, as the runtime does.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs: list[NDArray[np.float32]] = session.run(OUTPUTS, feeds)
    return outputs


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every tensor, by ONNX's own strict inference."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    graph = inferred.graph
    infos = (*graph.input, *graph.output, *graph.value_info)
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


@pytest.mark.parametrize("n_prefix", [0, 7])
def test_typed_graph_fp32_is_the_portable_function(
    portable: onnx.ModelProto, n_prefix: int
) -> None:
    typed = typed_graph(portable, "fp32")
    onnx.checker.check_model(typed, full_check=True)
    for expected, got in zip(run(portable, n_prefix), run(typed, n_prefix), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=0, atol=SAME)
    assert not any(t.data_type == TensorProto.INT8 for t in typed.graph.initializer)
    assert "DequantizeLinear" not in {node.op_type for node in typed.graph.node}


def test_typed_graph_fp16_is_within_its_rounding(portable: onnx.ModelProto) -> None:
    expected, got = run(portable, 7), run(typed_graph(portable, "fp16"), 7)
    assert np.array_equal(np.isnan(got[2]), np.isnan(expected[2]))
    assert np.nanmax(np.abs(got[2] - expected[2])) < HALF_REWARD
    difference = np.abs(got[0] - expected[0]).max()
    assert 0 < difference < 0.05 * np.abs(expected[0]).max()  # rounded, so not equal


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_typed_graph_narrow_types_are_as_promised(
    portable: onnx.ModelProto, precision: Precision
) -> None:
    typed = typed_graph(portable, precision)
    onnx.checker.check_model(typed, full_check=True)
    types = types_of(typed)
    narrow = ELEMENTS[precision]
    assert {types[name] for name in ("prefix_key", "prefix_value")} == {narrow}
    assert {types[name] for name in OUTPUTS} == {TensorProto.FLOAT}
    n_products = 0
    for node in typed.graph.node:
        if node.op_type in EXACT and types[node.output[0]] != narrow:
            assert types[node.input[0]] == TensorProto.FLOAT
        if node.op_type in EXACT[:-1]:  # a Sigmoid may also be part of SwiGLU
            assert types[node.input[0]] == types[node.output[0]] == TensorProto.FLOAT
        if node.op_type == "MatMul":
            is_head = any(name.startswith(HEAD) for name in node.input)
            n_products += not is_head
            expected = TensorProto.FLOAT if is_head else narrow
            assert {types[name] for name in (*node.input, *node.output)} == {expected}
    assert n_products > 8


def test_typed_graph_large_weights_are_narrow_and_stored_once() -> None:
    typed = typed_graph(encoder_graph(), "fp16")
    large = [t for t in typed.graph.initializer if np.prod(t.dims) >= 1024]
    assert large
    assert {t.data_type for t in large} == {TensorProto.FLOAT16}
    names = [t.name for t in typed.graph.initializer]
    assert len(names) == len(set(names))
    used = {name for node in typed.graph.node for name in node.input}
    assert not set(names) - used


def test_typed_graph_is_the_same_bytes_every_time() -> None:
    first, second = (
        typed_graph(encoder_graph(), "fp16").SerializeToString(deterministic=True) for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("dims", [[], [1]])
def test_typed_graph_takes_integers_as_scalars_and_as_vectors_of_one(dims: list[int]) -> None:
    portable = encoder_graph()
    changed = onnx.ModelProto()
    changed.CopyFrom(portable)
    integers = [t for t in changed.graph.initializer if t.name.startswith("int_")]
    assert integers
    for tensor in integers:
        del tensor.dims[:]
        tensor.dims.extend(dims)
    typed = typed_graph(changed, "fp32")
    for expected, got in zip(run(portable, 3), run(typed, 3), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=SAME)


def test_typed_graph_weight_beyond_fp16_is_bad_artifact() -> None:
    portable = encoder_graph("fp32")
    bias = next(t for t in portable.graph.initializer if t.name.endswith("up.bias"))
    values = numpy_helper.to_array(bias).copy()
    values[0] = 1e5
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    with pytest.raises(errors.BadArtifact, match=r"up\.bias is larger than fp16"):
        typed_graph(portable, "fp16")
    typed_graph(portable, "bf16")


def test_typed_graph_unknown_operator_is_unsupported() -> None:
    portable = encoder_graph()
    portable.graph.node[0].op_type = "Einsum"
    with pytest.raises(errors.Unsupported, match="operator Einsum"):
        typed_graph(portable, "fp16")
    portable = encoder_graph()
    portable.graph.node[0].domain = "csrm"
    with pytest.raises(errors.Unsupported, match="operator Gather"):
        typed_graph(portable, "fp32")


def test_typed_graph_int8_without_its_scale_is_bad_artifact() -> None:
    portable = encoder_graph()
    for node in portable.graph.node:
        if node.op_type == "Gather" and node.input[0] == "tokens.scale":
            node.op_type = "GatherND"
    with pytest.raises(errors.BadArtifact, match="stored as int8 in an unknown way"):
        typed_graph(portable, "fp32")


def test_typed_graph_unknown_precision_is_bad_argument() -> None:
    with pytest.raises(errors.BadArgument, match="fp16"):
        typed_graph(encoder_graph(), "int8")  # type: ignore[arg-type]


def test_constant_bf16_rounds_to_nearest_even() -> None:
    values = np.concatenate(
        [np.random.default_rng(0).normal(size=999), [0.0, 1.00390625, 1.01171875, -3e38, 1e-40]]
    ).astype(np.float32)
    tensor = constant(numpy_helper.from_array(values, "x"), "y", ELEMENTS["bf16"])
    bits = np.frombuffer(tensor.raw_data, dtype="<u2")
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy()
    assert np.array_equal(bits.view(np.int16), expected)
    assert list(tensor.dims) == [len(values)]
