"""Answers of BLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_modules.metrics.answerers import Ask, list_questions
from lightning_modules.metrics.registry import check_images
from lightning_modules.metrics.vision_language import Loaded, tokenize

__all__ = ["BLIP", "BlipAnswerer"]

BLIP = "BlipForQuestionAnswering"


class BlipAnswerer(Loaded):
    """BLIP fine-tuned for answering, such as Salesforce/blip-vqa-base, with which T2I-CompBench
    asks for attributes ("a green bench?").

    Runs the parts of the model one by one: its own ``generate`` gives no probabilities. The
    question opens with [CLS], as in transformers; LAVIS puts [ENC] there. Questions of one length
    go through it together: its decoder also looks at what is padded, whatever the mask says.
    """

    architecture = BLIP
    template = "{}"

    def __init__(self, name: str, *args: Any, identity: str = "", **options: Any) -> None:
        """Raises as `Loaded`."""
        import transformers

        super().__init__(name, *args, **options)
        self.facts |= {"template": self.template, "answer": "its words"}
        self.identity = f"{identity or self.label} (transformers {transformers.__version__})"

    @torch.no_grad()
    def probabilities(self, images: Tensor, asked: Sequence[Sequence[Ask]]) -> list[list[float]]:
        """As `Answerer`."""
        check_images(images)
        result = [[0.0] * len(pairs) for pairs in asked]
        flat = [(p.image, p.question, i, a) for p in list_questions(asked) for i, a in p.answers]
        if not flat:
            return result
        with torch.autocast(self.device.type, enabled=False):
            states = [
                self.model.vision_model(pixel_values=pixels).last_hidden_state
                for pixels in self._vision(images)
            ]
            seen = torch.cat(states)
            read = [
                tokenize(self.tokenizer, [q], self.context).ids[0].tolist() for _, q, *_ in flat
            ]
            by_length: dict[int, list[int]] = {}
            for n, ids in enumerate(read):
                by_length.setdefault(len(ids), []).append(n)
            for rows in by_length.values():
                for start in range(0, len(rows), self.batch):
                    some = rows[start : start + self.batch]
                    questions = torch.tensor([read[n] for n in some], device=self.device)
                    answers = [flat[n][3] for n in some]
                    found = self._answer(seen[[flat[n][0] for n in some]], questions, answers)
                    for n, value in zip(some, found, strict=True):
                        result[flat[n][0]][flat[n][2]] = value
        return result

    def _answer(self, seen: Tensor, questions: Tensor, answers: Sequence[str]) -> list[float]:
        """How likely each answer is: states of images [N, P, d], token ids of questions [N, T]."""
        read = self.model.text_encoder(
            input_ids=questions,
            attention_mask=torch.ones_like(questions),
            encoder_hidden_states=seen,
        ).last_hidden_state
        rows = [
            self.tokenizer(answer.lower(), add_special_tokens=False)["input_ids"]
            for answer in answers
        ]
        ids = torch.zeros(len(rows), max(map(len, rows)) + 1, dtype=torch.long)
        ids[:, 0] = self.model.decoder_start_token_id
        for n, row in enumerate(rows):
            ids[n, 1 : len(row) + 1] = torch.tensor(row)
        ids = ids.to(self.device)
        logits = self.model.text_decoder(input_ids=ids, encoder_hidden_states=read).logits
        scores = logits[:, :-1].float().log_softmax(-1)
        chosen = scores.gather(2, ids[:, 1:, None])[..., 0].cpu()
        return [float(chosen[n, : len(row)].sum().exp()) for n, row in enumerate(rows)]
