"""Faults in datasets, in counts of duplicates and in what judges encoders downstream."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from injecting import RUN, Tree, edit_arrays, edit_mlflow, edit_statement, fault, flip_bit

from clsp.data.encoded import EncodedFile, EncodedWriter, encode
from clsp.runtime.canonical import canonical_json

FLOOR = "digits.tiny.random.s1"


def _edit_list(tree: Tree, dataset: str, change: Callable[[list[list[str]]], None]) -> None:
    """Change fields of a dataset's list of images; its manifest agrees."""
    path = tree.results / f"data/{dataset}/items.csv"
    lines = [line.split(",") for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(",".join(line) + "\n" for line in lines))
    edit_statement(path.with_name("manifest.json"), lambda _: None)


@fault("A08", "A22", "A24")
def image_renamed_in_list(tree: Tree) -> None:
    """Another index list than the card's hash stands for."""
    _edit_list(tree, "digits", lambda lines: lines[3].__setitem__(1, "train/other.png"))


@fault("A08", "A09", "A22", "A24")
def images_swapped_between_splits(tree: Tree) -> None:
    """The last training image and the first test image change places in the list."""

    def swap(lines: list[list[str]]) -> None:
        lines[12], lines[13] = lines[13], lines[12]

    _edit_list(tree, "target-mini", swap)


@fault("A08", "A22", "A24")
def label_changed_in_list(tree: Tree) -> None:
    _edit_list(tree, "digits", lambda lines: lines[15].__setitem__(2, "0"))


@fault("A08", "A22", "A24")
def source_of_image_changed_in_list(tree: Tree) -> None:
    """A digest at the image's own resolution, which no stored array gives."""
    _edit_list(tree, "digits", lambda lines: lines[3].__setitem__(3, "0" * 32))


@fault("A08", "A09", "A22", "A24")
def list_cut(tree: Tree) -> None:
    _edit_list(tree, "target-mini", lambda lines: lines.__delitem__(-1))


@fault("A10", "A22", "A24", notes=("A09",))
def candidates_made_of_test_images(tree: Tree) -> None:
    """As of a denoiser that was trained on the test split: near copies, none of them exact."""
    path = tree.results / "banks/digits.mix/images.npy"
    bank, real = np.load(path), np.load(tree.results / "data/digits/images.npy")
    test = real[
        json.loads((tree.results / "data/digits/card.json").read_text())["splits"]["test"][0] :
    ]
    for number in range(bank.shape[0] * bank.shape[1]):
        copied = np.clip(test[number % len(test)].astype(int) + 1 + number // len(test), 0, 255)
        bank[number // bank.shape[1], number % bank.shape[1]] = copied
    np.save(path, bank)
    edit_statement(path.with_name("manifest.json"), lambda _: None)


@fault("A08", "A22", "A24")
def digest_of_images_on_card_edited(tree: Tree) -> None:
    path = tree.results / "data/target-mini/card.json"
    card = json.loads(path.read_text())
    path.write_text(canonical_json({**card, "images_sha256": "0" * 64}))
    edit_statement(path.with_name("manifest.json"), lambda _: None)


@fault("A09", "A22", "A24")
def digest_changed_in_list(tree: Tree) -> None:
    _edit_list(tree, "target-mini", lambda lines: lines[15].__setitem__(4, "0" * 32))


@fault("A08", "A09", "A22", "A24")
def test_image_replaced(tree: Tree) -> None:
    """By a training image, while the list keeps the digest of what was there."""
    path = tree.results / "data/target-mini/images.npy"
    images = np.load(path)
    images[14] = np.load(tree.results / "data/digits/images.npy")[2]
    np.save(path, images)
    edit_statement(path.with_name("manifest.json"), lambda _: None)


def _edit_duplicates(tree: Tree, change: Callable[[list[dict[str, Any]]], None]) -> None:
    path = tree.results / "evaluations/duplicates/duplicates.json"
    record = json.loads(path.read_text())
    change(record["pairs"])
    path.write_text(canonical_json(record))
    edit_statement(path.with_name("manifest.json"), lambda _: None)


@fault("A09", "A22", within="judged")
def duplicate_denied(tree: Tree) -> None:
    def deny(pairs: list[dict[str, Any]]) -> None:
        (leak,) = [pair for pair in pairs if pair["duplicates"]]
        leak.update(duplicates=0, examples=[])

    _edit_duplicates(tree, deny)


@fault("A09", "A22")
def comparison_left_out(tree: Tree) -> None:
    _edit_duplicates(tree, lambda pairs: pairs.__delitem__(0))


@fault("A09", "A22")
def comparison_of_another_profile(tree: Tree) -> None:
    _edit_duplicates(tree, lambda pairs: pairs.append({**pairs[0], "trained_on": "other/train"}))


@fault("A01", "A22", code=1)
def duplicates_not_counted(tree: Tree) -> None:
    """Nothing is wrong with any number, but the page says otherwise than it would be drawn now."""
    for path in (tree.results / "evaluations/duplicates").iterdir():
        path.unlink()


@fault("A02", "A22", "A26", within="judged")
def point_of_curve_edited(tree: Tree) -> None:
    path = tree.reports / "figures/few_shot.csv"
    lines = path.read_text().split("\n")
    fields = lines[1].split(",")
    lines[1] = ",".join([*fields[:7], "99.9", *fields[8:]])
    path.write_text("\n".join(lines))


@fault("A02", "A22", "A26", within="judged")
def point_of_curve_left_out(tree: Tree) -> None:
    path = tree.reports / "figures/few_shot.csv"
    first, _, *rest = path.read_text().split("\n")
    path.write_text("\n".join([first, *rest]))


def _forge_results(
    tree: Tree, kind: str, run: str, change: Callable[[dict[str, Any]], None]
) -> None:
    """Change the first record of a run's results, in the file and in the manifest alike."""
    path = tree.run(kind, f"{kind}.json", run)
    record = json.loads(path.read_text())
    change(record["results"][0])
    path.write_text(canonical_json(record))
    edit_statement(path.with_name("manifest.json"), lambda p: change(p["facts"]["results"][0]))


@fault("A19", "A22", within="judged")
def value_of_curve_forged(tree: Tree) -> None:
    """Metrics and MLflow keep the number that the predicted classes give."""
    _forge_results(tree, "few_shot", RUN, lambda record: record.update(value=99.9))


@fault("A19", "A22", "A26", within="judged")
def predicted_classes_edited(tree: Tree) -> None:
    """Predicted classes of a floor; nothing else changes, so that no record fits them."""

    def change(arrays: dict[str, np.ndarray]) -> None:
        guess = arrays["target-mini.shots=1.predicted"]
        guess[0] = (guess[0] + 1) % 3

    edit_arrays(tree.run("few_shot", "predictions.npz", FLOOR), change)
    edit_statement(tree.run("few_shot", "manifest.json", FLOOR), lambda _: None)


@fault("A21", "A22", within="judged")
def test_images_among_few_shots(tree: Tree) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["target-mini.shots=2.drawn"][1, 0] = 15

    edit_arrays(tree.run("few_shot", "predictions.npz"), change)
    edit_statement(tree.run("few_shot", "manifest.json"), lambda _: None)


@fault("A21", "A22", within="judged")
def more_shots_than_named(tree: Tree) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        name = "target-mini.shots=1.drawn"
        arrays[name] = np.stack([np.arange(6)] * 2)

    edit_arrays(tree.run("few_shot", "predictions.npz"), change)
    edit_statement(tree.run("few_shot", "manifest.json"), lambda _: None)


@fault("A19", "A21", "A22", within="judged")
def fine_tuning_chosen_on_test(tree: Tree) -> None:
    edit_statement(
        tree.run("fine_tune", "manifest.json"),
        lambda p: p["facts"]["results"][0].update(selected_on="test"),
    )


@fault("A19", "A21", "A22", within="judged")
def epoch_of_floor_claimed(tree: Tree) -> None:
    """An untrained encoder has no epoch; whoever trained it would say so."""
    edit_statement(
        tree.run("transfer", "manifest.json", FLOOR),
        lambda p: p["facts"]["results"][0].update(epoch=2),
    )


@fault("A02", "A08", "A19", "A26", within="judged")
def label_added_to_multilabel_predictions(tree: Tree) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        labels = arrays["multi-mini.labels"]
        labels[0] = 1 - labels[0]

    edit_arrays(tree.run("transfer", "predictions.npz"), change)


@fault("A19", "A22", "A26", within="judged")
def ranking_of_multilabel_task_turned_round(tree: Tree) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["multi-mini.logits"] *= -1

    edit_arrays(tree.run("transfer", "predictions.npz"), change)
    edit_statement(tree.run("transfer", "manifest.json"), lambda _: None)


@fault("A20", within="judged")
def mlflow_value_of_curve_edited(tree: Tree) -> None:
    edit_mlflow(tree, "few_shot/target-mini/shots_1", 99.9)


@fault("A22", "A24", within="judged")
def features_of_another_run(tree: Tree) -> None:
    other = RUN.replace("s1", "s0")

    def change(predicate: dict[str, Any]) -> None:
        donor = json.loads(tree.run("few_shot", "manifest.json", other).read_text())
        predicate["resolvedDependencies"] = donor["predicate"]["resolvedDependencies"]

    edit_statement(tree.run("few_shot", "manifest.json"), change)


@fault("A22", "A24", within="judged")
def floor_of_another_seed(tree: Tree) -> None:
    """The features of the untrained encoder are those of another one."""
    donor = json.loads(tree.run("features", "manifest.json", "digits.tiny.random.s0").read_text())
    edit_statement(
        tree.run("features", "manifest.json", FLOOR),
        lambda p: p.update(resolvedDependencies=donor["predicate"]["resolvedDependencies"]),
    )


@fault("A02", within="judged")
def bit_flipped_in_features(tree: Tree) -> None:
    flip_bit(tree.run("features", "features.safetensors", FLOOR))


@fault("A09", "A22", "A24", within="judged")
def image_file_replaced(tree: Tree) -> None:
    """One of the encoded images, while the list keeps the digest of what was there."""
    path = tree.results / "data/multi-mini/images.arrow"
    file = EncodedFile(path)
    pictures = [file.picture(row).copy() for row in range(len(file))]
    pictures[0] = pictures[1]
    with EncodedWriter(path.with_name("other.arrow")) as writer:
        for picture in pictures:
            writer.add(encode(picture, None), picture.height, picture.width)
    path.with_name("other.arrow").replace(path)
    edit_statement(path.with_name("manifest.json"), lambda _: None)


def _edit_archive(tree: Tree, **changes: Any) -> None:
    edit_statement(
        tree.results / "fetched/multi-mini/manifest.json",
        lambda p: p["facts"]["archives"][0].update(changes),
    )


@fault("A22", "A42", within="judged")
def other_archive_fetched(tree: Tree) -> None:
    _edit_archive(tree, sha256="0" * 64)


@fault("A22", "A42", within="judged")
def archive_not_recorded(tree: Tree) -> None:
    edit_statement(
        tree.results / "fetched/multi-mini/manifest.json",
        lambda p: p["facts"]["archives"].__delitem__(0),
    )


@fault("A22", "A42", within="judged")
def miniature_instead_of_download(tree: Tree) -> None:
    edit_statement(
        tree.results / "fetched/multi-mini/manifest.json",
        lambda p: p["facts"].update(miniature=True),
    )
