"""How many prompts an evaluation is over: a fact of each run, which can get more later."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from conf import load as conf
from conf.schema import Run

__all__ = ["PROMPTS", "Extent", "with_prompts"]

PROMPTS = "evaluation.prompts"


class Extent(NamedTuple):
    """How many ``prompts`` of each split a run has, None where that is not known, and whether they
    are ``every`` one that there is."""

    prompts: int | None
    every: bool = False

    def lacks(self, asked: int | None) -> bool:
        """Whether ``asked`` (None: every prompt) are more."""
        if asked is None:
            return not self.every and self.prompts is not None
        return self.prompts is not None and self.prompts < asked

    @property
    def asked(self) -> int | None:
        """What ``evaluation.prompts`` says where these are asked for."""
        return None if self.every else self.prompts

    @property
    def facts(self) -> dict[str, Any]:
        """What a result says of them, and the queue."""
        known = {} if self.prompts is None else {"prompts": self.prompts}
        return known | ({"every_prompt": True} if self.every else {})

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Extent:
        """From a result, or what the queue keeps of it."""
        count = facts.get("prompts")
        if count is None:  # A result of an earlier version
            counts = facts.get("ran", {}).get("sampling", {}).get("prompts", {})
            count = max(counts.values(), default=None)
        return cls(count, facts.get("every_prompt", False))


def with_prompts(config: Run, prompts: int | None) -> Run:
    """The settings of a run that is evaluated on so many prompts of each split; None: on all."""
    if conf.with_eval_overrides(config).evaluation.prompts == prompts:
        return config
    late = {key: value for key, value in config.evaluate_with.items() if key != PROMPTS}
    evaluation = dataclasses.replace(config.evaluation, prompts=prompts)
    return dataclasses.replace(config, evaluation=evaluation, evaluate_with=late)
