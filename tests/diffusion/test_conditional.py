"""Class-conditional training, and that nothing else ever opens a label."""

import json

import numpy as np
import pytest
import torch
from diffusing import denoiser_spec, write_artefact, write_dataset
from training import WEIGHTS, run, written
from tree_params import PARAMS, tiny_params

from clsp.data.check import Counts, find_problems
from clsp.diffusion import feed, loop, state
from clsp.models.denoiser import build_denoiser
from clsp.runtime import team
from clsp.runtime.canonical import canonical_json, sha256_array
from clsp.runtime.checkpoint import load_tensors, tensors_sha256
from clsp.runtime.errors import ConfigError
from clsp.runtime.rng import torch_stream


def relabelled(folder, labels):
    """The tiny dataset with other labels; its card and manifest agree."""
    folder = write_dataset(folder).folder
    labels = np.asarray(labels)
    np.save(folder / "labels.npy", labels)
    card = json.loads((folder / "card.json").read_text())
    card["labels_sha256"] = sha256_array(labels)
    if labels.ndim == 2:
        card["multilabel"] = True
    (folder / "card.json").write_text(canonical_json(card))
    names = ["images.npy", "labels.npy", "card.json"]
    return write_artefact(folder, "prepare-dataset", {"kind": "tiny", "size": 8}, names, {})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="module")
def conditional(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditional")
    return folder, run(denoiser_spec(label_drop=0.5), dataset, folder)


def test_the_record_says_that_labels_were_used(conditional):
    folder, outcome = conditional
    assert outcome.facts["label_conditioned"] is True
    assert (outcome.facts["classes"], outcome.facts["label_drop"]) == (3, 0.5)
    config = json.loads((folder / "unet/config.json").read_text())
    assert (config["num_class_embeds"], config["class_embed_type"]) == (4, None)
    embedding = load_tensors(folder / "raw" / WEIGHTS)[0]["class_embedding.weight"]
    assert embedding.shape == (4, 32)


def test_labels_reach_the_weights(conditional, tmp_path):
    folder, _ = conditional
    run(denoiser_spec(label_drop=0.5), relabelled(tmp_path / "data", [0, 1, 2] * 4), tmp_path)
    assert written(tmp_path)[f"raw/{WEIGHTS}"] != written(folder)[f"raw/{WEIGHTS}"]


def test_without_label_drop_labels_are_not_even_opened(dataset, tmp_path):
    run(denoiser_spec(), dataset, tmp_path / "whole")
    bare = write_dataset(tmp_path / "data")
    (bare.folder / "labels.npy").unlink()
    outcome = run(denoiser_spec(), bare, tmp_path / "bare")
    assert outcome.facts["label_conditioned"] is False and "classes" not in outcome.facts
    assert written(tmp_path / "bare") == written(tmp_path / "whole")


def test_class_c_is_label_c_plus_1_and_a_whole_batch_is_dropped():
    labels = np.array([2, 0, 1, 1, 2, 0, 0, 2])
    pixels = feed.Pixels(np.zeros((8, 8, 8, 3), np.uint8), "tiny", torch.device("cpu"))
    always, never = denoiser_spec(label_drop=1.0), denoiser_spec(label_drop=0.0)
    for part in range(2):
        given = feed.Feed(pixels, 8, labels, never, team.Team(part, 2))
        rows = given.rows(1)
        assert rows.tolist() == feed.epoch_order(0, 0, 8)[4 + 2 * part :][:2].tolist()
        assert given.batch(1)[3].tolist() == (labels[rows] + 1).tolist()
        dropped = feed.Feed(pixels, 8, labels, always, team.Team(part, 2))
        assert dropped.batch(1)[3].tolist() == [0, 0]


def test_the_share_of_dropped_batches_is_label_drop():
    spec = denoiser_spec(label_drop=0.1)
    assert 160 < sum(feed.drops_labels(spec, step) for step in range(2000)) < 240
    assert feed.drops_labels(spec, 7) == feed.drops_labels(spec, 7)


def test_the_label_is_added_to_the_embedding_of_the_time():
    """diffusers does so where class_embed_type is None and num_class_embeds is set (D30)."""
    unet = build_denoiser(denoiser_spec(label_drop=0.1), 8, 3).eval()
    for parameter in unet.parameters():
        parameter.data.normal_(0, 0.2, generator=torch_stream("weights"))
    images, times = torch.randn(2, 3, 8, 8), torch.tensor([3, 70])
    seen = []
    unet.mid_block.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    with torch.no_grad():
        unet(images, times, class_labels=torch.tensor([1, 3]))
        time = unet.time_embedding(unet.time_proj(times))
    torch.testing.assert_close(seen[0], time + unet.class_embedding.weight[[1, 3]])


def test_a_conditional_network_starts_from_the_seed_alone():
    spec, digests = denoiser_spec(label_drop=0.1), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        digests.append(tensors_sha256(build_denoiser(spec, 8, 3).state_dict()))
    assert digests[0] == digests[1]
    assert build_denoiser(spec, 8, 3).class_embedding.weight.std() < 0.03


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ([0, 1, 2, -1, 0, -1, 2, 0, 1, 0, 1, 2], "2 of the 9 training images .* have no label"),
        (np.ones((12, 3), np.uint8), "may show several classes"),
    ],
)
def test_labels_that_cannot_serve_are_refused(tmp_path, labels, problem):
    spec, data = denoiser_spec(label_drop=0.1), relabelled(tmp_path / "data", labels)
    with pytest.raises(ConfigError, match=problem):
        run(spec, data, tmp_path / "out")
    assert run(denoiser_spec(), data, tmp_path / "plain").counters["steps"] == 4


def test_labels_that_are_missing_are_found_before_anything_is_trained():
    changed = {"digits": {**PARAMS["denoisers"]["digits"], "label_drop": 0.1}}
    params = tiny_params(
        denoisers=changed,
        comparison={"recipes": "single", "labels": "marked"},
        tables=[],
        figures=[],
    )
    (problem,) = find_problems(params, 1, {"digits": Counts(12, 9, 3, 3, labelled=10)})
    assert problem == (
        "denoisers.digits.label_drop: uses labels, but 2 of the 12 training images of dataset "
        "digits have none"
    )
    assert find_problems(params, 1, {"digits": Counts(12, 9, 3, 3, labelled=12)}) == []


def test_interrupted_conditional_training_resumes_bit_for_bit(
    conditional, dataset, tmp_path, monkeypatch
):
    folder, _ = conditional
    save = state.Training.save

    def stopping(self, *given):
        save(self, *given)
        if self.step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    monkeypatch.setattr(state.Training, "save", stopping)
    spec = denoiser_spec(label_drop=0.5)
    with pytest.raises(KeyboardInterrupt):
        run(spec, dataset, tmp_path)
    monkeypatch.setattr(state.Training, "save", save)
    run(spec, dataset, tmp_path)
    assert written(tmp_path) == written(folder)
