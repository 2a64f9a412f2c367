"""Former home of losses that now stand beside those they resemble."""

from losses.denoising import distillation_loss, prior_loss
from losses.gates import gate_density, gate_mask_loss

__all__ = ["distillation_loss", "gate_density", "gate_mask_loss", "prior_loss"]
