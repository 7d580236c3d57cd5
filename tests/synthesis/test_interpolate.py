"""The paper's generator, against a loop written out from methods.md 2.1."""

import pytest
import torch
from diffusing import bank_spec, request_of, write_denoiser

from clsp.diffusion.pixels import to_signed, to_uint8
from clsp.diffusion.sampling import build_sampler
from clsp.models.denoiser import Denoiser, decode, encode, load_denoiser
from clsp.runtime.errors import ConfigError
from clsp.runtime.rng import key_of, normal
from clsp.synthesis.generators import interpolate, unconditional
from clsp.synthesis.network import Network

ROWS, CANDIDATES = torch.tensor([3, 3, 7]), torch.tensor([0, 1, 0])
BLOCKS = ["down.0", "down.1", "down.2", "mid", "up.0", "up.1", "up.2"]
DEEP = {"channels": [8, 8, 8], "attention": [False, True, False]}


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    artefact = write_denoiser(tmp_path_factory.mktemp("denoiser"))
    return load_denoiser(artefact, torch.device("cpu"))


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    artefact = write_denoiser(tmp_path_factory.mktemp("deep"), **DEEP)
    return load_denoiser(artefact, torch.device("cpu"))


@pytest.fixture
def anchors() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8, generator=generator)
    return to_signed(images[[0, 0, 1]])


def drawn(denoiser, anchors, rows=ROWS, candidates=CANDIDATES, **changed):
    spec = bank_spec(**changed)
    settings = spec.settings()
    request = request_of(anchors, rows, candidates, spec.seed)
    return interpolate.generate(Network(denoiser, settings), request, settings)


def noise_of(seed, purpose, row, candidate, step):
    keyed = normal(key_of(seed, purpose), row[None], candidate[None], step, count=192)
    return keyed.view(1, 3, 8, 8)


def naive(denoiser, anchors, weight, steps, eta, seed, shared=False) -> torch.Tensor:
    """One pair at a time, both networks run in full, float64 DDIM; keys as documented."""
    spec, images = denoiser.schedule, []
    betas = torch.linspace(spec.beta_start, spec.beta_end, spec.train_timesteps).double()
    alphas = torch.cumprod(1 - betas, 0)
    stride = spec.train_timesteps // steps
    for anchor, row, candidate in zip(anchors[:, None], ROWS, CANDIDATES, strict=True):
        x = noise_of(seed, "start", row, candidate, 0).double()
        for step in range(steps):
            now = spec.train_timesteps - 1 - step * stride
            times = torch.tensor([now])
            h, skips, emb = encode(denoiser.unet, x.float(), times)
            if shared:
                noise = noise_of(seed, "shared anchor noise", row, torch.tensor(0), step)
            else:
                noise = noise_of(seed, "anchor noise", row, candidate, step)
            noised = alphas[now].sqrt() * anchor + (1 - alphas[now]).sqrt() * noise
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
            x = x + sigma * noise_of(seed, "eta noise", row, candidate, step)
        images.append(x.float())
    return to_uint8(torch.cat(images), "nearest")


def nearly_equal(first, second, share=0.01):
    difference = (first.int() - second.int()).abs()
    return difference.max() <= 1 and (difference > 0).float().mean() < share


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("weight", [0.0, 0.1, 0.7, 1.0])
@torch.no_grad()
def test_equals_the_written_out_loop(denoiser, anchors, weight, shared):
    """With shared anchor noise too: one pass for all candidates is the pass of each (D29)."""
    found = drawn(denoiser, anchors, interpolation_weight=weight, share_anchor_noise=shared)
    expected = naive(denoiser, anchors, weight, steps=4, eta=0.5, seed=0, shared=shared)
    assert found.float().std() > 10
    assert nearly_equal(found, expected)


def test_shared_noise_changes_images_but_not_their_dependence_on_the_batch(denoiser, anchors):
    together = drawn(denoiser, anchors, share_anchor_noise=True)
    assert not torch.equal(together, drawn(denoiser, anchors))
    for i in range(3):  # also when a batch splits the candidates of an anchor
        one = slice(i, i + 1)
        alone = drawn(denoiser, anchors[one], ROWS[one], CANDIDATES[one], share_anchor_noise=True)
        assert nearly_equal(alone, together[one], 0.02)


def test_weight_one_is_plain_ddim_and_ignores_the_anchor(denoiser, anchors):
    found = drawn(denoiser, anchors, interpolation_weight=1.0, eta=0.0)
    sampler = build_sampler(denoiser.schedule, 4)
    x = normal(key_of(0, "start"), ROWS, CANDIDATES, 0, count=192).view_as(anchors)
    with torch.no_grad():
        for time in sampler.timesteps.tolist():
            epsilon = denoiser.unet(x, torch.full((3,), time)).sample
            x = sampler.step(epsilon, time, x, eta=0.0).prev_sample
    assert torch.equal(found, to_uint8(x, "nearest"))
    assert torch.equal(found, drawn(denoiser, -anchors, interpolation_weight=1.0, eta=0.0))


@pytest.mark.parametrize("scheduler", [{}, {"scheduler": "dpm_solver", "eta": 0.0, "steps": 3}])
def test_weight_one_is_the_unconditional_generator_bit_for_bit(denoiser, anchors, scheduler):
    spec = bank_spec(**{**scheduler, "interpolation_weight": 1.0, "mix_at": "down.0"})
    options = {k: v for k, v in spec.options.items() if k not in ("interpolation_weight", "mix_at")}
    settings = unconditional.Config(**options)
    network = Network(denoiser, settings)
    request = request_of(anchors, ROWS, CANDIDATES, spec.seed)
    found = drawn(denoiser, anchors, **spec.options)
    assert torch.equal(found, unconditional.generate(network, request, settings))


class Halves:
    """Records and changes what passes between the two parts of the network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inputs: list[torch.Tensor] = []
        self.decoded: list[tuple] = []
        self.change = lambda h, skips, emb: (h, skips, emb)
        monkeypatch.setattr(interpolate, "encode", self.encode)
        monkeypatch.setattr(interpolate, "decode", self.decode)

    def encode(self, unet, images, times, until="mid"):
        self.inputs.append(images.clone())
        h, skips, emb = encode(unet, images, times, until=until)
        return self.change(h.clone(), [skip.clone() for skip in skips], emb)

    def decode(self, unet, h, skips, emb, after="mid"):
        self.decoded.append((h, skips, emb))
        return decode(unet, h, skips, emb, after)


def tensors(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 8, 8, generator=generator), torch.tensor([40])


def mix(denoiser, x, anchors, time, weight, block):
    with torch.no_grad():
        return interpolate.mixed(denoiser.unet, x, anchors, None, time, weight=weight, block=block)


@pytest.mark.parametrize("block", BLOCKS)
def test_at_every_block_weight_one_is_the_networks_own_forward(deep, block):
    (x, time), (anchors, _) = tensors(1), tensors(2)
    found = mix(deep, x, anchors, time, 1.0, block)
    with torch.no_grad():
        expected = deep.unet(x, time.expand(2)).sample
    assert expected.std() > 0.1
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("block", BLOCKS)
def test_at_every_block_weight_zero_uses_nothing_of_the_sample_there(deep, block, monkeypatch):
    (x, time), (anchors, _) = tensors(1), tensors(2)
    clean = mix(deep, x, anchors, time, 0.0, block)
    with torch.no_grad():  # written out: the anchor's features, the sample's skips
        h, _, _ = encode(deep.unet, anchors, time.expand(2), until=block)
        _, skips, emb = encode(deep.unet, x, time.expand(2), until=block)
        expected = decode(deep.unet, h, skips, emb, after=block)
    torch.testing.assert_close(clean, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))
    halves = Halves(monkeypatch)

    def spoil_own(h, skips, emb):
        if block.startswith("down") or len(halves.inputs) == 1:
            h[:2] += 100  # behind "down.i" the last skip is a copy, and stays
        return h, skips, emb

    halves.change = spoil_own
    assert torch.equal(mix(deep, x, anchors, time, 0.0, block), clean)
    halves.inputs.clear()
    halves.change = lambda h, skips, emb: (h + 100, skips, emb)
    spoilt = mix(deep, x, anchors, time, 0.0, block)
    assert not torch.equal(spoilt, clean)


@pytest.mark.parametrize("weight", [0.0, 0.3])
@pytest.mark.parametrize("block", BLOCKS)
def test_at_every_block_skips_are_the_samples_own(deep, block, weight):
    (x, time), (anchors, _) = tensors(1), tensors(2)
    found = mix(deep, x, anchors, time, weight, block)
    with torch.no_grad():
        own, skips, emb = encode(deep.unet, x, time.expand(2), until=block)
        h, _, _ = encode(deep.unet, anchors, time.expand(2), until=block)
        mixed = weight * own + (1 - weight) * h
        expected = decode(deep.unet, mixed, skips, emb, after=block)
        other = decode(deep.unet, mixed, [2 * skip for skip in skips], emb, after=block)
    assert (found - expected).abs().max() <= 2e-6 * expected.abs().max()
    assert bool(skips) == (not torch.equal(other, expected))  # behind the last block none is left


def test_where_features_are_mixed_matters(deep, anchors):
    images = {block: drawn(deep, anchors, mix_at=block) for block in BLOCKS}
    assert torch.equal(images["mid"], drawn(deep, anchors))
    assert len({image.numpy().tobytes() for image in images.values()}) == len(BLOCKS)


def test_skips_are_the_samples_own_all_the_way(denoiser, anchors, monkeypatch):
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
    alphas = build_sampler(denoiser.schedule, 4).alphas_cumprod[[99, 74, 49, 24]]
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


def test_shared_noise_takes_one_anchor_pass_for_all_candidates(denoiser, anchors, monkeypatch):
    halves = Halves(monkeypatch)
    drawn(denoiser, anchors, share_anchor_noise=True)
    assert [len(seen) for seen in halves.inputs] == [3 + 2] * 4  # two anchors of three pairs


def test_no_work_is_done_that_the_result_does_not_need(denoiser, anchors, monkeypatch):
    halves, middle = Halves(monkeypatch), []
    hook = denoiser.unet.mid_block.register_forward_hook(lambda m, a, out: middle.append(len(out)))
    drawn(denoiser, anchors, interpolation_weight=1.0)
    assert halves.inputs == []  # no anchor
    assert middle == [3] * 4
    middle.clear()
    drawn(denoiser, anchors, interpolation_weight=0.0)
    assert middle == [3] * 4  # only the anchors' middle block
    hook.remove()


def test_settings_are_checked_with_their_key(denoiser, anchors):
    with pytest.raises(ValueError, match="interpolation_weight"):
        bank_spec(interpolation_weight=1.1)
    with pytest.raises(ValueError, match="did you mean"):
        bank_spec(interpolation_wieght=0.1)
    for block in ("middle", "down", "down.-1", "up.01"):
        with pytest.raises(ValueError, match="mix_at"):
            bank_spec(mix_at=block)
    with pytest.raises(ConfigError, match="train_timesteps 100, found 30"):
        drawn(denoiser, anchors, steps=30)
    with pytest.raises(ConfigError, match=r'no block "up.2"; it has down.0, down.1, mid, up.0, up'):
        drawn(denoiser, anchors, mix_at="up.2")
