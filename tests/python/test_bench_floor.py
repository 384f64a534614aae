"""csrm.bench.floor: by hand on a small case, and against the products of the graph itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

pytest.importorskip("torch")

from csrm.bench import cpu_peaks, machine
from csrm.bench.baselines.interface import causal_rows
from csrm.bench.floor import (
    CpuFloor,
    DecoderSize,
    EncoderSize,
    Size,
    floor_bytes,
    floor_flops,
    floor_operations,
    model_size,
)
from csrm.bench.random_artifact import write_random_artifact
from csrm.bench.shapes import Sizes
from csrm.errors import Unsupported
from csrm.export.typed_graph import equal_ranks
from csrm.train.decoder import DecoderShape
from csrm.train.model import ModelShape

HEAD = "verbalizers.rows"
DECODER = DecoderShape(30522, 48, 3, 6, 2, 16, 80, 4096, 3, 3)
ENCODER = ModelShape(30522, hidden=48, layers=3, heads=4, intermediate=192)


def products(sizes: Sizes, model: onnx.ModelProto, n_prefix: int, batch: int, n_new: int) -> int:
    """FLOPs of all MatMul nodes of a portable graph as it is run, the head's left out."""
    equal_ranks(model.graph)  # nothing is fused here, which else forgives a rank too many
    nodes = [n for n in model.graph.node if n.op_type == "MatMul" and n.input[1] != HEAD]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    seen = sorted({name for node in nodes for name in node.input} - set(shapes))
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in seen)
    options = onnxruntime.SessionOptions()  # as written: nothing fused or moved
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    prefix = np.zeros((sizes.layers, sizes.kv_heads, n_prefix, sizes.head_dim), np.float32)
    inputs = {"prefix_key": prefix, "prefix_value": prefix}
    rows = causal_rows([], [[7] * n_new] * batch)
    values = session.run(seen, {**inputs, **rows})
    shapes |= {name: value.shape for name, value in zip(seen, values, strict=True)}
    return sum(
        2 * int(np.prod(shapes[node.input[0]])) * shapes[node.input[1]][-1] for node in nodes
    )


def test_floor_flops_of_a_decoder_equal_those_by_hand() -> None:
    size = DecoderSize(layers=2, hidden=4, heads=2, kv_heads=1, head_dim=3, intermediate=5)
    # query 4 x 6, key and value 4 x 3, output 6 x 4, gate, up and down 4 x 5
    assert size.matrices == 24 + 2 * 12 + 24 + 3 * 20
    linear, keys_values = 2 * 132, 2 * 24
    # Two new tokens over three cached ones: the first sees 4, the second 5. 4 * 6 FLOPs a pair.
    cached = (2 * linear + 9 * 24) + (2 * keys_values + (linear - keys_values) + 5 * 24)
    assert floor_flops(size, 3, 2, 1) == cached
    assert floor_flops(size, 3, 2, 7) == 7 * cached
    # And the config itself: its tokens see 1, 2 and 3; its last layer is keys and values alone.
    config = 3 * linear + 6 * 24 + 3 * keys_values
    assert floor_flops(size, 3, 2, 7, is_cached=False) == 7 * cached + config
    assert floor_bytes(size, 3, 2, 7) == 2 * 2 * (132 + 2 * 3 * (3 + 7 * 2))


def test_floor_flops_of_an_encoder_equal_those_by_hand() -> None:
    size = EncoderSize(layers=2, hidden=4, intermediate=5)
    linear, keys_values = 2 * (4 * 16 + 2 * 20), 2 * 2 * 16
    cached = (2 * linear + 10 * 16) + (2 * keys_values + (linear - keys_values) + 5 * 16)
    assert floor_flops(size, 3, 2, 1) == cached
    config = 3 * linear + 3 * 16 + 3 * keys_values  # a token of a rule sees itself at least
    assert floor_flops(size, 3, 2, 1, is_cached=False) == cached + config
    assert floor_operations(size, 3, 2, 1).attention == 10 * 16 + 5 * 16
    assert floor_bytes(size, 3, 2, 1) == 2 * 2 * (104 + 2 * 4 * 5)


@pytest.mark.parametrize(("has_bf16", "attention"), [(True, "bf16"), (False, "fp32")])
def test_floor_of_int8_is_linear_layers_in_it_and_attention_in_the_next_best(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, attention: str
) -> None:
    peaks = {"fp32": 1e9, "bf16": 2e9, "int8": 5e9}
    monkeypatch.setattr(cpu_peaks, "measured", lambda arithmetic, threads: peaks[arithmetic])
    monkeypatch.setattr(cpu_peaks, "has_bf16", lambda: has_bf16)
    size = EncoderSize(layers=2, hidden=4, intermediate=5)
    row = {"case": "3+2", "batch": 7, "cached": True}
    rows = [{**row, "arithmetic": name} for name in ("fp32", "int8", "int8")]
    rows[2]["cached"] = False
    CpuFloor(size, 1).set(rows)
    for one in rows:
        linear, pairs = floor_operations(size, 3, 2, 7, is_cached=bool(one["cached"]))
        in_int8 = linear / 5e9 + pairs / peaks[attention]
        seconds = in_int8 if one["arithmetic"] == "int8" else (linear + pairs) / 1e9
        assert one["floor_ms"] == round(seconds * 1e3, 3)
    assert rows[0]["floor_gop_s"] == {"fp32": 1.0}
    assert rows[1]["floor_gop_s"] == {"int8": 5.0, attention: peaks[attention] / 1e9}


@pytest.mark.parametrize(("int8", "best"), [(5.0, 5.0), (1.0, 2.0), (None, 2.0)])
def test_int8_peak_where_it_gains_nothing_is_that_of_fp32(
    monkeypatch: pytest.MonkeyPatch, int8: float | None, best: float
) -> None:
    def peak(isa: str, levels: int, threads: int) -> float:
        assert (isa, levels, threads) == ("", 127, 3)
        if int8 is None:
            raise Unsupported("this CPU has no such instruction")
        return int8

    monkeypatch.setattr(cpu_peaks, "int8_peak", peak)
    monkeypatch.setattr(cpu_peaks, "fp32_peak", lambda threads: 2.0)
    assert cpu_peaks.measured("int8", 3) == best


@pytest.mark.parametrize(
    ("flags", "peak"), [("avx2 fma", 0.0), ("avx512f avx512_bf16", 1.0), ("amx_tile amx_bf16", 1.0)]
)
def test_bf16_peak_of_a_processor_without_bf16_is_zero(
    monkeypatch: pytest.MonkeyPatch, flags: str, peak: float
) -> None:
    monkeypatch.setattr(machine, "_of_cpu", lambda _: flags)
    monkeypatch.setattr(machine, "_peak", lambda *_: 1.0)
    assert machine.bf16_peak(1) == peak


@pytest.mark.parametrize("sizes", [DECODER, ENCODER], ids=["decoder", "encoder"])
def test_floor_flops_equal_the_products_of_the_graph(sizes: Sizes, tmp_path: Path) -> None:
    artifact = write_random_artifact(sizes, tmp_path / "model", "model")
    size: Size = model_size(artifact)
    model = onnx.load(artifact / "model.onnx")
    batch, n_prefix, n_new = 2, 40, 24
    counted = products(sizes, model, n_prefix, batch, n_new)
    floor = floor_flops(size, n_prefix, n_new, batch)
    if isinstance(sizes, DecoderShape):
        # The graph multiplies with keys that are masked as well, in all layers but the last.
        masked = n_new * n_new - n_new * (n_new + 1) // 2
        floor += batch * (sizes.layers - 1) * masked * 4 * sizes.heads * sizes.head_dim
    assert floor == counted


def test_model_size_of_a_decoder_is_its_shape(tmp_path: Path) -> None:
    artifact = write_random_artifact(DECODER, tmp_path / "model", "model")
    assert model_size(artifact) == DecoderSize(3, 48, 6, 2, 16, 80)


def test_weights_are_stored_once_and_survive_a_second_rounding(tmp_path: Path) -> None:
    from csrm.export.storage import quantise

    artifact = write_random_artifact(DECODER, tmp_path / "model", "model")
    model = onnx.load(artifact / "model.onnx")
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    values, scale = stored["layers.0.down.weight"].T, stored["layers.0.down.scale"]
    again = quantise(values.astype(np.float32) * scale[:, None])
    assert np.array_equal(again.values, values)
    n_matrices = DecoderSize(3, 48, 6, 2, 16, 80).matrices * 3 + 30522 * 48
    assert n_matrices <= (artifact / "model.weights").stat().st_size < n_matrices + 20 * 4096
    assert (artifact / "model.fused.onnx").stat().st_size < 200_000
