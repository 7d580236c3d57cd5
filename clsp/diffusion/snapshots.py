"""What is kept of a denoiser while it trains: EMA weights, grids of samples, the loss curve."""

import logging
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from PIL import Image

from clsp.config.denoisers import DenoiserSpec, SnapshotSpec
from clsp.diffusion.pixels import to_uint8
from clsp.diffusion.sampling import build_sampler, constant_times, sample
from clsp.diffusion.state import Training
from clsp.runtime.checkpoint import save_tensors
from clsp.runtime.history import read_history
from clsp.runtime.rng import key_of, normal

log = logging.getLogger(__name__)
FOLDER, CURVE = "snapshots", "loss.png"

# Without `snapshots` one grid is drawn, at the end. It shows whether images look right and is no
# measurement: 16 images, and no more than 20 DDIM steps, with which an image is already clear.
GRID_IMAGES, MOST_STEPS = 16, 20
CURVE_POINTS = 1000  # as wide as the picture is in pixels; longer logs are averaged


def final_grid(spec: DenoiserSpec) -> SnapshotSpec:
    """The snapshot that is taken at the end: as asked for, or a small grid."""
    if spec.snapshots is not None:
        return spec.snapshots
    total = spec.train_timesteps
    steps = max(n for n in range(1, min(MOST_STEPS, total) + 1) if total % n == 0)
    return SnapshotSpec(every=spec.epochs, kept=1, images=GRID_IMAGES, steps=steps)


def draw_grid(
    unet: UNet2DModel, spec: DenoiserSpec, images: int, steps: int, classes: int | None
) -> np.ndarray:
    """Samples of a denoiser by deterministic DDIM, from the same keyed noise every time.

    Args:
        unet: In eval mode.
        spec: For schedule and seed.
        images: How many.
        steps: DDIM steps, a divisor of train_timesteps.
        classes: Of a class-conditional denoiser: they come in turn. Without guidance.

    Returns:
        uint8 (images, H, W, 3).
    """
    device, size = unet.device, unet.config.sample_size
    numbers = torch.arange(images, device=device)
    start = normal(key_of(spec.seed, "grid"), numbers, count=3 * size * size)
    labels = None if classes is None else numbers % classes + 1

    def predict(x: torch.Tensor, time: int, _step: int) -> torch.Tensor:
        return unet(x, constant_times(x, time), class_labels=labels, return_dict=False)[0]

    with torch.no_grad():
        scheduler = build_sampler(spec, steps)
        drawn = sample(scheduler, start.view(-1, 3, size, size), predict, torch.zeros_like, eta=0)
    return to_uint8(drawn, "nearest").cpu().numpy()


def tile(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W, 3) row by row in a grid as square as can be; what is left over is black."""
    count, height, width, _ = images.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    grid = np.zeros((rows * columns, height, width, 3), np.uint8)
    grid[:count] = images
    grid = grid.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, 3)


def draw_curve(history: Path, path: Path) -> None:
    """The loss against the step, as a PNG; neighbouring records of a long log are averaged."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = read_history(history)
    if not records:
        return
    steps = np.array([record["step"] for record in records], dtype=np.float64)
    losses = np.array([record["loss"] for record in records])
    parts = min(len(steps), CURVE_POINTS)
    bounds = np.linspace(0, len(steps), parts + 1).astype(int)[:-1]
    sizes = np.diff([*bounds, len(steps)])
    figure = Figure(figsize=(6, 3.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    averaged = (np.add.reduceat(values, bounds) / sizes for values in (steps, losses))
    axes.plot(*averaged, linewidth=1)
    axes.set(xlabel="step", ylabel="mean squared error of the noise", yscale="log")
    axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Software": None})


class Snapshots:
    """Takes snapshots into the scratch folder, and copies them into the artefact at the end.

    Args:
        scratch: The job's scratch folder; they lie in `snapshots` below it.
        spec: Of the denoiser.
        classes: Of a class-conditional denoiser, else None.
        done: Epochs that are done; snapshots of later ones are left over, and removed.
    """

    def __init__(self, scratch: Path, spec: DenoiserSpec, classes: int | None, done: int) -> None:
        self.folder, self.spec, self.classes = scratch / FOLDER, spec, classes
        self.wanted = final_grid(spec)
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            epoch = path.name.removeprefix("epoch-").partition(".")[0]
            if not done or path.suffix == ".partial" or (epoch.isdigit() and int(epoch) > done):
                path.unlink()
        if spec.snapshots is not None:
            log.info("snapshots appear in %s", self.folder)

    def after_epoch(self, epoch: int, training: Training, history: Path) -> None:
        """Take a snapshot where one is due.

        Args:
            epoch: Epochs done.
            training: Whose moving average is sampled and kept.
            history: The step log.
        """
        last = epoch == self.spec.epochs
        if epoch % self.wanted.every and not last:
            return
        name = f"epoch-{epoch:06d}"
        if self.spec.snapshots is not None and not last:  # the last weights are the artefact's
            weights = training.ema.state_dict()
            path = self.folder / f"{name}.safetensors"
            save_tensors(path.with_suffix(".partial"), weights, {"epoch": str(epoch)})
            path.with_suffix(".partial").replace(path)
            for old in sorted(self.folder.glob("*.safetensors"))[: -self.wanted.kept]:
                old.unlink()
        grid = draw_grid(
            training.ema, self.spec, self.wanted.images, self.wanted.steps, self.classes
        )
        Image.fromarray(tile(grid)).save(self.folder / f"{name}.png")
        draw_curve(history, self.folder / CURVE)

    def hand_over(self, output: Path) -> None:
        """Copy everything into the artefact."""
        shutil.copytree(self.folder, output)
