"""csrm: (config, conversation) -> reward, compliance, verdict.

    scorer = csrm.load()
    scorer.score(["Never promise refunds."], [{"role": "user", "content": "..."}])

The whole public API is here; importing it loads neither torch nor the native module.
"""

import os
from importlib.metadata import PackageNotFoundError, version

from csrm.config import SafetyConfig
from csrm.conversation import BadLine, ConversationRecord, Turn, read_conversations
from csrm.errors import Error
from csrm.operating_point import OperatingPoint
from csrm.paths import get_cmake_dir, get_include, get_library, get_pkgconfig_dir
from csrm.rule import Rule
from csrm.scheduler import Scheduler
from csrm.score import RuleScore, Score, TurnScore
from csrm.scorer import Scorer, load
from csrm.stream import Stream

__all__ = [
    "BadLine",
    "ConversationRecord",
    "Error",
    "OperatingPoint",
    "Rule",
    "RuleScore",
    "SafetyConfig",
    "Scheduler",
    "Score",
    "Scorer",
    "Stream",
    "Turn",
    "TurnScore",
    "get_cmake_dir",
    "get_include",
    "get_library",
    "get_pkgconfig_dir",
    "load",
    "read_conversations",
]

# ONNX Runtime 1.29 and newer reports to its maker unless this is set before it is loaded; the C++
# core sets it too, but not for the Python module `onnxruntime`. A value of the user's stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

try:
    __version__ = version("csrm")
except PackageNotFoundError:  # imported from a source tree without an install
    __version__ = "0+source"
