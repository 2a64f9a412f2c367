"""How far a plan's prompts are those of a published benchmark: a score bears its name only where
all its tasks are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from conf.describe import show_count

if TYPE_CHECKING:
    from datamodules.formats.benchmarks import Benchmark
    from lightning_modules.evaluation.plan import Prompt


def describe_plan(prompts: Sequence[Prompt]) -> list[str]:
    """What is drawn of benchmarks, a sentence for each set of prompts, beside what was published;
    nothing of other prompts."""
    lines = []
    for split in dict.fromkeys(prompt.split for prompt in prompts):
        of_split = [prompt for prompt in prompts if prompt.split == split]
        if about := describe_benchmark(of_split):
            lines.append(f"{split}: {about}")
    return lines


def describe_benchmark(prompts: Sequence[Prompt]) -> str:
    """How a part of a plan covers its benchmark: "GenEval, 56 of 553 prompts (single_object 8, …),
    1 image each (published: 4)"; empty where it is of none, or of several."""
    benchmarks = {prompt.benchmark for prompt in prompts}
    benchmark = benchmarks.pop() if len(benchmarks) == 1 else None
    if benchmark is None:
        return ""
    images = Counter((prompt.split, prompt.index) for prompt in prompts)
    tasks = count_tasks(prompts)
    why_not, count = benchmark.why_not(tasks), len(images)
    of_all = "all" if count == benchmark.prompts else f"{count} of"
    each = max(images.values())
    parts = [
        f"{benchmark.name}, {of_all} {benchmark.prompts} prompts "
        f"({', '.join(f'{task} {tasks[task]}' for task in tasks)})",
        f"{each} image{'s' * (each > 1)} each"
        + ("" if each == benchmark.images else f" (published: {benchmark.images})"),
    ]
    if why_not:
        parts.append(f"no score is called {benchmark.name}'s: {why_not}")
    return ", ".join(parts)


def describe_sources(prompts: Sequence[Prompt]) -> str:
    """`describe_benchmark` of each benchmark that the prompts are of, and how many are of none."""
    by_benchmark: dict[Benchmark | None, list[Prompt]] = {}
    for prompt in prompts:
        by_benchmark.setdefault(prompt.benchmark, []).append(prompt)
    others = len({(prompt.split, prompt.index) for prompt in by_benchmark.pop(None, [])})
    parts = [describe_benchmark(of_one) for of_one in by_benchmark.values()]
    return "; ".join(
        [*parts, f"{show_count(others, 'prompt')} of no benchmark"] if others else parts
    )


def count_tasks(prompts: Sequence[Prompt]) -> Counter[str]:
    """Task -> number of its prompts, each once however many images it has."""
    once = {(prompt.split, prompt.index): prompt for prompt in prompts}.values()
    return Counter(prompt.stratum[-1] if prompt.stratum else "" for prompt in once)
