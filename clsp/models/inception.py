"""The Inception-v3 of FID, with weights from a file of the user's."""

import io
from pathlib import Path

import numpy as np
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from clsp.models.features import Images
from clsp.runtime.errors import DataError
from clsp.runtime.foreign import load_foreign

LAYER = "2048"  # the pooled features that FID compares
# Both torch-fidelity and pytorch-fid publish the converted original weights in a file whose name
# ends in the first digits of its sha256.
REFERENCE = "6726825d"
BATCH = 32  # of 299 pixels once they are enlarged: the widest activation has 169 MiB


class InceptionSource:
    """Features of pytorch-fid and torch-fidelity, from uint8 images of any size.

    Attributes:
        path: Of the weights, for messages.
        epoch: None: not pretrained here.
        batch: Images per forward pass.
        sha256: Of the file with the weights.
    """

    epoch = None
    batch = BATCH

    def __init__(self, path: Path, expected: str | None, device: torch.device) -> None:
        """Load the weights; nothing is ever downloaded.

        Args:
            path: A state dict of torch-fidelity or pytorch-fid.
            expected: sha256 that the file must have, or None.
            device: Where features are computed.

        Raises:
            DataError: If the file is missing, is another one, or does not fit the network.
        """
        foreign = load_foreign(path, expected, legacy=True)
        # The class reads a file with torch.load, which runs whatever a pickle holds. It is given
        # the tensors that were read safely, in a file of our own making.
        own = io.BytesIO()
        torch.save(foreign.tensors, own)
        own.seek(0)
        try:
            network = FeatureExtractorInceptionV3("inception", [LAYER], own)
        except RuntimeError as error:
            raise DataError(f"{path}: does not fit the Inception-v3 of FID: {error}") from error
        self.path, self.device, self.sha256 = path, device, foreign.sha256
        self.network = network.to(device)

    @property
    def reference(self) -> bool:
        """Whether the file is the one that torch-fidelity and pytorch-fid publish."""
        return self.sha256.startswith(REFERENCE)

    def width(self, images: Images) -> int:
        """Features per image F."""
        return int(LAYER)

    def resolution(self, images: Images) -> int:
        """Side at which images enter; the network itself enlarges them, pixels."""
        return images.shape[1]

    @torch.inference_mode()
    def describe(self, block: np.ndarray) -> np.ndarray:
        """Features float32 (B, 2048) of uint8 (B, H, W, 3)."""
        batch = torch.from_numpy(block).to(self.device).permute(0, 3, 1, 2)
        return self.network(batch)[0].cpu().numpy()
