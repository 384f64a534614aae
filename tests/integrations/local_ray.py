"""`local_ray`: a Ray of two CPUs on this machine, for as long as a test module needs it.

Not: what runs on it. It has no dashboard, a bounded object store, and reports nothing to anybody.
Import this before anything else that imports Ray, which reads the environment when it is imported.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own
    import ray

# A busy machine may need longer for a start than the 30 s that Ray gives it.
N_TRIES = 3


@contextmanager
def local_ray() -> Iterator[None]:
    """Ray is initialised within; afterwards its processes have ended."""
    for left in reversed(range(N_TRIES)):
        try:
            ray.init(
                num_cpus=2,
                object_store_memory=100 << 20,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
            )
            break
        except Exception:
            ray.shutdown()
            if not left:
                raise
    yield
    ray.shutdown()
    assert not ray.is_initialized()
    gc.collect()  # Ray's warnings of processes that it did not wait for belong here
