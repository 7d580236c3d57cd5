"""Which downstream datasets a protocol can judge."""

from clsp.config.catalog import dataset_info
from clsp.config.schema import Params


def multilabel_tasks(params: Params) -> tuple[str, ...]:
    """Downstream datasets whose images show several classes at once."""
    judged = params.evaluation.transfer
    tasks = judged.datasets if judged else ()
    return tuple(t for t in tasks if dataset_info(params.datasets[t].kind).multilabel)


def few_shot_tasks(params: Params) -> tuple[str, ...]:
    """Downstream datasets with one class per image: k images of each class are well defined."""
    judged, several = params.evaluation.transfer, multilabel_tasks(params)
    if judged is None or judged.few_shot is None:
        return ()
    return tuple(task for task in judged.datasets if task not in several)
