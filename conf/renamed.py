"""Settings that had another name once: an old one is refused, and the error says the new one."""

from __future__ import annotations

from typing import Any

__all__ = ["GONE", "KEYS", "VALUES", "current"]

# Old key -> new key
KEYS = {
    "method.gate.surrogate": "method.gate.gradient",
    "method.gate.point": "method.gate.apply_at",
    "method.gate.empty": "method.gate.if_all_closed",
    "method.gate.padding": "method.gate.padding_gate",
    "method.gate.signal": "method.gate.supervision",
    "method.gate.signal_weight": "method.gate.supervision_weight",
    "method.gate.signal_anneal": "method.gate.supervision_anneal",
    "method.gate.signal_timesteps": "trainer.timesteps",
    "method.gate.supervision_timesteps": "trainer.timesteps",
    "method.gate.signal_density": "method.gate.supervision_density",
    "method.gate.signal_target": "method.gate.supervision_target",
    "method.weights.part": "method.weights.trainable",
    "method.masks.reach": "method.masks.mask_scope",
    "method.masks.bind": "method.masks.text_binding",
    "method.masks.strength": "method.masks.token_scale",
    "method.masks.keep_weight": "method.masks.distillation_weight",
    "method.separate.drift_weight": "method.separate.distillation_weight",
    "method.masks.timesteps": "trainer.timesteps",
    "method.separate.timesteps": "trainer.timesteps",
    "method.finetune.timesteps": "trainer.timesteps",
    "evaluation.colorist": "evaluation.color_classifier",
}
# Old key -> what does its work now
GONE = {
    "storage": "the study of a sweep lies below output, and one process runs it",
}
# (New key, old value) -> new value; a group's file counts as the value of the group
VALUES = {
    ("method", "baseline"): "untouched",
    ("method.name", "baseline"): "untouched",
    ("method.gate.gradient", "secant"): "finite_difference",
    ("method.gate.gradient", "renormalised"): "exact",
    ("trainer.timesteps", "all"): "uniform",
    ("trainer.timesteps", "noisier"): "high_noise",
}


def current(key: str, value: Any) -> tuple[str, Any]:
    """The setting that ``key=value`` is called now; the same two where it kept its name."""
    key = KEYS.get(key, key)
    return key, VALUES.get((key, value), value) if isinstance(value, str) else value
