import numpy as np
import pytest

from services.embedding.domain import Encoder, ModelNotUsable, batches_by_length

MIXED = ["a", "a b c d e f g h i j k", "b c", "z y x w v u t", "a b c d", "q"]


@pytest.fixture(scope="module")
def encoder(bilingual_folder):
    return Encoder.load(bilingual_folder, threads=1)


def test_vectors_have_the_dimension_length_one_and_the_order_of_the_texts(encoder):
    vectors = encoder.encode(MIXED, batch_tokens=20)
    assert vectors.shape == (6, encoder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    for text, vector in zip(MIXED, vectors, strict=True):
        np.testing.assert_allclose(encoder.encode([text])[0], vector, atol=1e-6)


def test_no_texts_give_an_empty_array(encoder):
    assert encoder.encode([]).shape == (0, encoder.dimension)


def test_queries_and_passages_get_the_prefix_of_the_model(encoder, english_folder):
    query, passage = encoder.encode(["a"]), encoder.encode(["a"], input_type="passage")
    assert np.abs(query - passage).max() > 0.01
    plain = Encoder.load(english_folder)
    np.testing.assert_array_equal(plain.encode(["a"]), plain.encode(["a"], input_type="passage"))
    overridden = Encoder.load(english_folder, query_prefix="query: ")
    np.testing.assert_allclose(overridden.encode(["a"]), query, atol=1e-6)


def test_a_long_text_is_cut_and_says_so(encoder):
    short, long = encoder.prepare(["a b", "a b " * 40])
    assert (short.truncated, long.truncated) == (False, True)
    assert long.length == encoder.max_tokens == 16
    assert long.ids[-1] == 2  # the end token survives the cut


def test_the_limit_can_be_lowered_but_not_raised(bilingual_folder):
    assert Encoder.load(bilingual_folder, max_tokens=9).max_tokens == 9
    assert Encoder.load(bilingual_folder, max_tokens=900).max_tokens == 16


def test_batches_hold_every_row_once_within_the_token_budget():
    lengths = [5, 100, 7, 6, 40, 300, 5, 41]
    batches = list(batches_by_length(lengths, 100))
    assert sorted(row for batch in batches for row in batch) == list(range(8))
    assert all(
        len(batch) == 1 or max(lengths[row] for row in batch) * len(batch) <= 100
        for batch in batches
    )
    assert len(batches) < 8


def test_a_missing_or_broken_folder_says_what_is_wrong(tmp_path, bilingual_folder):
    with pytest.raises(ModelNotUsable, match=r"has no model\.onnx"):
        Encoder.load(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelNotUsable, match="could not be loaded"):
        Encoder.load(tmp_path)


def mean_pool(hidden, mask):
    kept = mask[:, :, None]
    mean = (hidden * kept).sum(axis=1) / kept.sum(axis=1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def test_pooling_can_be_given_and_sees_every_token_with_its_mask(bilingual_folder, encoder):
    seen = []

    def pool(hidden, mask):
        seen.append((hidden.shape, mask.sum(axis=1).tolist()))
        return mean_pool(hidden, mask)

    own = Encoder.load(bilingual_folder, threads=1, pool=pool)
    np.testing.assert_allclose(own.encode(MIXED), encoder.encode(MIXED), atol=1e-6)
    lengths = sorted(item.length for item in encoder.prepare(MIXED))
    assert seen == [((6, lengths[-1], encoder.dimension), lengths)]


def test_pooling_of_another_shape_is_refused(bilingual_folder):
    own = Encoder.load(bilingual_folder, pool=lambda hidden, mask: hidden[:, 0, :2])
    with pytest.raises(ValueError, match=r"pool gave \(1, 2\) for 1 texts of dimension 8"):
        own.encode(["a"])
