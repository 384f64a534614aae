"""`watch`: reloads when a file of the operator has changed, and on SIGHUP.

Not: the reload itself (Service.reload). Files are looked at by polling, which also sees what
mounted volumes and links swap in. A change counts when it has stood still for one poll, so that a
file that is being written is not read half.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading

from csrm.serve.configs import Signature
from csrm.serve.logs import log_exception
from csrm.serve.service import Service

_LOADING_S = 0.1  # how often a reload asked for while the model loads looks whether it is there


async def watch(service: Service) -> None:
    """Runs until it is cancelled."""
    asked = asyncio.Event()
    if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    poll_s = service.options.poll_s or None
    served = seen = await _files(service)
    while True:
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(asked.wait(), poll_s)
        if asked.is_set() and service.state != "ready":
            await asyncio.sleep(_LOADING_S)
            continue
        now = await _files(service)
        is_new = now is not None and now == seen and now != served
        if service.state == "ready" and (asked.is_set() or is_new):
            asked.clear()
            served = now
            await service.reload()
        seen = now


async def _files(service: Service) -> Signature | None:
    try:
        return await asyncio.to_thread(service.files)
    except OSError:
        return None  # a folder that is being replaced; looked at again
    except Exception as error:
        log_exception("watch_failed", error)
        return None
