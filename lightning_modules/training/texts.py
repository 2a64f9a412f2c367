"""Texts that a text encoder would cut off where a method needs them whole, told from a backbone's
tokenizers: its weights are not read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from conf.schema import Run
from lightning_modules.methods.registry import method_class

if TYPE_CHECKING:
    from lightning_modules.backbone.text import TextEncoders

__all__ = ["check_texts", "read_text_encoders"]


def check_texts(config: Run, dataset: Any) -> None:
    """Refuses the training prompts of a method's concepts that the backbone of ``config`` cannot
    hold whole. Nothing is refused where its tokenizers cannot be read without a download. Raises
    ValueError."""
    if not config.data.concepts or (text := read_text_encoders(config)) is None:
        return
    method_class(config.method.name).check_texts(text, dataset)


def read_text_encoders(config: Run) -> TextEncoders | None:
    """The tokenizers of a backbone that lies here; they encode nothing. None where some cannot be
    read."""
    from transformers import AutoTokenizer

    from lightning_modules.backbone.configs import read_configs
    from lightning_modules.backbone.quiet import quiet_loading
    from lightning_modules.backbone.text import TextEncoders
    from lightning_modules.backbone.weights import shipped_folder

    path, revision = config.backbone.path, config.backbone.revision
    folder = str(shipped_folder(path) or path)
    try:
        with quiet_loading():
            configs = read_configs(folder, revision, download=False)
            if configs is None:
                return None
            for end in configs.family.text_parts:
                name = f"tokenizer{end}"
                tokenizer = AutoTokenizer.from_pretrained(
                    folder, subfolder=name, revision=revision, local_files_only=True
                )
                setattr(configs.pipeline, name, tokenizer)
    except (ImportError, OSError, ValueError):  # Loading says what is wrong
        return None
    # They watch an encoder's states, and there is none
    setattr(configs.family, "token_types", lambda: None)  # noqa: B010
    return TextEncoders(configs.family)
