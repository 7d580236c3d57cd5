"""Reproduce, extend and audit "Contrastive Learning with Synthetic Positives" (arXiv:2408.16965).

Shape legend, used in every docstring: B batch, N anchors (images of a dataset), K candidates per
anchor, D projection width, F feature width, C channels, H x W image, T diffusion steps.
Images at rest are uint8 (N, H, W, 3); inside networks they are float (B, C, H, W).
Accuracies are percent (0-100), times are seconds, learning rates are per optimizer step.
"""

import os

__version__ = "0.1.0"

# Nothing this suite starts may phone home. Set before any of the libraries is imported, because
# each of them reads its switch once, at import.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    # A tracking server that is down must not hold up a job: by default MLflow tries for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}.items():
    os.environ.setdefault(_name, _value)
