"""The int8 variant: exported, loaded, chosen, and measured against the portable one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import tiny_decoder
from test_export import rows_of

import csrm
from csrm import errors
from csrm.export import variant_parity
from csrm.export.artifact import export_checkpoint
from csrm.export.fused_decoder_graph import build_fused_decoder_graph
from csrm.export.fused_graph import build_fused_graph
from csrm.export.graph import build_graph
from csrm.export.int8_graph import int8_graph
from csrm.export.parity import OnnxEngine
from csrm.export.recalibrate import recalibrate
from csrm.export.variant_parity import changes
from csrm.train.evaluation_sets import Case

SOUND = {"compliance_p99": 0.002, "f1_change": 0.0}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    checkpoint = tiny.write_checkpoint(folder / "checkpoint", tiny.encoder())
    return export_checkpoint(checkpoint, folder / "artifact", name="tiny", int8=True).parent


def with_parity(artifact: Path, folder: Path, parity: dict[str, Any]) -> Path:
    """A copy whose manifest says what was measured."""
    folder.mkdir()
    for file in artifact.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((artifact / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"int8_parity": parity}))
    return folder


def test_int8_variant_scores_near_the_portable_one(artifact: Path) -> None:
    scorers = [csrm.load(artifact, n_threads=1, variant=name) for name in ("portable", "int8")]
    assert scorers[1].info()["variant"] == "int8"
    for turns in [tiny.CHAT, *(e.turns for e in tiny.examples(6, seed=3))]:
        messages = [{"role": role, "content": content} for role, content in turns]
        portable, int8 = (scorer.score(list(tiny.RULES), messages) for scorer in scorers)
        assert portable.reward != int8.reward  # it is another arithmetic
        assert int8.reward == pytest.approx(portable.reward, abs=0.02)


def test_int8_variant_cold_warm_threaded_and_incremental_scores_are_equal_bits(
    tmp_path: Path,
) -> None:
    """Heads of 32 columns, so that a CPU with AMX multiplies them in bfloat16."""
    model = tiny.encoder(replace(tiny.SHAPE, heads=1))
    checkpoint = tiny.write_checkpoint(tmp_path / "checkpoint", model)
    folder = export_checkpoint(checkpoint, tmp_path / "out", name="tiny", int8=True).parent

    def load(**options: Any) -> csrm.Scorer:
        return csrm.load(folder, variant="int8", **{"n_threads": 1, **options})

    rules = list(tiny.RULES)
    turns = [*tiny.CHAT, *(("user", tiny.letters(60, t)) for t in range(12)), tiny.CHAT[-1]]
    chat = [{"role": role, "content": content} for role, content in turns]
    cold = load().score(rules, chat)
    portable = csrm.load(folder, n_threads=1, variant="portable").score(rules, chat)
    assert cold.reward == pytest.approx(portable.reward, abs=0.05)  # weights are drawn wide
    warm, grown = load(), load()
    assert warm.score_batch(rules, [chat[:2], chat, chat[:5]])[1] == cold
    assert warm.score(rules, chat) == cold
    for options in ({"cache_tokens": 0}, {"batch_tokens": 1}, {"n_threads": 2}):
        assert load(**options).score(rules, chat) == cold
    for n in range(1, len(chat)):
        grown.score(rules, chat[:n], reuse_turns=True)
    assert grown.score(rules, chat, reuse_turns=True) == cold


def test_int8_variant_is_one_encoder_and_a_head_and_holds_no_weight_of_its_own(
    artifact: Path,
) -> None:
    fused, int8 = (artifact / f"model.{name}.onnx" for name in ("fused", "int8"))
    graph = onnx.load(int8, load_external_data=False).graph
    encoder, head = (node for node in graph.node if node.domain == "csrm")
    assert (encoder.op_type, head.op_type) == ("EncoderI8", "RewardHead")
    assert {a.name: onnx.helper.get_attribute_value(a) for a in encoder.attribute} == {
        "layers": 2,
        "heads": 4,
        "head_dim": 8,
        "levels": 2047,
        "products": b"bf16",
        "scale": pytest.approx(8**-0.5),
        "epsilon": pytest.approx(tiny.SHAPE.norm_epsilon),
    }
    assert list(encoder.output) == ["key", "value", head.input[0]]
    weights = {tensor.name for tensor in graph.initializer}
    assert set(encoder.input[7:]) <= weights
    assert weights == weights & {name for node in graph.node for name in node.input}
    # Beside the two: where the head reads, of what judged_places writes.
    assert {node.op_type for node in graph.node if not node.domain} <= {
        *("Shape", "Gather", "Range", "Less", "Where", "Constant")
    }
    assert int8.stat().st_size < fused.stat().st_size + 4096


def in_separate_operators(fused: onnx.ModelProto, levels: int) -> onnx.ModelProto:
    """The same arithmetic node by node: csrm.LinearI8 for csrm.Linear, products in bfloat16."""
    chain = onnx.ModelProto()
    chain.CopyFrom(fused)
    for node in chain.graph.node:
        if node.op_type == "Linear":
            node.op_type = "LinearI8"
            node.attribute.append(onnx.helper.make_attribute("levels", levels))
        if node.op_type == "PrefixAttention":
            node.attribute.append(onnx.helper.make_attribute("products", "bf16"))
    return chain


@pytest.mark.parametrize("levels", [127, 2047])
@pytest.mark.parametrize("shape", [{}, {"heads": 1}, {"layers": 1}, {"layers": 3}])
def test_int8_graph_equals_separate_operators_to_the_bit(
    shape: dict[str, int], levels: int, tmp_path: Path
) -> None:
    model = tiny.encoder(replace(tiny.SHAPE, **shape))
    fused = build_fused_graph(model, tiny.CALIBRATION)
    found = []
    for name, graph in (
        ("int8", int8_graph(fused, levels)),
        ("chain", in_separate_operators(fused, levels)),
    ):
        (tmp_path / name).write_bytes(graph.SerializeToString())
        rows = rows_of(3, [[0, 4, 16], [0, -1, 8]])
        shape_ = (model.shape.layers, model.shape.heads, 7, model.shape.head_dim)
        prefix = np.random.default_rng(1).normal(size=(2, *shape_)).astype(np.float32)
        found.append(OnnxEngine(tmp_path / name).run(rows, *prefix))
    for int8, chain in zip(*found, strict=True):
        np.testing.assert_array_equal(int8, chain)


def test_int8_variant_without_a_measurement_is_not_chosen(artifact: Path) -> None:
    assert csrm.load(artifact, n_threads=1).info()["variant"] == "fused"


@pytest.mark.parametrize(
    "parity",
    [{"compliance_p99": 0.011, "f1_change": 0.0}, {"compliance_p99": 0.002, "f1_change": 0.004}],
)
def test_int8_variant_measured_as_different_is_not_chosen(
    artifact: Path, tmp_path: Path, parity: dict[str, Any]
) -> None:
    folder = with_parity(artifact, tmp_path / "a", parity)
    assert csrm.load(folder, n_threads=1).info()["variant"] == "fused"
    assert csrm.load(folder, n_threads=1, variant="int8").info()["variant"] == "int8"


def test_int8_variant_measured_as_alike_is_chosen_with_vnni(artifact: Path, tmp_path: Path) -> None:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    folder = with_parity(artifact, tmp_path / "a", SOUND)
    info = csrm.load(folder, n_threads=1).info()
    kernels = str(info["kernels"]).split()[0]
    is_wide = kernels == "amx" or (kernels == "avx512" and "avx512_vnni" in flags)
    assert info["variant"] == ("int8" if is_wide else "fused")


@pytest.mark.parametrize("parity", [{}, {"compliance_p99": "small", "f1_change": 0}, [0.001]])
def test_int8_variant_damaged_measurement_is_bad_artifact(
    artifact: Path, tmp_path: Path, parity: Any
) -> None:
    with pytest.raises(errors.BadArtifact, match="int8_parity"):
        csrm.load(with_parity(artifact, tmp_path / "a", parity), n_threads=1)


def test_int8_variant_absent_is_unsupported(tmp_path: Path) -> None:
    checkpoint = tiny.write_checkpoint(tmp_path / "checkpoint", tiny.encoder())
    plain = export_checkpoint(checkpoint, tmp_path / "plain", name="tiny").parent
    with pytest.raises(errors.Unsupported, match="no int8 variant"):
        csrm.load(plain, variant="int8")


def test_int8_variant_recalibrated_is_to_be_measured_again(artifact: Path, tmp_path: Path) -> None:
    folder = with_parity(artifact, tmp_path / "a", SOUND)
    recalibrate(folder, tmp_path / "b", tiny.CALIBRATION, method="platt")
    assert "int8_parity" not in json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert csrm.load(tmp_path / "b", n_threads=1, variant="int8").info()["variant"] == "int8"


def test_int8_graph_of_float_weights_is_bad_artifact(tmp_path: Path) -> None:
    checkpoint = tiny.write_checkpoint(tmp_path / "checkpoint", tiny.encoder())
    folder = export_checkpoint(checkpoint, tmp_path / "out", name="tiny", storage="fp32").parent
    with pytest.raises(errors.BadArtifact, match="stored as int8"):
        int8_graph(onnx.load(folder / "model.fused.onnx"))
    with pytest.raises(errors.BadArgument, match="int8"):
        export_checkpoint(checkpoint, tmp_path / "out", name="tiny", storage="fp32", int8=True)


def test_int8_graph_of_no_encoders_fused_graph_is_bad_artifact(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    decoder = tiny_decoder.decoder(tmp_path, "llama")
    encoder = build_fused_graph(tiny.encoder(), tiny.CALIBRATION)
    of_two_heads = onnx.ModelProto()
    of_two_heads.CopyFrom(encoder)
    of_two_heads.graph.node.append(encoder.graph.node[-1])
    without_norm = onnx.ModelProto()
    without_norm.CopyFrom(encoder)
    norms = [i for i, node in enumerate(encoder.graph.node) if node.op_type == "AddNorm"]
    del without_norm.graph.node[norms[1]]
    for graph in (
        build_fused_decoder_graph(decoder, tiny.CALIBRATION),
        build_graph(tiny.encoder(), tiny.CALIBRATION),
        int8_graph(encoder),
        of_two_heads,
        without_norm,
    ):
        with pytest.raises(errors.BadArtifact, match="not those of an encoder"):
            int8_graph(graph)


ROWS = np.array([[1.0, 0.2, -1, 0.6, 1], [0.0, 0.9, 2, 0.9, 2], [np.nan, 0.5, 0, 0.4, -0.5]])


def test_variant_parity_counts_changes() -> None:
    parity = changes(np.tile(ROWS, (34, 1)))
    assert parity.n == 102
    assert parity.compliance_max == pytest.approx(0.4)
    assert parity.verdicts_changed == pytest.approx(2 / 3)
    assert parity.f1_change == 1.0  # the only violations are no longer found


@pytest.mark.parametrize("rows", [ROWS, np.tile(ROWS[:1], (102, 1)), np.tile(ROWS[2:], (102, 1))])
def test_variant_parity_of_few_cases_or_one_class_is_refused(rows: np.ndarray[Any, Any]) -> None:
    with pytest.raises(errors.BadArgument, match="100 cases"):
        changes(rows)


def test_variant_parity_does_not_leave_out_what_the_variant_alone_fails_at(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scored(scorer: csrm.Scorer, _: object) -> csrm.Score:
        if scorer.info()["variant"] == "int8":
            raise errors.NonFinite("not finite")
        return scorer.score(list(tiny.RULES), [{"role": "user", "content": "Hello."}])

    monkeypatch.setattr(variant_parity, "_scored", scored)
    case = Case("a", "a", (), (), "last", True, "a")
    monkeypatch.setattr(
        variant_parity, "read_cases", lambda *_, **__: SimpleNamespace(cases=[case])
    )
    with pytest.raises(errors.NonFinite):
        variant_parity.measure_variant(artifact, "int8", [artifact])
