"""Under which terms an encoder may be used: as far as the suite can know them."""

OTHER = "other"
NAME = "terms-of-training-data"
FILE = "LICENSE.md"


def licence_fields(identifier: str | None) -> dict[str, str]:
    """What a model card's metadata says.

    Args:
        identifier: Of a licence that whoever publishes the weights has chosen, or None.
    """
    if identifier:
        return {"license": identifier}
    return {"license": OTHER, "license_name": NAME, "license_link": FILE}


def licence_text(identifier: str | None, title: str, terms: str, source: str) -> str:
    """LICENSE.md of an exported encoder.

    Args:
        identifier: Of a licence that whoever publishes the weights has chosen, or None.
        title: Of the training data.
        terms: Licence of the training data, as its card says.
        source: Where the training data come from.
    """
    chosen = (
        f"Whoever exported these weights publishes them under: {identifier}."
        if identifier
        else "Whoever exported these weights has named no licence for them: none is granted."
    )
    return (
        f"# Terms\n\n{chosen}\n\n"
        f"- Training data: {title}. Licence: {terms}. Source: {source}. Its terms may bind whoever "
        "uses or passes on weights that were trained on it.\n"
        "- The code that made the weights, the CLSP reproducibility suite: Apache-2.0. It is for "
        "code and does not cover the weights.\n"
    )
