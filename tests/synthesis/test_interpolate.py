"""The paper's generator, against a loop written out from methods.md 2.1."""

import pytest
import torch
from diffusing import bank_spec, write_denoiser

from clsp.diffusion.pixels import to_signed, to_uint8
from clsp.diffusion.sampling import build_sampler
from clsp.models.denoiser import Denoiser, decode, encode, load_denoiser
from clsp.runtime.errors import ConfigError
from clsp.runtime.rng import key_of, normal
from clsp.synthesis.generators import interpolate

ROWS, CANDIDATES = torch.tensor([3, 3, 7]), torch.tensor([0, 1, 0])


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    artefact = write_denoiser(tmp_path_factory.mktemp("denoiser"))
    return load_denoiser(artefact, torch.device("cpu"))


@pytest.fixture
def anchors() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8, generator=generator)
    return to_signed(images[[0, 0, 1]])


def drawn(denoiser, anchors, rows=ROWS, candidates=CANDIDATES, **changed):
    spec = bank_spec(**changed)
    return interpolate.generate(denoiser, anchors, rows, candidates, spec.settings(), spec.seed)


def naive(denoiser, anchors, weight, steps, eta, seed) -> torch.Tensor:
    """One pair at a time, both networks run in full, float64 DDIM; keys as documented."""
    spec, images = denoiser.spec, []
    betas = torch.linspace(spec.beta_start, spec.beta_end, spec.train_timesteps).double()
    alphas = torch.cumprod(1 - betas, 0)
    stride = spec.train_timesteps // steps
    for anchor, row, candidate in zip(anchors[:, None], ROWS, CANDIDATES, strict=True):

        def noise(purpose, step, row=row, candidate=candidate):
            keyed = normal(key_of(seed, purpose), row[None], candidate[None], step, count=192)
            return keyed.view(1, 3, 8, 8)

        x = noise("start", 0).double()
        for step in range(steps):
            now, after = spec.train_timesteps - 1 - step * stride, -1
            times = torch.tensor([now])
            h, skips, emb = encode(denoiser.unet, x.float(), times)
            noised = alphas[now].sqrt() * anchor + (1 - alphas[now]).sqrt() * noise(
                "anchor noise", step
            )
            h_anchor, _, _ = encode(denoiser.unet, noised.float(), times)
            mixed = weight * h + (1 - weight) * h_anchor
            epsilon = decode(denoiser.unet, mixed, skips, emb).double()
            x0 = (x - (1 - alphas[now]).sqrt() * epsilon) / alphas[now].sqrt()
            after = now - stride
            if after < 0:
                x = x0
                break
            ratio = alphas[now] / alphas[after]
            sigma = eta * ((1 - ratio) * (1 - alphas[after]) / (1 - alphas[now])).sqrt()
            x = alphas[after].sqrt() * x0 + (1 - alphas[after] - sigma**2).sqrt() * epsilon
            x = x + sigma * noise("eta noise", step)
        images.append(x.float())
    return to_uint8(torch.cat(images), "nearest")


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.7, 1.0])
@torch.no_grad()
def test_equals_the_written_out_loop(denoiser, anchors, weight):
    found = drawn(denoiser, anchors, interpolation_weight=weight)
    expected = naive(denoiser, anchors, weight, steps=4, eta=0.5, seed=0)
    assert found.float().std() > 10
    assert (found.int() - expected.int()).abs().max() <= 1
    assert (found != expected).float().mean() < 0.01


def test_weight_one_is_plain_ddim_and_ignores_the_anchor(denoiser, anchors):
    found = drawn(denoiser, anchors, interpolation_weight=1.0, eta=0.0)
    scheduler = build_sampler(denoiser.spec, 4)
    x = normal(key_of(0, "start"), ROWS, CANDIDATES, 0, count=192).view_as(anchors)
    with torch.no_grad():
        for time in scheduler.timesteps.tolist():
            epsilon = denoiser.unet(x, torch.full((3,), time)).sample
            x = scheduler.step(epsilon, time, x, eta=0.0).prev_sample
    assert torch.equal(found, to_uint8(x, "nearest"))
    assert torch.equal(found, drawn(denoiser, -anchors, interpolation_weight=1.0, eta=0.0))


class Halves:
    """Records and changes what passes between the two halves of the network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inputs: list[torch.Tensor] = []
        self.decoded: list[tuple] = []
        self.change = lambda h, skips, emb: (h, skips, emb)
        monkeypatch.setattr(interpolate, "encode", self.encode)
        monkeypatch.setattr(interpolate, "decode", self.decode)

    def encode(self, unet, images, times):
        self.inputs.append(images.clone())
        h, skips, emb = encode(unet, images, times)
        return self.change(h.clone(), [skip.clone() for skip in skips], emb)

    def decode(self, unet, h, skips, emb):
        self.decoded.append((h, skips, emb))
        return decode(unet, h, skips, emb)


def test_weight_zero_uses_nothing_of_the_samples_own_bottleneck(denoiser, anchors, monkeypatch):
    clean = drawn(denoiser, anchors, interpolation_weight=0.0)
    halves = Halves(monkeypatch)

    def spoil_own(h, skips, emb):
        h[:3] += 100
        return h, skips, emb

    halves.change = spoil_own
    assert torch.equal(drawn(denoiser, anchors, interpolation_weight=0.0), clean)
    assert not torch.equal(drawn(denoiser, anchors, interpolation_weight=0.1), clean)


def test_skips_are_the_samples_own(denoiser, anchors, monkeypatch):
    clean = drawn(denoiser, anchors)
    halves = Halves(monkeypatch)

    def spoil_anchors(h, skips, emb):
        for skip in skips:
            skip[3:] = torch.nan
        return h, skips, emb

    halves.change = spoil_anchors
    assert torch.equal(drawn(denoiser, anchors), clean)

    def spoil_own(h, skips, emb):
        for skip in skips:
            skip[:3] += 1
        return h, skips, emb

    halves.change = spoil_own
    assert not torch.equal(drawn(denoiser, anchors), clean)


def test_anchor_is_noised_afresh_at_every_step_and_never_decoded(denoiser, anchors, monkeypatch):
    halves = Halves(monkeypatch)
    drawn(denoiser, anchors)
    alphas = build_sampler(denoiser.spec, 4).alphas_cumprod[[99, 74, 49, 24]]
    noise = [
        (seen[3:] - alpha.sqrt() * anchors) / (1 - alpha).sqrt()
        for seen, alpha in zip(halves.inputs, alphas, strict=True)
    ]
    assert all(len(seen) == 6 for seen in halves.inputs)
    assert all(len(h) == 3 for h, _, _ in halves.decoded)
    for step, one in enumerate(noise):
        assert abs(one.mean()) < 0.2 and abs(one.std() - 1) < 0.1
        for other in noise[:step]:
            correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
            assert abs(correlation) < 0.2
    first, second = noise[0][0], noise[0][1]  # two candidates of one anchor
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 0.3


def test_weight_one_runs_no_anchor(denoiser, anchors, monkeypatch):
    halves = Halves(monkeypatch)
    drawn(denoiser, anchors, interpolation_weight=1.0)
    assert [len(seen) for seen in halves.inputs] == [3, 3, 3, 3]


def test_settings_are_checked_with_their_key(denoiser, anchors):
    with pytest.raises(ValueError, match="interpolation_weight"):
        bank_spec(interpolation_weight=1.1)
    with pytest.raises(ValueError, match="did you mean"):
        bank_spec(interpolation_wieght=0.1)
    with pytest.raises(ConfigError, match="train_timesteps 100, found 30"):
        drawn(denoiser, anchors, steps=30)
