"""A stand-in for the Python packages tensorrt and tensorrt_rtx: it notes what it is asked.

What it is: the part of their API that csrm.export.tensorrt calls, with an "engine" that is the
graph's own digest. Not: a builder; tests/integrations/test_tensorrt.py has the real one.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum
from typing import Any


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class ErrorCode(IntEnum):
    SUCCESS = 0
    INVALID_NODE = 6
    UNSUPPORTED_NODE = 8
    UNSUPPORTED_NODE_ATTR = 9
    UNSUPPORTED_NODE_INPUT = 10
    UNSUPPORTED_NODE_DATATYPE = 11
    UNSUPPORTED_NODE_DYNAMIC = 12
    UNSUPPORTED_NODE_SHAPE = 13


class Architecture(IntEnum):
    NONE = 0
    SM80 = 1
    SM89 = 2
    SM120 = 3


class Compatibility(IntEnum):
    NONE = 0
    AMPERE_PLUS = 1


class _Logger:
    Severity = Severity

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


class _ParserError:
    def __init__(self, code: ErrorCode) -> None:
        self._code = code

    def code(self) -> ErrorCode:
        return self._code

    def node_operator(self) -> str:
        return "Einsum"

    def desc(self) -> str:
        return "in  the\nparser" + "!" * 999


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[Any, ...]] = {}

    def set_shape(self, name: str, least: Any, usual: Any, largest: Any) -> None:
        self.shapes[name] = (least, usual, largest)


class _Cache:
    def __init__(self, kept: bytes) -> None:
        self.kept = kept

    def serialize(self) -> bytes:
        return self.kept + b"+"


class _Config:
    def __init__(self, package: FakeTensorRt) -> None:
        self.package = package
        self.num_compute_capabilities = 0
        self.hardware_compatibility_level = Compatibility.NONE
        self.architectures: dict[int, Architecture] = {}
        self.flags: list[int] = []
        self.profiles: list[_Profile] = []
        self.cache: _Cache | None = None

    def set_compute_capability(self, architecture: Architecture, index: int) -> bool:
        self.architectures[index] = architecture
        return True

    def set_flag(self, flag: int) -> None:
        self.flags.append(flag)

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profiles.append(profile)
        return -1 if self.package.refuses_profiles else len(self.profiles) - 1

    def create_timing_cache(self, kept: bytes) -> _Cache:
        return _Cache(kept)

    def set_timing_cache(self, cache: _Cache, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return cache.kept != b"of another GPU" or ignore_mismatch

    def get_timing_cache(self) -> _Cache:
        assert self.cache is not None
        return self.cache


class _Network:
    graph = b""


class FakeTensorRt:
    """The module. Fields that start with `refuses` or `fails` make a stage go wrong."""

    ILogger = _Logger
    ErrorCode = ErrorCode
    ComputeCapability = Architecture
    HardwareCompatibilityLevel = Compatibility

    class NetworkDefinitionCreationFlag(IntEnum):
        STRONGLY_TYPED = 1

    class BuilderFlag(IntEnum):
        VERSION_COMPATIBLE = 7

    def __init__(self, name: str = "tensorrt_rtx") -> None:
        self.__name__ = name
        self.__version__ = "1.7.1.116" if name == "tensorrt_rtx" else "10.14.1.48"
        self.refuses_profiles = False
        self.refuses_to_start = False
        self.refuses_node: ErrorCode | None = None
        self.fails_to_build = False
        self.config: _Config | None = None
        self.graph = b""
        self.logger: Any = None

    def Builder(self, logger: Any) -> FakeTensorRt:  # noqa: N802
        self.logger = logger
        if self.refuses_to_start:
            logger.log(Severity.ERROR, "no device")
            raise TypeError("factory function returned nullptr")
        return self

    def OnnxParser(self, network: _Network, logger: Any) -> _Parser:  # noqa: N802
        return _Parser(self)

    def create_network(self, flags: int) -> _Network:
        assert flags == 1 << 1
        return _Network()

    def create_builder_config(self) -> _Config:
        self.config = _Config(self)
        return self.config

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes | None:
        if self.fails_to_build:
            self.logger.log(Severity.WARNING, "only a warning")
            self.logger.log(Severity.ERROR, "no  kernel\nfits")
            return None
        return b"engine " + hashlib.sha256(self.graph).digest()


class _Parser:
    def __init__(self, package: FakeTensorRt) -> None:
        self.package = package
        self.num_errors = int(package.refuses_node is not None)

    def parse(self, graph: bytes) -> bool:
        self.package.graph = graph
        return self.num_errors == 0

    def get_error(self, index: int) -> _ParserError:
        assert index == 0
        assert self.package.refuses_node is not None
        return _ParserError(self.package.refuses_node)
