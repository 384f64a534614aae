"""A decoder's model.cuda.onnx: what is in it, and, with the emulated operators, that it gives the
portable graph's scores.

CSRM_CUDA_EMULATED names libcsrm_cuda_emulated.so and CSRM_TEST_BOUND_ENGINE the program
test_bound_engine (`make emulate-cuda`). Not: a GPU (csrm.bench.gpu_parity), and not what the graph
shares with an encoder's (test_cuda_graph.py).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("transformers")

import tiny
import tiny_decoder
import torch
from onnx import TensorProto, numpy_helper
from test_cuda_graph import ALLOWED, EMULATED, OUTPUTS, graph_of, session_of

from csrm.engine import engine_library
from csrm.errors import BadArtifact, Unsupported
from csrm.export.add_variants import add_variants
from csrm.export.artifact import export_checkpoint, write_graphs
from csrm.export.cuda_decoder_graph import MOST, build_cuda_decoder_graph, check_sizes
from csrm.export.decoder_graph import build_decoder_graph
from csrm.export.storage import rounded
from csrm.export.unpack import stored_model
from csrm.export.unpack_decoder import decoder_from
from csrm.kernels import KEYS_VALUES_CASES, KeysValuesCase, keys_values
from csrm.kernels.one_node import operator_model, session
from csrm.train.decoder import Decoder

BOUND_ENGINE = os.environ.get("CSRM_TEST_BOUND_ENGINE", "")
KERNELS = Path(__file__).parents[2] / "kernels" / "cuda"
# Of rope, swiglu and the token table, which is kept as int8 on the GPU.
DECODER_ALLOWED = ALLOWED | {"Mul", "Rope", "SwiGlu"}
COMPLIANCE_LIMIT = 5e-3  # as of csrm.bench.gpu_parity: fp16 rounds states and weights to 11 bits

needs_emulator = pytest.mark.skipif(
    not EMULATED, reason="needs CSRM_CUDA_EMULATED (make emulate-cuda)"
)


@pytest.fixture(scope="module", params=tiny_decoder.KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    return tiny_decoder.decoder(tmp_path_factory.mktemp("files"), request.param)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a decoder with norms on queries and keys, with a cuda variant."""
    folder = tmp_path_factory.mktemp("decoder")
    model = tiny_decoder.decoder(folder / "files", "qwen3")
    checkpoint = tiny_decoder.write_checkpoint(folder / "checkpoint", model)
    return export_checkpoint(checkpoint, folder / "artifact", name="tiny", cuda=True).parent


def test_cuda_decoder_graph_holds_only_what_a_captured_graph_may_hold(model: Decoder) -> None:
    graph = build_cuda_decoder_graph(model, tiny.CALIBRATION).graph
    assert {node.op_type for node in graph.node} <= DECODER_ALLOWED
    constants = {tensor.name for tensor in graph.initializer}
    made = {name for node in graph.node for name in node.output}
    read = {name for node in graph.node for name in node.input}
    outputs = {output.name for output in graph.output}
    for node in graph.node:
        assert read & set(node.output) or outputs & set(node.output)  # nothing runs for nothing
        if node.op_type == "Concat":  # of more ONNX Runtime reads a list of the host's
            assert len(node.input) <= 32
    assert read <= made | constants | {item.name for item in graph.input} | {""}
    types = {item.name: item.type.tensor_type.elem_type for item in (*graph.input, *graph.output)}
    halves = {name for name, kind in types.items() if kind == TensorProto.FLOAT16}
    assert halves == {"prefix_key", "prefix_value"}


def test_cuda_decoder_graph_keeps_the_residual_stream_in_fp32(model: Decoder) -> None:
    graph = build_cuda_decoder_graph(model, tiny.CALIBRATION).graph
    norms = [node for node in graph.node if node.op_type == "AddNorm"]
    sums = [node.output[1] for node in norms if len(node.output) > 1]
    assert len(sums) == 2 * model.shape.layers - 1
    casts = {node.input[0]: node.attribute[0].i for node in graph.node if node.op_type == "Cast"}
    assert not set(sums) & set(casts)
    # Each sum is what the next norm adds to, and the last the head's.
    read = [node.input[1] for node in norms[1:]]
    assert read[1:] == sums[:-1]


def test_cuda_decoder_export_equals_the_variant_added_later(artifact: Path, tmp_path: Path) -> None:
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert manifest["variants"]["cuda"] == "model.cuda.onnx"
    added = add_variants(artifact, tmp_path / "added", ["cuda"]).parent
    first, second = graph_of(artifact).graph, graph_of(added).graph
    assert [node.SerializeToString() for node in first.node] == [
        node.SerializeToString() for node in second.node
    ]
    for one, other in zip(first.initializer, second.initializer, strict=True):
        assert (one.name, one.data_type, one.dims) == (other.name, other.data_type, other.dims)
        if one.data_location != TensorProto.EXTERNAL:
            np.testing.assert_allclose(
                numpy_helper.to_array(one), numpy_helper.to_array(other), rtol=1e-6
            )


def test_cuda_decoder_graph_shares_the_portable_graphs_weights(artifact: Path) -> None:
    graph = graph_of(artifact).graph
    inline = [
        tensor.name
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.INT8
        and tensor.data_location != TensorProto.EXTERNAL
        and len(tensor.raw_data) >= 4096
    ]
    assert not inline
    assert sum(tensor.data_location == TensorProto.EXTERNAL for tensor in graph.initializer) > 5


@pytest.mark.parametrize("storage", ["int8", "fp32"])
def test_unpack_decoder_gives_the_weights_of_its_artifact(
    model: Decoder, storage: str, tmp_path: Path
) -> None:
    shape = model.shape
    write_graphs(model, tiny.CALIBRATION, tmp_path, "int8" if storage == "int8" else "fp32")
    described = {
        "backbone": "decoder",
        "layers": shape.layers,
        "kv_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_positions": shape.max_positions,
        "verbalizers": {"safe": shape.n_safe, "unsafe": shape.n_unsafe},
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"model": described}))
    found = decoder_from(*stored_model(tmp_path))
    expected = (rounded(model) if storage == "int8" else model).state_dict()
    assert found.shape.norm_epsilon == pytest.approx(shape.norm_epsilon, rel=1e-6)  # fp32 there
    known = {"norm_epsilon": shape.norm_epsilon, "rope_theta": shape.rope_theta}
    assert replace(found.shape, **known, rope_scaling=shape.rope_scaling) == shape
    assert found.state_dict().keys() == expected.keys()
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=0, rtol=0)
    torch.testing.assert_close(found.frequencies, model.frequencies, atol=0, rtol=0)


def test_unpack_decoder_of_an_encoder_or_without_a_tensor_is_bad_artifact(
    artifact: Path,
) -> None:
    described, stored = stored_model(artifact)
    with pytest.raises(BadArtifact, match="no decoder"):
        decoder_from({**described, "backbone": "encoder"}, stored)
    with pytest.raises(BadArtifact, match="KeyError"):
        decoder_from({**described, "layers": 4}, stored)
    with pytest.raises(BadArtifact, match="ValueError"):
        decoder_from({**described, "kv_heads": 3}, stored)


@pytest.mark.parametrize("name", MOST)
def test_cuda_decoder_graph_size_beyond_the_kernels_is_unsupported(
    model: Decoder, name: str
) -> None:
    check_sizes(replace(model.shape, **{name: MOST[name] - model.shape.kv_heads}))
    with pytest.raises(Unsupported, match=f"{name} is {MOST[name] + 1 + 2 * (name == 'heads')}"):
        check_sizes(replace(model.shape, **{name: MOST[name] + 1}))


def test_cuda_decoder_graph_limits_are_those_of_the_kernels() -> None:
    constants = {
        "head_dim": ("prefix_attention_launch.h", "kMaxNaiveDim"),
        "hidden": ("add_norm.h", "kMaxNormColumns"),
        "heads": ("rope.h", "kMaxRopeHeads"),
        "layers": ("keys_values.h", "kMaxKeyValueLayers"),
    }
    for name, (file, constant) in constants.items():
        found = re.search(rf"{constant} = (\d+);", (KERNELS / file).read_text())
        assert found is not None
        assert MOST[name] == int(found[1])


def test_cuda_decoder_graph_weight_beyond_fp16_is_bad_artifact(tmp_path: Path) -> None:
    model = tiny_decoder.decoder(tmp_path)
    with torch.no_grad():
        model.layers[1].down.weight[0, 0] = 65520.0
    with pytest.raises(BadArtifact, match=r"layers\.1\.down\.weight is larger"):
        build_cuda_decoder_graph(model, tiny.CALIBRATION, storage="fp32")


Feeds = dict[str, NDArray[np.generic]]


def feeds(model: Decoder, lengths: list[int], n_prefix: int, seed: int) -> Feeds:
    """Causal rows of random tokens behind a prefix, judged at their last tokens and at one."""
    rng = np.random.default_rng(seed)
    width = max(lengths)
    shape = (len(lengths), width)
    exists = np.arange(width)[None] < np.array(lengths)[:, None]
    place = np.broadcast_to(np.arange(width)[None], shape)
    return {
        "input_ids": np.where(exists, rng.integers(1, model.shape.vocab_size, shape), 0),
        "position_ids": np.where(exists, n_prefix + place, 0),
        "segment_ids": np.zeros(shape, np.int64),
        "visible": np.where(exists, place + 1, 0),
        "pooled_at": np.array([[n - 1, n // 2, -1] for n in lengths]),
    }


def prefixed(model: Decoder, n: int, kind: type[np.floating] = np.float32) -> Feeds:
    """Keys and values of no tokens."""
    shape = model.shape
    empty = np.zeros((shape.layers, shape.kv_heads, n, shape.head_dim), kind)
    return {"prefix_key": empty, "prefix_value": empty}


def check_scores(model: Decoder, n_prefix: int, lengths: list[int], folder: Path) -> None:
    """The emulated graph's scores, keys and values are the portable one's, within fp16."""
    for name, build in (("cuda", build_cuda_decoder_graph), ("portable", build_decoder_graph)):
        data = build(model, tiny.CALIBRATION).SerializeToString()
        (folder / f"{name}.onnx").write_bytes(data)
    emulated = session_of(folder / "cuda.onnx", emulated=True)
    portable = session_of(folder / "portable.onnx")
    prefix = prefixed(model, 0)
    if n_prefix:
        row = feeds(model, [n_prefix], 0, n_prefix)
        key, value = portable.run(["key", "value"], {**row, **prefix})
        prefix = {"prefix_key": key[0], "prefix_value": value[0]}
    row = feeds(model, lengths, n_prefix, 1)
    expected = portable.run(None, {**row, **prefix})
    halves = {name: array.astype(np.float16) for name, array in prefix.items()}
    got = emulated.run(OUTPUTS, {**row, **halves})
    seen = row["visible"] > 0
    for one, other in zip(got[:2], expected[:2], strict=True):  # keys and values [B, L, H, T, D]
        assert (one.shape, one.dtype) == (other.shape, np.float32)
        apart = np.abs(one - other).transpose(0, 3, 1, 2, 4)[seen]
        assert apart.max() < 0.01 * np.abs(other).max()
    assert np.isnan(got[2][:, 2]).all()
    assert np.abs(got[3] - expected[3])[:, :2].max() < COMPLIANCE_LIMIT
    assert np.array_equal(got[3] >= 0.5, expected[3] >= 0.5)
    again = emulated.run(OUTPUTS, {**row, **halves})
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(got, again, strict=True))


@needs_emulator
@pytest.mark.parametrize(("n_prefix", "lengths"), [(0, [9]), (19, [24, 7]), (130, [33])])
def test_cuda_decoder_graph_with_emulated_kernels_gives_the_portable_scores(
    model: Decoder, n_prefix: int, lengths: list[int], tmp_path: Path
) -> None:
    check_scores(model, n_prefix, lengths, tmp_path)


@needs_emulator
@pytest.mark.parametrize("head_dim", [32, 64, 128])
def test_cuda_decoder_graph_with_heads_for_tensor_cores_gives_the_portable_scores(
    head_dim: int, tmp_path: Path
) -> None:
    model = tiny_decoder.decoder(tmp_path, "qwen3", head_dim=head_dim)
    check_scores(model, 70, [33, 12], tmp_path)


@needs_emulator
@pytest.mark.parametrize("part", ["key", "query", "value", "attended", "up", "down"])
def test_cuda_decoder_graph_product_beyond_fp16_is_never_a_score(part: str, tmp_path: Path) -> None:
    model = tiny_decoder.decoder(tmp_path)
    with torch.no_grad():
        # The last layer's projections, so that no later layer could hide it.
        weight = getattr(model.layers[2], part).weight
        weight.mul_(60000 / weight.abs().max())
    graph = build_cuda_decoder_graph(model, tiny.CALIBRATION, storage="fp32")
    (tmp_path / "cuda.onnx").write_bytes(graph.SerializeToString())
    row = feeds(model, [12], 0, 3)
    row["pooled_at"] = np.arange(12)[None]
    emulated = session_of(tmp_path / "cuda.onnx", emulated=True)
    key, value, reward, _ = emulated.run(OUTPUTS, {**row, **prefixed(model, 0, np.float16)})
    assert not np.isinf(key).any()
    is_bad = ~np.isfinite(reward[0])
    # A token whose product was too large, or who saw such a one, has no score.
    if part in ("key", "value"):
        lost = ~np.isfinite(key if part == "key" else value)[0, 2].all(axis=(0, 2))
        assert lost.any()
        assert is_bad[int(lost.argmax()) :].all()
    else:
        assert is_bad.any()


@needs_emulator
@pytest.mark.parametrize("case", KEYS_VALUES_CASES, ids=lambda case: case.name)
def test_keys_values_case_matches_definition(case: KeysValuesCase) -> None:
    states = case.inputs()
    inputs = {f"states_{layer}": one for layer, one in enumerate(states)}
    model = operator_model("KeysValues", inputs, case.attributes, outputs=("key", "value"))
    found = session(model, Path(EMULATED)).run(None, inputs)
    for one, expected in zip(found, keys_values(states, **case.attributes), strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, expected)


@needs_emulator
def test_cuda_decoder_operators_refuse_shapes_that_do_not_fit(artifact: Path) -> None:
    emulated = session_of(artifact / "model.cuda.onnx", emulated=True)
    model = decoder_from(*stored_model(artifact))
    prefix = prefixed(model, 3, np.float16)
    row = feeds(model, [5], 3, 0)
    with pytest.raises(Exception, match="Rope: input positions has 4 along axis 1; x is 5"):
        emulated.run(None, {**row, "position_ids": row["position_ids"][:, :4], **prefix})
    short = prefixed(model, 2, np.float16)["prefix_value"]
    with pytest.raises(Exception, match="input prefix_value has 2 along axis 2"):
        emulated.run(None, {**row, **prefix, "prefix_value": short})


@pytest.mark.skipif(
    not (EMULATED and BOUND_ENGINE), reason="needs CSRM_TEST_BOUND_ENGINE (make emulate-cuda)"
)
def test_bound_engine_runs_a_decoder_over_host_memory(artifact: Path) -> None:
    command = [BOUND_ENGINE, str(artifact), str(engine_library()), EMULATED]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
