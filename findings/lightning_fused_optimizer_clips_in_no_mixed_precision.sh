#!/usr/bin/env bash
# lightning 2.6.6: precision="bf16-mixed" refuses to clip gradients of a fused optimizer, though nothing
# is scaled.
#
# The reason given is that the optimizer "performs unscaling of gradients internally": true of 16-mixed
# on a GPU, where a GradScaler is at work. With bf16-mixed there is none, and on a CPU 16-mixed becomes
# bf16-mixed. Clipping by norm and by value are refused alike, in the first step of fit. The same AdamW
# with fused=False, or fused with 32-true or bf16-true, is clipped.
#
# Expected beforehand: bf16-mixed clips a fused optimizer as 32-true does, only 16-mixed refuses.
# Seen: RuntimeError with bf16-mixed and 16-mixed, no error with 32-true and bf16-true.
# Cure: fused=False where gradients are clipped under mixed precision, or clip in
# on_before_optimizer_step by torch.nn.utils.clip_grad_norm_.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q lightning==2.6.6 torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import logging
import warnings

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Line(lightning.LightningModule):
    def __init__(self, fused):
        super().__init__()
        self.line, self.fused = torch.nn.Linear(2, 1), fused

    def training_step(self, batch, index):
        return self.line(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), fused=self.fused)


def train(precision, algorithm, fused):
    """What fit ends with; and whether a scaler is at work."""
    trainer = lightning.Trainer(
        max_steps=2,
        accelerator="cpu",
        precision=precision,
        gradient_clip_val=1.0,
        gradient_clip_algorithm=algorithm,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    try:
        trainer.fit(Line(fused), DataLoader(TensorDataset(torch.ones(8, 2)), 4))
        end = "clipped"
    except RuntimeError as error:
        assert "does not allow for gradient clipping" in str(error), error
        end = "refused"
    print(f"{precision:12} {algorithm:6} fused={fused!s:6} {end}")
    return end, getattr(trainer.precision_plugin, "scaler", None)


for algorithm in ("norm", "value"):
    for precision in ("32-true", "bf16-true", "bf16-mixed", "16-mixed"):
        assert train(precision, algorithm, False)[0] == "clipped"
        end, scaler = train(precision, algorithm, True)
        assert end == ("refused" if precision.endswith("mixed") else "clipped")
        assert scaler is None
print("as stated")
PYTHON
