"""Placeholder tokens against the stock pipeline's textual inversion: what they change, what they
train, and what they leave alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.marks import slow
from safetensors.torch import load_file
from torch import Tensor

from lightning_modules.attention.token_types import BOS, EOS, PADDING, WORD
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.networks.placeholder_tokens import Subjects, fix_pooling
from lightning_modules.networks.trained_weights import TrainedWeights

TOKENS = ["<asset0>", "<asset1>", "<asset2>"]
PROMPTS = [
    "a photo of <asset0> and <asset1>",
    "<asset0>",
    "a <ASSET1>, left of a ring",
    "a white ring",
    "",
]


@pytest.fixture(scope="session")
def stock_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from helpers.architectures import build_pipeline

    return build_pipeline("sdxl", tmp_path_factory.mktemp("sdxl"), scale="tiny")


@pytest.fixture(scope="session")
def stock_sd21(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from helpers.architectures import build_pipeline

    return build_pipeline("sd21", tmp_path_factory.mktemp("sd21"), scale="tiny")


@pytest.fixture
def fresh(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """A copy of the stock pipeline of that name."""
    names = {
        "sdxl": "stock_sdxl",
        "sd21": "stock_sd21",
        "sd1": "sd1_pipeline",
        "embedded": "tiny_pipeline",
    }
    return lambda name: deepcopy(request.getfixturevalue(names[name]))


@pytest.fixture
def backbone(fresh: Callable[[str], Any], request: pytest.FixtureRequest) -> Backbone:
    return Backbone(fresh(request.param), request.param)


every = pytest.mark.parametrize("backbone", ["sdxl", *slow("sd1", "sd21")], indirect=True)
both = pytest.mark.parametrize("backbone", ["sdxl", *slow("sd1")], indirect=True)
sdxl = pytest.mark.parametrize("backbone", ["sdxl"], indirect=True)


def trained(backbone: Backbone, tokens: list[str] | None = None) -> Subjects:
    """Subjects whose rows are far from any row of the table, as large as they."""
    tokens = tokens or TOKENS
    subjects = Subjects(backbone, tokens, [None] * len(tokens))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for rows, encoder in zip(subjects.rows.values(), backbone.text.encoders, strict=True):
            rows.normal_(
                0, float(encoder.get_input_embeddings().weight.float().std()), generator=generator
            )
    return subjects


def stock_encoding(pipeline: Any, prompts: list[str]) -> tuple[Tensor, Tensor | None]:
    """Hidden states and pooled embedding as the pipeline's own `encode_prompt` gives them."""
    if hasattr(pipeline, "text_encoder_2"):
        hidden, _, pooled, _ = pipeline.encode_prompt(prompts)
        return hidden, pooled
    return pipeline.encode_prompt(prompts, "cpu", 1, False)[0], None


def assert_same(backbone: Backbone, pipeline: Any, prompts: list[str] = PROMPTS) -> None:
    mine, (hidden, pooled) = backbone.text.encode(prompts), stock_encoding(pipeline, prompts)
    torch.testing.assert_close(hidden, mine.hidden, atol=1e-6, rtol=1e-6)
    if len(backbone.text.encoders) == 2:
        torch.testing.assert_close(pooled, mine.pooled, atol=1e-6, rtol=1e-6)


# --- where rows start -----------------------------------------------------------------------------


@both
def test_a_row_starts_as_the_first_sub_token_of_its_word(backbone: Backbone):
    subjects = Subjects(backbone, TOKENS, ["ring", "zebra", "red circle"])
    assert list(subjects.state_dict()) == [
        f"rows.{name}" for name in ("text_encoder", "text_encoder_2")[: len(backbone.text.encoders)]
    ]
    for rows, tokenizer, encoder in zip(
        subjects.rows.values(), backbone.text.tokenizers, backbone.text.encoders, strict=True
    ):
        table = encoder.get_input_embeddings().weight
        assert (
            rows.shape == (3, table.shape[1]) and rows.dtype == torch.float32 and rows.requires_grad
        )
        words = ["ring</w>", "z", "red</w>"]
        assert torch.equal(rows.data, table[tokenizer.convert_tokens_to_ids(words)])


@both
@pytest.mark.parametrize(("count", "ids"), [(1, [-2]), (2, [-4, -3])])
def test_without_a_word_rows_start_at_the_tables_end_as_in_the_released_code(
    backbone: Backbone, count: int, ids: list[int]
):
    subjects = Subjects(backbone, TOKENS[:count], [None] * count, "table_end")
    for name, encoder in zip(subjects.rows, backbone.text.encoders, strict=True):
        assert torch.equal(subjects.rows[name].data, encoder.get_input_embeddings().weight[ids])
    named = Subjects(backbone, TOKENS[:2], ["ring", None], "table_end")
    for name, encoder in zip(named.rows, backbone.text.encoders, strict=True):
        assert torch.equal(named.rows[name][1], encoder.get_input_embeddings().weight[-3])


@sdxl
def test_without_a_word_rows_start_near_the_mean_apart_from_one_another_and_as_the_seed_says(
    backbone: Backbone,
):
    torch.manual_seed(5)
    first = Subjects(backbone, TOKENS[:2], [None, None])
    torch.manual_seed(5)
    again, other = (
        Subjects(backbone, TOKENS[:2], [None, None]),
        Subjects(backbone, TOKENS[:2], [None, None]),
    )
    for name, encoder in zip(first.rows, backbone.text.encoders, strict=True):
        table, rows = encoder.get_input_embeddings().weight, first.rows[name].data
        away = (rows - table.mean(0)) / table.std(0)
        assert 0.05 < away.std() < 0.15 and away.abs().max() < 0.6
        assert not torch.equal(rows[0], rows[1])
        assert torch.equal(rows, again.rows[name]) and not torch.equal(rows, other.rows[name])


WRONG: list[tuple[list[str], list[str | None], str]] = [
    ([], [], "no placeholder"),
    (["<a>", "<b>"], [None], "2 placeholders but 1 init word"),
    ([""], [None], "placeholder '' is empty or has a space"),
    (["<my cat>"], [None], "placeholder '<my cat>' is empty or has a space"),
    (["<a>", "<a>"], [None] * 2, "'<a>' and '<a>' are the same"),
    (["<asset>", "<ASSET>"], [None] * 2, "'<asset>' and '<ASSET>' are the same"),
    (["ring"], [None], "'ring' is already in the vocabulary"),
    (["RING"], [None], "'RING' is already in the vocabulary"),
    (["<|EndOfText|>"], [None], "is already in the vocabulary"),
    (["x<|endoftext|>"], [None], "is not read as one token"),
    (["toy_1", "toy"], [None] * 2, "'toy_1' is the second vector of 'toy'"),
    (["<a>", "[A]"], [None] * 2, "would both be saved as a.safetensors"),
    (["<a>", "<a_2>"], [None] * 2, "would both be saved as a_2.safetensors"),
    (["<a>"], [" "], "init word ' ' has no token"),
]


@pytest.mark.parametrize("backbone", ["sd1"], indirect=True)
def test_what_cannot_be_a_placeholder_gets_one_clear_line(backbone: Backbone):
    for tokens, init, expected in WRONG:
        with pytest.raises(ValueError, match=re.escape(expected)) as error:
            Subjects(backbone, tokens, init)
        assert "\n" not in str(error.value)


# --- install and remove ---------------------------------------------------------------------------


def parts(backbone: Backbone) -> list[Any]:
    """Everything that installing might replace, by identity, and the configs by value."""
    pipeline = backbone.pipeline
    found: list[Any] = [
        id(backbone.text.tokenizers),
        *map(id, backbone.text.tokenizers),
        dict(pipeline.config),
    ]
    found += [
        id(getattr(pipeline, name, None))
        for name in ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")
    ]
    for tokenizer, encoder in zip(backbone.text.tokenizers, backbone.text.encoders, strict=True):
        inner = getattr(encoder, "text_model", encoder)
        found += [
            len(tokenizer),
            tokenizer.get_added_vocab(),
            encoder.config.to_dict(),
            inner.config.to_dict(),
            inner.eos_token_id,
        ]
        found += [[(name, id(module)) for name, module in encoder.named_modules()]]
        found += [[(name, id(p), p.requires_grad) for name, p in encoder.named_parameters()]]
    return found


@every
def test_after_remove_the_backbone_is_the_stock_one(backbone: Backbone):
    plain = PROMPTS[3:]
    before, weights = (
        parts(backbone),
        [deepcopy(encoder.state_dict()) for encoder in backbone.text.encoders],
    )
    stock, pieces = backbone.text.encode(plain), backbone.text.tokenizers[0].tokenize(PROMPTS[0])
    subjects = trained(backbone)
    assert not subjects.is_installed and parts(backbone) == before

    subjects.install()
    tokenizers = list(backbone.text.tokenizers)
    subjects.install()
    assert (
        subjects.is_installed
        and parts(backbone) != before
        and [a is b for a, b in zip(tokenizers, backbone.text.tokenizers, strict=True)]
    )
    assert backbone.pipeline.tokenizer is backbone.text.tokenizers[0]
    assert backbone.text.tokenizers[0].tokenize("a <ASSET1>")[-1] == "<asset1>"
    here = backbone.text.encode(plain)
    assert torch.equal(here.hidden, stock.hidden) and (
        stock.pooled is None or torch.equal(here.pooled, stock.pooled)
    )
    for encoder, state in zip(backbone.text.encoders, weights, strict=True):
        assert list(encoder.state_dict()) == list(state), (
            "no parameter of the encoder has another name, and none is added"
        )

    subjects.remove()
    subjects.remove()
    assert not subjects.is_installed and parts(backbone) == before
    assert backbone.text.tokenizers[0].tokenize(PROMPTS[0]) == pieces
    for encoder, state in zip(backbone.text.encoders, weights, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())


@sdxl
def test_a_weight_that_is_replaced_while_installed_is_replaced_in_the_stock_table(
    backbone: Backbone,
):
    subjects, encoder = trained(backbone), backbone.text.encoders[0]
    stock = encoder.get_input_embeddings()
    subjects.install()
    other = torch.nn.Parameter(torch.zeros_like(stock.weight), requires_grad=False)
    encoder.get_input_embeddings().weight = other
    assert stock.weight is other
    subjects.remove()
    assert encoder.get_input_embeddings() is stock and stock.weight is other


@sdxl
def test_one_backbone_holds_one_set_of_subjects(backbone: Backbone):
    one, two = trained(backbone), trained(backbone, ["<other>"])
    one.install()
    with pytest.raises(ValueError, match="other subjects are installed"):
        two.install()
    with pytest.raises(ValueError, match="other subjects are installed"):
        trained(backbone, ["<third>"])
    one.remove()
    two.install()
    assert two.is_installed and not one.is_installed
    two.remove()
    backbone.text.tokenizers[0].add_tokens(["<late>"])
    with pytest.raises(ValueError, match=r"\[605, 604\] tokens: expected \[604, 604\]"):
        one.install()


# --- what a text says -----------------------------------------------------------------------------


@every
def test_positions_and_kinds_of_placeholders(backbone: Backbone):
    trained(backbone).install()
    assert backbone.text.token_indices(PROMPTS[0], ["<asset0>"]) == [[4]]
    assert backbone.text.token_indices(PROMPTS[0], ["<asset1>", "a photo", (11, 19)]) == [
        [6],
        [1, 2],
        [4],
    ]
    text = backbone.text.encode(PROMPTS[:2])
    expected = torch.full(text.hidden.shape[:2], PADDING, dtype=torch.uint8)
    for row, end in ((0, 7), (1, 2)):
        expected[row, :end], expected[row, 0], expected[row, end] = WORD, BOS, EOS
    assert torch.equal(backbone.text.token_types(text.hidden), expected)
    assert torch.equal(
        backbone.text.token_types(stock_encoding(backbone.pipeline, PROMPTS[:2])[0]), expected
    )


@sdxl
def test_the_pooled_embedding_is_taken_at_the_end_of_the_text(backbone: Backbone):
    encoder, tokenizer = backbone.text.encoders[1], backbone.text.tokenizers[1]
    assert encoder.config.eos_token_id == 2, "as the published configs say"
    trained(backbone).install()
    tokenizer = backbone.text.tokenizers[1]
    ids = backbone.text.tokenize(PROMPTS, 1).input_ids
    output = encoder(ids)
    end = (ids == tokenizer.eos_token_id).int().argmax(1)
    torch.testing.assert_close(
        output.text_embeds,
        encoder.text_projection(output.last_hidden_state[torch.arange(len(ids)), end]),
    )
    encoder.text_model.eos_token_id = 2
    assert not torch.allclose(encoder(ids).text_embeds[:3], output.text_embeds[:3], atol=1e-3), (
        "at a placeholder, were it not set"
    )


# --- training --------------------------------------------------------------------------------


def backward(backbone: Backbone, prompts: list[str]) -> None:
    text = backbone.text.encode(prompts)
    loss = text.hidden.float().square().sum() + (
        0 if text.pooled is None else text.pooled.float().square().sum()
    )
    loss.backward()


@every
def test_gradient_reaches_the_rows_of_the_prompt_and_nothing_else(backbone: Backbone):
    subjects = trained(backbone)
    subjects.install()
    backward(backbone, PROMPTS[2:4])
    for rows in subjects.rows.values():
        assert rows.grad is not None and torch.isfinite(rows.grad).all()
        assert rows.grad[1].abs().sum() > 0 and not rows.grad[[0, 2]].any()
        rows.grad = None
    backward(backbone, PROMPTS[3:])
    assert all(rows.grad is not None and not rows.grad.any() for rows in subjects.rows.values()), (
        "zeros: no rank waits for a gradient"
    )
    backward(backbone, [" ".join(TOKENS)])
    assert all(rows.grad.abs().sum(1).all() for rows in subjects.rows.values())
    assert all(
        p.grad is None and not p.requires_grad
        for encoder in backbone.text.encoders
        for p in encoder.parameters()
    )


@sdxl
def test_gradient_is_the_one_of_the_looked_up_row(backbone: Backbone):
    subjects = trained(backbone)
    subjects.install()
    twice = ["<asset0> and <asset0>"]
    backward(backbone, twice)
    rows = subjects.rows["text_encoder_2"]
    change = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(1))
    found = []
    for step in (1e-2, -1e-2):
        with torch.no_grad():
            rows[0] += step * change
            text = backbone.text.encode(twice)
            assert text.pooled is not None
            found.append(
                float(text.hidden.double().square().sum() + text.pooled.double().square().sum())
            )
            rows[0] -= step * change
    assert rows.grad is not None
    assert (found[0] - found[1]) / 2e-2 == pytest.approx(float(rows.grad[0] @ change), rel=2e-2)


@both
@pytest.mark.parametrize("how", ["autocast", torch.bfloat16])
def test_half_precision_leaves_the_rows_in_float32(backbone: Backbone, how: Any):
    subjects = trained(backbone)
    if how != "autocast":
        for encoder in backbone.text.encoders:
            encoder.to(how)
    subjects.install()
    whole = deepcopy(backbone.text.encode(PROMPTS[:1]).hidden.detach())
    assert whole.dtype == (torch.float32 if how == "autocast" else how)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        backward(backbone, PROMPTS[:1])
    for rows in subjects.rows.values():
        assert rows.dtype == rows.grad.dtype == torch.float32 and torch.isfinite(rows.grad).all()
        assert rows.grad[:2].abs().sum(1).all() and not rows.grad[2].any()


@sdxl
def test_weights_go_into_a_state_dict_and_back(backbone: Backbone):
    one = trained(backbone)
    two = Subjects(backbone, TOKENS, ["ring"] * 3)
    two.load_state_dict(one.state_dict())
    one.install()
    before = backbone.text.encode(PROMPTS)
    one.remove()
    two.install()
    after = backbone.text.encode(PROMPTS)
    assert (
        two.tokens == tuple(TOKENS)
        and torch.equal(before.hidden, after.hidden)
        and torch.equal(before.pooled, after.pooled)
    )
    with pytest.raises(RuntimeError, match="size mismatch"):
        two.load_state_dict({name: rows[:2] for name, rows in one.state_dict().items()})


# --- out of the backbone --------------------------------------------------------------------------


@every
def test_a_stock_pipeline_opens_the_files(
    backbone: Backbone, fresh: Callable[[str], Any], tmp_path: Path
):
    subjects = trained(backbone)
    subjects.install()
    paths = subjects.save(tmp_path / "tokens")
    suffixes = ["", "_2"] if len(backbone.text.encoders) == 2 else [""]
    assert [path.name for path in paths] == [
        f"asset{i}{suffix}.safetensors" for suffix in suffixes for i in range(3)
    ]
    assert {key: value.shape for key, value in load_file(paths[1]).items()} == {
        "<asset1>": subjects.rows["text_encoder"][1:2].shape
    }

    pipeline = fresh(backbone.source)
    for path in paths:
        second = path.stem.endswith("_2")
        pipeline.load_textual_inversion(
            str(path),
            tokenizer=pipeline.tokenizer_2 if second else pipeline.tokenizer,
            text_encoder=pipeline.text_encoder_2 if second else pipeline.text_encoder,
        )
    if backbone.source == "sdxl":
        with pytest.raises(AssertionError):
            assert_same(backbone, pipeline)
    plain = PROMPTS[3:]
    before = stock_encoding(pipeline, plain)
    fix_pooling(pipeline)
    assert_same(backbone, pipeline)
    after = stock_encoding(pipeline, plain)
    assert torch.equal(before[0], after[0]) and (
        before[1] is None or torch.equal(before[1], after[1])
    )


@every
@pytest.mark.parametrize("installed", [True, *slow(False)])
def test_a_stock_pipeline_has_the_tokens_for_good(
    backbone: Backbone, tmp_path: Path, installed: bool
):
    from diffusers import DiffusionPipeline

    subjects = trained(backbone)
    if installed:
        subjects.install()
    before = parts(backbone)
    pipeline = subjects.materialise(backbone.pipeline)
    assert parts(backbone) == before and subjects.is_installed == installed
    subjects.install()
    assert pipeline is not backbone.pipeline and pipeline.unet is backbone.unet
    unseen = stock_encoding(pipeline, ["<asset2>"])[0]
    assert backbone.text.token_types(unseen)[0, :4].tolist() == [BOS, WORD, EOS, PADDING], (
        "what it is told reaches the backbone's memory"
    )
    assert_same(backbone, pipeline)
    assert (
        pipeline.text_encoder.get_input_embeddings().weight.shape[0]
        == len(pipeline.tokenizer)
        == subjects.bases[0] + 3
    )
    shared = {id(p) for p in backbone.text.encoders[0].parameters()}
    assert sum(id(p) not in shared for p in pipeline.text_encoder.parameters()) == 1, (
        "no weight but the table is held twice"
    )

    pipeline.save_pretrained(tmp_path)
    assert_same(backbone, DiffusionPipeline.from_pretrained(tmp_path, add_watermarker=False))
    subjects.remove()
    pipeline.tokenizer.add_tokens(["<later>"])
    assert all("<later>" not in tokenizer.get_vocab() for tokenizer in subjects.tokenizers)
    assert (
        "<asset0>" in pipeline.tokenizer.get_vocab()
        and "<asset0>" not in backbone.pipeline.tokenizer.get_vocab()
    )


@both
def test_half_precision_pipelines_get_the_same_tokens(
    backbone: Backbone, fresh: Callable[[str], Any]
):
    subjects = trained(backbone)
    pipeline = fresh(backbone.source)
    for encoder in (pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)):
        if encoder is not None:
            encoder.to(torch.bfloat16)
    new = subjects.materialise(pipeline)
    half = Backbone(pipeline, "half")
    subjects_of_half = Subjects(half, TOKENS, [None] * 3)
    subjects_of_half.load_state_dict(subjects.state_dict())
    subjects_of_half.install()
    assert torch.equal(stock_encoding(new, PROMPTS[:2])[0], half.text.encode(PROMPTS[:2]).hidden)


@both
@pytest.mark.parametrize(
    ("dtype", "subjects_first"), [(torch.float32, True), *slow((torch.bfloat16, False))]
)
def test_trained_weights_of_the_encoders_go_along(
    backbone: Backbone, dtype: torch.dtype, subjects_first: bool
):
    for encoder in backbone.text.encoders:
        encoder.to(dtype)
    subjects = trained(backbone)
    before, stock = parts(backbone), backbone.text.encode(PROMPTS[3:])
    weights = [TrainedWeights(encoder, "model") for encoder in backbone.text.encoders]
    every_part = [subjects, *weights] if subjects_first else [*weights, subjects]
    for part in every_part:
        part.install()
    backbone.text.encode(PROMPTS)
    generator = torch.Generator().manual_seed(4)
    for one in weights:
        for parameter in one.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    pipeline = subjects.materialise(backbone.pipeline)
    mine, (hidden, pooled) = backbone.text.encode(PROMPTS), stock_encoding(pipeline, PROMPTS)
    assert torch.equal(mine.hidden, hidden) and (
        mine.pooled is None or torch.equal(mine.pooled, pooled)
    )
    assert not torch.allclose(mine.hidden[3:], stock.hidden, atol=1e-2)
    guests = [
        value for value in vars(pipeline.text_encoder).values() if isinstance(value, TrainedWeights)
    ]
    assert all(guest is weights[0] for guest in guests), (
        "no second copy of the trained weights, nor of the stock ones they keep"
    )
    for one in every_part:
        one.remove()
    assert parts(backbone) == before and torch.equal(
        backbone.text.encode(PROMPTS[3:]).hidden, stock.hidden
    )


@sdxl
def test_a_pipeline_with_another_vocabulary_is_refused(
    backbone: Backbone, fresh: Callable[[str], Any]
):
    subjects, pipeline = trained(backbone), fresh("sdxl")
    pipeline.tokenizer.add_tokens(["<other>"])
    with pytest.raises(ValueError, match=r"\[605, 604\] tokens: expected \[604, 604\]"):
        subjects.materialise(pipeline)
