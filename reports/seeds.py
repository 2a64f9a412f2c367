"""What a seed of a sweep fixes, where single sources of chance have seeds of their own."""

from __future__ import annotations

from reports import prose
from reports.results import SweepResults

__all__ = ["describe_noise", "explain_seeds"]

# Setting -> what is the same in every cell of a seed, unless cells differ in it
ALIKE = {
    "data_seed": "training order",
    "timestep_seed": "noise of training",
    "sampling_seed": "noise of images",
    "prompt_seed": "prompts",
}
# Setting -> what does not vary from seed to seed where it is given
SOURCES = {"init_seed": "initial weights"} | {key: ALIKE[key] for key in [*ALIKE][:-1]}


def explain_seeds(results: SweepResults) -> str:
    """What is compared seed by seed, and of which sources the intervals do not speak."""
    varied = {factor.key for factor in results.factors}
    alike = [name for key, name in ALIKE.items() if key not in varied]
    text = (
        f"Seeds are the unit of replication: a seed fixes {prose.join(alike)} alike in every cell, "
        "so that cells are compared seed by seed."
    )
    fixed = [
        f"{key}={results.config[key]} ({name})"
        for key, name in SOURCES.items()
        if key not in varied and results.config.get(key) is not None
    ]
    if not fixed:
        return text
    return f"{text} All seeds had {prose.join(fixed)}: intervals do not speak of another."


def describe_noise(results: SweepResults) -> str:
    """Whether each seed gave images of the same name the same noise in all cells, in words; noise
    that was not recorded is taken to be the same."""
    for seed in results.seeds:
        known: dict[str, int] = {}
        for cell in results.cells:
            samples = cell.trials[seed].samples if seed in cell.trials else None
            for name, noise in zip(samples.ids, samples.noise, strict=True) if samples else ():
                if noise is not None and known.setdefault(name, noise) != noise:
                    return "noise of each cell's own"
    return "same noise"
