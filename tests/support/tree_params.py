"""What the tiny results tree is asked for: PARAMS, and changes that ask for more."""

from typing import Any

from clsp.config.load import load_params
from clsp.config.schema import Params

SIDE, CLASSES, TRAIN, TEST, CANDIDATES = 4, 3, 12, 9, 2
NEIGHBOURS, THRESHOLD = 3, 0.2
COPIED, COPY = (
    "multi-mini",
    TRAIN + 2,
)  # a dataset, and the row of a test image trained on elsewhere

PARAMS: dict[str, Any] = {
    "profile": "tiny",
    "demonstration": True,
    "device": "auto",
    "tracking": False,
    "shards": 2,
    "datasets": {
        "digits": {"kind": "digits", "size": SIDE, "test_fraction": 0.3, "seed": 0},
        "target-mini": {"kind": "digits", "size": SIDE, "test_fraction": 0.5, "seed": 1},
    },
    "denoisers": {
        "digits": {
            "dataset": "digits",
            "channels": [8],
            "attention": [False],
            "layers_per_block": 1,
            "norm_groups": 4,
            "dropout": 0.0,
            "train_timesteps": 10,
            "beta_start": 0.0001,
            "beta_end": 0.02,
            "epochs": 1,
            "batch_size": 4,
            "learning_rate": 0.001,
            "warmup_steps": 0,
            "gradient_clip": 1.0,
            "ema_decay": 0.9,
            "flip": 0.0,
            "seed": 0,
        }
    },
    "banks": {
        "digits.mix": {
            "generator": "interpolate",
            "denoiser": "digits",
            "dataset": "digits",
            "candidates": CANDIDATES,
            "interpolation_weight": 0.1,
            "steps": 2,
            "eta": 0.1,
            "rounding": "nearest",
            "batch_size": 4,
            "seed": 0,
        }
    },
    "encoders": {"tiny": {"architecture": "resnet18", "stem": "small", "width": 8}},
    "recipes": {
        "short": {
            "family": "tiny",
            "epochs": 2,
            "batch_size": 4,
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "learning_rate_scaling": "none",
            "momentum": 0.9,
            "weight_decay": 0.0001,
            "weight_decay_on": "all",
            "schedule": "epoch",
            "warmup_epochs": 1,
            "warmup_start": 0.001,
            "views": {
                "crop_scale": [0.4, 1.0],
                "crop_ratio": [0.75, 1.25],
                "interpolation": "bilinear",
                "flip": 0.0,
                "jitter": {
                    "probability": 0.8,
                    "brightness": 0.4,
                    "contrast": 0.4,
                    "saturation": 0.4,
                    "hue": 0.1,
                },
                "grayscale": 0.2,
                "solarize": 0.0,
            },
        }
    },
    "methods": {
        "simclr": {
            "label": "SimCLR",
            "recipe": "short",
            "alignment_weight": 1.0,
            "temperature": 0.2,
            "hidden": 8,
            "projection": 4,
            "forward": "joint",
        }
    },
    "positives": {
        "none": {"label": "{method}"},
        "synthetic": {"source": "bank", "label": "CLSP-{method}", "bank": "{dataset}.mix"},
    },
    "runs": {
        "main": {
            "dataset": ["digits"],
            "encoder": ["tiny"],
            "method": ["simclr"],
            "positives": ["none", "synthetic"],
            "seed": [0, 1, 2],
        }
    },
    "comparison": {"recipes": "single", "labels": "refused"},
    "overrides": [],
    "evaluation": {
        "seed": 0,
        "linear": {
            "epochs": 5,
            "batch_size": 4,
            "learning_rate": 1.0,
            "momentum": 0.0,
            "weight_decay": 0.0,
            "milestones": [3],
            "decay": 0.1,
            "flip": False,
            "grid": {"learning_rates": [0.5, 2.0], "validation_fraction": 0.5},
        },
        "knn": {"k": 3, "temperature": 0.07, "best_of": [1, 3]},
        "transfer": {
            "datasets": ["target-mini"],
            "logistic": {
                "low": -2,
                "high": 2,
                "count": 3,
                "max_iterations": 10,
                "tolerance": 0.0001,
                "validation": "ssl_transfer",
                "validation_fraction": 0.2,
                "seed": 0,
            },
        },
    },
    "tables": ["main", "transfer"],
    "figures": ["curves", "candidates", "tsne"],
}

ALONG = {"dataset": ["digits"], "encoder": ["tiny"], "method": ["simclr"], "seed": [0, 1, 2]}
ABLATIONS = ("ablation_alignment", "ablation_candidates", "ablation_interpolation")
ABLATED: dict[str, Any] = {  # changes that add a grid for each ablation, its table and its figure
    "runs": {
        **PARAMS["runs"],
        "alignment": {**ALONG, "positives": ["synthetic"], "alignment_weight": [1.0, 0, 0.5]},
        "candidates": {**ALONG, "positives": ["synthetic"], "candidates": [1, 2]},
        "interpolation": {**ALONG, "positives": ["synthetic"], "interpolation_weight": [0.1, 0.5]},
    },
    "tables": [*PARAMS["tables"], *ABLATIONS],
    "figures": [*PARAMS["figures"], *ABLATIONS],
}
PAIRED: dict[str, Any] = {  # changes that add runs on pairs, which the first run judges
    "positives": {
        **PARAMS["positives"],
        "semantic": {
            "source": "semantic_pairs",
            "label": "SePP-{method}",
            "pairs": "{dataset}.near",
        },
    },
    "pairs": {
        "digits.near": {
            "dataset": "digits",
            "run": "digits.tiny.simclr.none.s0",
            "neighbours": NEIGHBOURS,
            "threshold": THRESHOLD,
        }
    },
    "runs": {**PARAMS["runs"], "semantic": {**ALONG, "positives": ["semantic"]}},
}
JUDGED: dict[str, Any] = {  # changes that ask for every protocol, for the floors and for a dataset
    # that is fetched, stored as files and shows several classes per image
    "datasets": {
        **PARAMS["datasets"],
        COPIED: {
            "kind": "voc2007",
            "size": SIDE,
            "storage": "encoded",
            "source": "download",
            "limit": TRAIN,  # so that the publisher's numbers of images are not expected
        },
    },
    "runs": {"main": {**PARAMS["runs"]["main"], "seed": [0, 1]}},
    "evaluation": {
        **PARAMS["evaluation"],
        "transfer": {
            **PARAMS["evaluation"]["transfer"],
            "datasets": ["target-mini", COPIED],
            "few_shot": {
                "shots": [1, 2],
                "fractions": [0.5],
                "draws": 2,
                "log10_lambda": -2.0,
                "max_iterations": 10,
                "tolerance": 0.0001,
                "seed": 0,
            },
            "fine_tune": {
                "epochs": 1,
                "batch_size": 4,
                "learning_rates": [0.01],
                "weight_decays": [0.0],
                "momentum": 0.9,
                "crop_scale": 0.5,
                "flip": 0.0,
                "validation": "stratified",
                "validation_fraction": 0.2,
                "seed": 0,
            },
            "floors": ["random", "pixels"],
        },
    },
    "tables": [*PARAMS["tables"], "fine_tune"],
    "figures": ["curves", "few_shot"],
}
SUPCON: dict[str, Any] = {
    "label": "SupCon",
    "recipe": "other",
    "alignment_weight": 1.0,
    "form": "mean_outside_log",
    "temperature": 0.2,
    "hidden": 8,
    "projection": 4,
    "forward": "joint",
}
JUDGE = "digits.tiny.supcon.none.s0.labels"
LABELLED: dict[str, Any] = {  # a run with labels, by another recipe, judges the pairs
    "recipes": {**PARAMS["recipes"], "other": {**PARAMS["recipes"]["short"], "family": "another"}},
    "methods": {**PARAMS["methods"], "supcon": SUPCON},
    "positives": PAIRED["positives"],
    "pairs": {"digits.near": {**PAIRED["pairs"]["digits.near"], "run": JUDGE}},
    "runs": {
        "supervision": {**ALONG, "method": ["supcon"], "positives": ["none"]},
        **PAIRED["runs"],
    },
    "comparison": {"recipes": "mixed", "labels": "marked"},
}
TAUGHT: dict[str, Any] = {  # changes: a method with a moving average and a queue
    "methods": {
        "moco": {
            "label": "MoCo",
            "recipe": "short",
            "alignment_weight": 1.0,
            "temperature": 0.2,
            "hidden": 8,
            "projection": 4,
            "queue": 16,
            "momentum_start": 0.9,
            "momentum_end": 0.99,
            "forward": "separate",
        }
    },
    "runs": {"main": {**PARAMS["runs"]["main"], "method": ["moco"], "seed": [0, 1]}},
}


def tiny_params(**changes: Any) -> Params:
    """The parameters of the tree, with top-level entries replaced."""
    return load_params({**PARAMS, **changes}, "tiny")
