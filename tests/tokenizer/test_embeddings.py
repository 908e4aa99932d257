"""Item text to vectors: what is encoded, the cache, the checked offline copy, and clear refusals."""

from __future__ import annotations

import importlib.util
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from streamrec_lite.common.errors import BadInput
from streamrec_lite.config.sections import EmbeddingConfig
from streamrec_lite.tokenizer import embeddings, sentence_models
from streamrec_lite.tokenizer.embeddings import embed_items, item_texts, similar_items

TFIDF = EmbeddingConfig(model="tfidf", dim=4)


def shop(rows=None, **more):
    """The fields of a data set that embedding reads."""
    rows = rows or [
        ("Red guitar", "Strum", "Music,Guitars", "An electric guitar."),
        ("Blue guitar", "Strum", "Music,Guitars", ""),
        (" Hammer ", "", "Tools", ""),
        ("Steel nails", "Bang", "Tools,Nails", "Box of nails for a hammer."),
        ("", "", "", ""),
    ]
    items = pd.DataFrame(rows, columns=["title", "brand", "categories", "description"])
    return SimpleNamespace(**{"name": "shop", "items": items, "embeddings": None, "world": None, **more})


def test_texts_leave_empty_parts_out():
    assert item_texts(shop())[:3] == [
        "Red guitar Strum Music,Guitars An electric guitar.",
        "Blue guitar Strum Music,Guitars",
        "Hammer Tools",
    ]
    assert item_texts(shop())[4] == ""


def test_tfidf_is_deterministic_and_finds_alike_items():
    vectors = embed_items(shop(), TFIDF)
    assert vectors.dtype == np.float32
    assert vectors.shape == (5, 4)
    assert np.array_equal(vectors, embed_items(shop(), TFIDF))
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.5 > 0.1 > abs(likeness[0, 3])
    np.testing.assert_allclose(np.diag(likeness), [1, 1, 1, 1, 0], atol=1e-5)  # no text: the zero vector


def test_auto_means_tfidf_on_the_playground_and_dim_is_capped():
    vectors = embed_items(shop(world=object()), EmbeddingConfig(dim=64))
    assert vectors.shape == (5, 5)


def test_own_embeddings_are_used_and_checked():
    own = np.arange(10.0).reshape(5, 2)
    vectors = embed_items(shop(embeddings=own), EmbeddingConfig())
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, own)
    with pytest.raises(BadInput, match="one row an item"):
        embed_items(shop(embeddings=own[:4]), EmbeddingConfig())
    own[3, 1] = np.nan
    with pytest.raises(BadInput, match="row 3: embeddings must be finite"):
        embed_items(shop(embeddings=own), EmbeddingConfig())


def test_cache_depends_on_text_and_settings_and_survives_damage(tmp_path):
    first = embed_items(shop(), TFIDF, tmp_path)
    (path,) = tmp_path.iterdir()
    written = path.stat().st_mtime_ns
    assert np.array_equal(first, embed_items(shop(), TFIDF, tmp_path))
    assert path.stat().st_mtime_ns == written
    embed_items(shop(), EmbeddingConfig(model="tfidf", dim=3), tmp_path)
    other = shop()
    other.items.loc[0, "title"] = "Green guitar"
    embed_items(other, TFIDF, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    path.write_bytes(b"cut short")
    assert np.array_equal(first, embed_items(shop(), TFIDF, tmp_path))
    assert path.stat().st_size > 100


def test_items_without_any_text_are_refused():
    with pytest.raises(BadInput, match="items need a title"):
        embed_items(shop([("", " ", "", "")] * 3), TFIDF)
    with pytest.raises(BadInput, match="TF-IDF needs words"):
        embed_items(shop([("!", "?", "", "")] * 3), TFIDF)


def test_a_model_that_cannot_be_had_is_one_line_within_seconds(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(sentence_models.importlib.util, "find_spec", lambda name: None)
    begin = time.perf_counter()
    with pytest.raises(BadInput, match=r"hub cannot be reached.*\[offline\]") as error:
        embed_items(shop(), EmbeddingConfig())
    assert "\n" not in str(error.value)
    assert time.perf_counter() - begin < 15


def test_a_wrong_name_and_a_folder_without_a_model_are_refused(tmp_path):
    with pytest.raises(BadInput, match="neither a local folder nor a public model"):
        embed_items(shop(), EmbeddingConfig(model="./no/such folder"))
    with pytest.raises(BadInput, match=r"holds modules\.json or config\.json"):
        embed_items(shop(), EmbeddingConfig(model=str(tmp_path)))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadInput, match="the model cannot be loaded"):
        embed_items(shop(), EmbeddingConfig(model=str(tmp_path)))


def test_changed_offline_weights_are_refused(monkeypatch, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"something else")
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(sentence_models.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(BadInput, match="official sha256"):
        embed_items(shop(), EmbeddingConfig())
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"model\.safetensors missing"):
        embed_items(shop(), EmbeddingConfig())


@pytest.mark.skipif(
    importlib.util.find_spec(sentence_models.OFFLINE_PACKAGE) is None,
    reason="the [offline] extra is not installed",
)
def test_offline_minilm_is_the_mean_of_the_last_hidden_states(tmp_path):
    from sentence_transformers import SentenceTransformer

    vectors = embed_items(shop(), EmbeddingConfig(max_tokens=16), tmp_path, progress=False)
    assert vectors.shape == (5, 384)
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > likeness[0, 3] + 0.2
    # By hand: the transformer's states, averaged over the text's own tokens, at unit length.
    model = SentenceTransformer(sentence_models._offline_copy(), device="cpu", local_files_only=True)
    import torch

    inputs = model.tokenizer(item_texts(shop())[0], return_tensors="pt", truncation=True, max_length=16)
    with torch.no_grad():
        states = model[0].auto_model(**inputs).last_hidden_state[0]
    mean = states.mean(dim=0).numpy()
    np.testing.assert_allclose(vectors[0], mean / np.linalg.norm(mean), atol=1e-5)


class CountingModel:
    """Encodes a text as (its length, 1), remembers what it was asked, and may die on the way."""

    def __init__(self, dies_at: int | None = None):
        self.asked, self.dies_at = [], dies_at

    def encode(self, texts, batch_size, show_progress_bar):
        if len(self.asked) == self.dies_at:
            raise KeyboardInterrupt
        self.asked.append(texts)
        return np.array([[len(text), 1.0] for text in texts])


def test_a_killed_encoding_continues_from_its_last_shard(monkeypatch, tmp_path):
    goods = shop([("x" * (1 + i * 7 % 40), "", "", "") for i in range(40)])
    monkeypatch.setattr(embeddings, "locate_model", lambda name: name)
    config = EmbeddingConfig(model="some/model", batch_size=2)  # shards of 16 items
    mortal, heir = CountingModel(dies_at=19), CountingModel()
    monkeypatch.setattr(embeddings, "load_model", lambda *args: mortal)
    with pytest.raises(KeyboardInterrupt):
        embed_items(goods, config, progress=False, work_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2  # the third was not complete
    monkeypatch.setattr(embeddings, "load_model", lambda *args: heir)
    vectors = embed_items(goods, config, progress=False, work_dir=tmp_path)
    assert vectors[:, 0].tolist() == [1 + i * 7 % 40 for i in range(40)]
    assert sum(map(len, heir.asked)) == 8
    lengths = [len(text) for batch in mortal.asked for text in batch]
    assert lengths == sorted(lengths, reverse=True)  # alike lengths together: little padding


def test_similar_items_by_hand():
    vectors = np.array([[1.0, 0.0], [2.0, 0.2], [0.0, 1.0], [0.1, 3.0], [1.0, 1.0]])
    near = similar_items(vectors, 2)
    assert near.tolist() == [[1, 4], [0, 4], [3, 4], [2, 4], [1, 3]]
    assert np.array_equal(near, similar_items(vectors, 2, rows_per_chunk=2))
    with pytest.raises(BadInput, match="4 others"):
        similar_items(vectors, 5)
