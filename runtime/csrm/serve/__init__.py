"""csrm.serve: the scorer over HTTP. `csrm serve` runs it; needs csrm[serve].

The data path: routes -> endpoint (key, limits, deadline) -> native or an adapter -> judging ->
csrm.Scheduler, and back. docs/serve.md describes it from outside.
"""

from csrm.serve.app import create_app
from csrm.serve.options import Limits, ServeOptions
from csrm.serve.run import run
from csrm.serve.service import Service

__all__ = ["Limits", "ServeOptions", "Service", "create_app", "run"]
