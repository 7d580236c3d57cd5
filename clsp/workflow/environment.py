"""The environment that every job is started in."""

import os
import shlex
import sys
from pathlib import Path

from clsp.config.schema import Params
from clsp.runtime import device, tracking


def job_environment(params: Params) -> str:
    """Shell text put before every job's command.

    It is no rerun trigger, so that changing the device or switching tracking reruns nothing.
    """
    values = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        "PYTHONHASHSEED": "0",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic matrix products on CUDA
        "CLSP_DIE_WITH_PARENT": "1",
        device.VARIABLE: params.device,
        tracking.EXPERIMENT: f"clsp-{params.profile}",
    }
    exports = "".join(f"export {name}={shlex.quote(value)}; " for name, value in values.items())
    if not params.tracking:
        return exports + f"unset {tracking.URI}; "
    uri = os.environ.get(tracking.URI) or tracking.default_uri()
    return exports + f"export {tracking.URI}={shlex.quote(uri)}; "
