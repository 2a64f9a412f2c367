"""A made-up trainer whose finished trials get more prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from conf import load as conf
from conf.schema import Run
from lightning_modules.evaluation.manifest import end_drawn
from lightning_modules.training.progress import Clock
from lightning_modules.training.remeasure import PENDING


def count_of(config: Run) -> int | None:
    return conf.with_eval_overrides(config).evaluation.prompts


def measure(config: Run) -> dict[str, float]:
    return {"eval/success": (count_of(config) or 512) / 1000, "eval/fid": 30.0}


class Extending:
    """As `training.run.run`: a folder with a result of fewer prompts gets a pending one. Success is
    a thousandth of their number."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, int, int | None, bool]] = []
        self.stop_after = ""
        self.stop_from = 0  # So many trials begin before

    def train(self, ordinary: Any) -> Any:
        draw = ordinary.draw

        def run(config: Run, folder: Path, tracking: Any, progress: Any) -> dict[str, Any]:
            count, path = count_of(config), folder / "result.json"
            more = path.is_file() and json.loads(path.read_text())["prompts"] < (count or 512)
            self.ran.append((folder.name, config.seed, count, more))
            if self.stop_after == "begin" and len(self.ran) > self.stop_from:
                raise KeyboardInterrupt
            if more and config.evaluation.draw_only:
                return end_drawn(draw(config, folder), {}, Clock(), folder, None)
            metrics = measure(config)
            facts = {"prompts": count or 512, **({"every_prompt": True} if count is None else {})}
            if not more:
                result = ordinary(config, folder, tracking, progress)
                if "drawn" in result:
                    return dict(result)
                path.write_text(json.dumps(result | facts))
                return result | facts
            result = json.loads(path.read_text()) | facts | {"metrics": metrics}
            result["added_seconds"] = {"sample": 0.25}
            (folder / PENDING).mkdir()
            (folder / PENDING / "result.json").write_text(json.dumps(result))
            columns = ("split", "id", "prompt", "noise", "image")
            table = pd.DataFrame({name: ["0"] for name in columns})
            table.to_parquet(folder / PENDING / "scores.parquet")
            if self.stop_after == "pending":
                raise KeyboardInterrupt
            return result

        return run
