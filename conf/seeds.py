"""The sources of chance in a run, each with a seed that can be set apart from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from conf.schema import Run

__all__ = ["SEEDS", "TRAINING_SEEDS", "Seeds", "list_given", "resolve_seeds", "training_seeds"]

# What an adapter depends on, and all of them
TRAINING_SEEDS = ("init_seed", "data_seed", "timestep_seed")
SEEDS = (*TRAINING_SEEDS, "sampling_seed", "prompt_seed")


class Seeds(NamedTuple):
    """The seed of each source; nothing random in a run follows from two of them.

    ``init``: initial weights of what is trained. ``data``: what training shows, and in which order.
    ``timestep``: timesteps and noise in training. ``sampling``: noise of the evaluation.
    ``prompt``: which prompts are drawn from a split, None: its first.
    """

    init: int
    data: int
    timestep: int
    sampling: int
    prompt: int | None = None

    @classmethod
    def same(cls, seed: int) -> Seeds:
        """One seed for all, on the first prompts."""
        return cls(seed, seed, seed, seed)


def resolve_seeds(config: Run) -> Seeds:
    """The seeds of a run: ``config.seed`` where none is given. The prompts alone do not follow it:
    those of all seeds are the same, so that prompts and seeds can be told apart."""

    def follow(given: int | None) -> int:
        return config.seed if given is None else given

    return Seeds(
        follow(config.init_seed),
        follow(config.data_seed),
        follow(config.timestep_seed),
        follow(config.sampling_seed),
        config.prompt_seed,
    )


def training_seeds(config: Run) -> int | dict[str, int]:
    """What stands for the seeds of a training in keys: one number where they are the same."""
    seeds = resolve_seeds(config)
    if seeds.init == seeds.data == seeds.timestep:
        return seeds.init
    return dict(zip(TRAINING_SEEDS, (seeds.init, seeds.data, seeds.timestep), strict=True))


def list_given(config: Run) -> dict[str, int]:
    """Setting -> seed of those that are set apart."""
    return {key: seed for key in SEEDS if (seed := getattr(config, key)) is not None}
