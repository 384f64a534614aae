"""`csrm export --tensorrt`: an artifact's portable graph -> a TensorRT engine file beside it.

What it is: the typed graph (csrm.export.typed_graph) through the builder of TensorRT or of TensorRT
for RTX, whichever Python package is installed; what was built, for what and of which graph goes
into the manifest's list "tensorrt", which the runtime reads. RTX builds ahead of time, without a
GPU, for every GPU it knows; TensorRT builds on the GPU that will run the engine, and measures
there. RTX does not build the same bytes twice; an equal `graph_sha256` says that two engines are of
the same function. Not: running an engine (runtime/src/trt_engine.cc).
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import onnx

from csrm.errors import BadArgument, BadArtifact, EngineFailed, EngineUnavailable, Unsupported
from csrm.export.artifact_files import add_file, copy_artifact, read_listed, read_manifest, replace
from csrm.export.tensorrt_profiles import DEFAULT_PROFILES, Profile, parse_profile
from csrm.export.typed_graph import Precision, typed_graph

__all__ = ["TensorRtOptions", "add_tensorrt_engine", "parse_profile"]

Package = Literal["tensorrt", "tensorrt_rtx"]
_ADVICE = (
    "install TensorRT for RTX, which builds without a GPU: pip install 'csrm[tensorrt]'; or "
    "NVIDIA's package tensorrt on the machine that will run the engine"
)
_MAX_MESSAGE = 300


@dataclass(frozen=True)
class TensorRtOptions:
    """What to build.

    package: "" = tensorrt where it is installed, else tensorrt_rtx. architectures: ("sm80", ...)
    that RTX builds for, none = all that it does by itself; for TensorRT none, the GPU's own, or
    "ampere+". timing_cache: TensorRT's measurements, read before a build and written after it, so
    that later builds choose the same kernels; RTX measures nothing and leaves it alone.
    is_version_compatible: TensorRT's engines then run in later releases of the same major version.
    """

    precision: Precision = "fp16"
    architectures: tuple[str, ...] = ()
    profiles: tuple[Profile, ...] = field(default=DEFAULT_PROFILES)
    timing_cache: Path | None = None
    is_version_compatible: bool = False
    package: Package | Literal[""] = ""


def add_tensorrt_engine(
    artifact: str | Path, out: str | Path, options: TensorRtOptions = TensorRtOptions()
) -> Path:
    """Builds the engine of the folder `artifact` and writes it into `out`; the path of the engine.

    `out` may be `artifact` itself; else its files are copied there. The manifest is replaced at the
    end and at once, so a run that fails leaves `out` as it was or as a whole artifact. An engine of
    the same package, precision and architectures is replaced.
    Errors: EngineUnavailable (no package, or no GPU where one is needed), Unsupported (operator,
    architecture), BadArtifact, DigestMismatch (files), EngineFailed (the builder's message),
    BadArgument (options).
    """
    if not options.profiles:
        raise BadArgument("a TensorRT engine needs at least one profile")
    source, target = Path(artifact), Path(out)
    manifest = read_manifest(source)
    package = installed_package(options.package)
    graph = typed_graph(read_graph(source, manifest), options.precision)
    data = serialised(graph)
    built = EngineBuilder(package, options).build(data, manifest["model"])
    if source.resolve() != target.resolve():
        copy_artifact(source, manifest, target)
    entry = {
        "file": engine_name(package.__name__, options.precision, built),
        "package": package.__name__,
        "version": package.__version__,
        "precision": options.precision,
        "architectures": architectures_of(package, options),
        "is_version_compatible": options.is_version_compatible,
        "graph_sha256": hashlib.sha256(data).hexdigest(),
        "profiles": [profile.json() for profile in options.profiles],
    }
    return add_file(target, manifest, built, entry)


def architectures_of(package: Any, options: TensorRtOptions) -> list[str]:
    """What the manifest says that an engine is for; TensorRT builds for the GPU that is here."""
    wished = sorted(set(options.architectures))
    if wished or package.__name__ == "tensorrt_rtx":
        return wished
    return [gpu_architecture()]


def read_graph(folder: Path, manifest: dict[str, Any]) -> onnx.ModelProto:
    """The artifact's portable graph, verified. Errors: BadArtifact, DigestMismatch."""
    try:
        name = manifest["variants"]["portable"]
    except (KeyError, TypeError) as error:
        raise BadArtifact("manifest.json names no portable variant; export it again") from error
    data = read_listed(folder, manifest, name)
    try:
        return onnx.load_from_string(data)
    except Exception as error:  # protobuf's DecodeError has no public base
        raise BadArtifact(f"{name} is no ONNX model: {type(error).__name__}") from error


def serialised(graph: onnx.ModelProto) -> bytes:
    """The bytes of a graph, always the same. Errors: Unsupported over protobuf's 2 GiB."""
    try:
        data: bytes = graph.SerializeToString(deterministic=True)
    except Exception as error:  # protobuf's EncodeError has no public base
        raise Unsupported(
            f"the model in this precision does not fit one ONNX file of 2 GiB "
            f"({type(error).__name__}); a TensorRT engine needs that; choose fp16 or bf16"
        ) from error
    return data


def engine_name(package: str, precision: str, engine: bytes) -> str:
    """A name of its own for each engine: one that is replaced is whole until the manifest is."""
    return f"model.{package}.{precision}.{hashlib.sha256(engine).hexdigest()[:12]}.engine"


def installed_package(wish: str = "") -> Any:
    """The module tensorrt or tensorrt_rtx. Errors: EngineUnavailable, BadArgument (wish)."""
    names = [wish] if wish else list(get_args(Package))
    if not set(names) <= set(get_args(Package)):
        raise BadArgument('the TensorRT package is "tensorrt" or "tensorrt_rtx"')
    for name in names:
        if find_spec(name) is None:
            continue
        try:
            return import_module(name)
        except Exception as error:  # a placeholder wheel, or a library that cannot be loaded
            raise EngineUnavailable(
                f"the package {name} cannot be imported ({type(error).__name__}); {_ADVICE}"
            ) from error
    raise EngineUnavailable(f"no package {' or '.join(names)} is installed; {_ADVICE}")


def gpu_architecture() -> str:
    """The architecture of the first GPU ("sm90"), or "" where the driver finds none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    numbers = [ctypes.c_int() for _ in range(3)]
    device, major, minor = numbers
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return ""
    for number, attribute in ((major, 75), (minor, 76)):  # the compute capability's two parts
        if driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device):
            return ""
    return f"sm{major.value}{minor.value}"


class EngineBuilder:
    """One build with one package. Use `add_tensorrt_engine`."""

    def __init__(self, package: Any, options: TensorRtOptions) -> None:
        self.package = package
        self.options = options
        self.is_rtx = package.__name__ == "tensorrt_rtx"
        self.errors: list[str] = []
        self.logger = make_logger(package, self.errors.append)

    def build(self, graph: bytes, model: dict[str, int]) -> bytes:
        """The engine of the ONNX model `graph`; `model`: the manifest's object."""
        if not self.is_rtx and not gpu_architecture():
            raise EngineUnavailable(
                "TensorRT builds on the GPU that will run the engine, and there is none here; "
                "build there, or with TensorRT for RTX: pip install 'csrm[tensorrt]' and give "
                "--tensorrt-package tensorrt_rtx"
            )
        try:
            builder = self.package.Builder(self.logger)
        except TypeError as error:  # the package's own constructor returned nothing
            raise EngineUnavailable(f"TensorRT has no builder here: {self.reason()}") from error
        network = builder.create_network(
            1 << int(self.package.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        )
        self.parse(network, graph)
        config = builder.create_builder_config()
        self.set_architectures(config)
        if self.options.is_version_compatible:
            if self.is_rtx:
                raise BadArgument("TensorRT for RTX has no version-compatible engines")
            config.set_flag(self.package.BuilderFlag.VERSION_COMPATIBLE)
        for profile in self.options.profiles:
            self.add_profile(builder, config, profile.shapes(model))
        cache = self.timing_cache(config)
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise EngineFailed(f"TensorRT cannot build the engine: {self.reason()}")
        if cache is not None:
            replace(cache, bytes(config.get_timing_cache().serialize()))
        return bytes(engine)

    def parse(self, network: Any, graph: bytes) -> None:
        """Reads `graph` into `network`. Errors: Unsupported, EngineFailed."""
        parser = self.package.OnnxParser(network, self.logger)
        if parser.parse(graph):
            return
        error = parser.get_error(0) if parser.num_errors else None
        operator = "" if error is None else str(error.node_operator())
        problem = self.reason() if error is None else short(error.desc())
        if error is not None and error.code() in (
            self.package.ErrorCode.UNSUPPORTED_NODE,
            self.package.ErrorCode.UNSUPPORTED_NODE_ATTR,
            self.package.ErrorCode.UNSUPPORTED_NODE_INPUT,
            self.package.ErrorCode.UNSUPPORTED_NODE_DATATYPE,
            self.package.ErrorCode.UNSUPPORTED_NODE_DYNAMIC,
            self.package.ErrorCode.UNSUPPORTED_NODE_SHAPE,
        ):
            raise Unsupported(f"TensorRT does not know operator {operator}: {problem}")
        raise EngineFailed(f"TensorRT cannot read the graph at operator {operator}: {problem}")

    def set_architectures(self, config: Any) -> None:
        """Errors: Unsupported for an architecture that the package does not build for."""
        wished = sorted(set(self.options.architectures))
        if not self.is_rtx:
            if wished == ["ampere+"]:
                config.hardware_compatibility_level = (
                    self.package.HardwareCompatibilityLevel.AMPERE_PLUS
                )
            elif wished not in ([], [gpu_architecture()]):
                raise Unsupported(
                    f"TensorRT builds for the GPU of this machine ({gpu_architecture()}) or, with "
                    '"ampere+", for it and later ones; build on the GPU that will run the engine'
                )
            return
        known = {
            name.lower(): value
            for name, value in self.package.ComputeCapability.__members__.items()
            if name.startswith("SM")
        }
        if not set(wished) <= set(known):
            raise Unsupported(
                f"this TensorRT for RTX builds for {', '.join(known)}, not for "
                f"{', '.join(sorted(set(wished) - set(known)))[:_MAX_MESSAGE]}"
            )
        config.num_compute_capabilities = len(wished)
        for index, name in enumerate(wished):
            config.set_compute_capability(known[name], index)

    def add_profile(
        self, builder: Any, config: Any, shapes: dict[str, tuple[tuple[int, ...], ...]]
    ) -> None:
        """Errors: BadArgument when the package refuses the sizes."""
        profile = builder.create_optimization_profile()
        for name, (least, usual, largest) in shapes.items():
            profile.set_shape(name, least, usual, largest)
        if config.add_optimization_profile(profile) < 0:
            raise BadArgument(f"TensorRT refuses the profile: {self.reason()}")

    def timing_cache(self, config: Any) -> Path | None:
        """Gives the builder the kept measurements; where to keep those of this build.

        Errors: BadArtifact when the file is of another version or GPU.
        """
        path = self.options.timing_cache
        if path is None or self.is_rtx:
            return None
        try:
            kept = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise BadArgument(f"the timing cache cannot be read: {type(error).__name__}") from error
        cache = config.create_timing_cache(kept)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            raise BadArtifact(
                "the timing cache is of another TensorRT or GPU; name another file for this one"
            )
        return path

    def reason(self) -> str:
        """The first error that TensorRT logged."""
        return short(self.errors[0] if self.errors else "it gives no reason")


def make_logger(package: Any, keep: Callable[[str], None]) -> Any:
    """A logger that keeps errors instead of printing them."""

    class Logger(package.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            package.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            """Called by TensorRT, from any of its threads."""
            if severity in (
                package.ILogger.Severity.ERROR,
                package.ILogger.Severity.INTERNAL_ERROR,
            ):
                keep(message)

    return Logger()


def short(message: str) -> str:
    """One line of bounded length."""
    return " ".join(message.split())[:_MAX_MESSAGE]
