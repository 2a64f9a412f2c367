"""What an adapter is kept under: everything that its training depends on, the code included."""

from __future__ import annotations

from typing import Any

from conf import load as conf
from conf.schema import Run

__all__ = ["training_facts", "training_key"]


def training_facts(config: Run) -> dict[str, Any]:
    """The settings that training depends on: all but those of evaluation, later overrides, output,
    logging and loading. Of batch and devices their product counts."""
    facts = conf.to_dict(conf.as_run(config))
    for group, key in (
        ("data", "eval_images"),
        ("data", "workers"),
        ("trainer", "log_every"),
        ("trainer", "checkpoint_every"),
    ):
        del facts[group][key]
    facts["trainer"]["batch"] *= facts["trainer"].pop("devices")
    return {
        key: value
        for key, value in facts.items()
        if key not in ("evaluation", "evaluate_with", "output")
    }


def training_key(config: Run) -> str:
    """Digest of `training_facts`, the backbone's weights, where they lie on disk, the images of a
    scene of one's own, and the code."""
    from datamodules.build import data_digest
    from lightning_modules.backbone.backbone import weights_digest
    from lightning_modules.training.code_version import code_version

    facts = training_facts(config)
    # An adapter to start from is what its weights are, wherever they lie.
    start = weights_digest(config.method.init) if config.method.init else None
    facts["method"].pop("init")
    # So is a scene of one's own, which may be painted over in its place.
    facts["data"]["root"] = data_digest(config) or config.data.root
    return conf.digest(
        {
            **facts,
            "weights": weights_digest(config.backbone.path),
            "start": start,
            "code": code_version(),
        }
    )
