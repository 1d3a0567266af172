"""Tokenizers: text → ids → text is lossless, and a saved state gives the same ids."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.data import tokenizer as module
from cupel.data.corpus import Document
from cupel.data.tokenizer import BPETokenizer, ByteTokenizer, Tokenizer
from cupel.errors import DataError, MissingDependency

TEXT = "".join(f"def spam{i}(eggs):\n    return eggs + {i * i}, 'é€'\n\n\n" for i in range(60))
BPE = BPETokenizer.train([Document("t", TEXT.encode())], vocabulary=300)
both = pytest.mark.parametrize("tokenizer", [ByteTokenizer(), BPE], ids=["byte", "bpe"])


@both
@given(text=st.text())
@settings(deadline=None)
def test_every_text_comes_back_from_its_ids(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.vocabulary for i in ids)


@both
@given(data=st.data())
@settings(deadline=None)
def test_any_ids_decode_to_some_text(tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary - 1)))
    tokenizer.decode(ids).encode()


@both
@given(text=st.text(min_size=1))
@settings(deadline=None)
def test_a_state_that_went_through_json_gives_the_same_ids(tokenizer, text):
    again = Tokenizer.from_state(json.loads(json.dumps(tokenizer.state())))
    assert again.encode(text) == tokenizer.encode(text)
    assert again.vocabulary == tokenizer.vocabulary


@both
def test_documents_are_the_ids_of_their_texts_joined(tokenizer):
    texts = [TEXT, "é", "spam"]
    parts = tokenizer.encode_documents(Document(str(i), t.encode()) for i, t in enumerate(texts))
    joined = np.concatenate(list(parts))
    assert joined.tolist() == [i for text in texts for i in tokenizer.encode(text)]
    assert joined.dtype == tokenizer.dtype


def test_bytes_are_their_own_ids():
    assert ByteTokenizer().encode("aé") == [97, 0xC3, 0xA9]
    assert ByteTokenizer().decode([97, 0xC3]) == "a\ufffd"


def test_bpe_merges_what_it_was_trained_on_and_trains_the_same_twice():
    assert BPE.vocabulary == 300
    assert BPE.dtype is np.uint16
    assert len(BPE.encode(TEXT)) < len(TEXT) / 2
    again = BPETokenizer.train([Document("t", TEXT.encode())], vocabulary=300)
    assert again.state() == BPE.state()


def test_long_documents_are_cut_after_newlines_and_stay_whole(monkeypatch):
    monkeypatch.setattr(module, "_PIECE", 50)
    monkeypatch.setattr(module, "_PIECES_AT_ONCE", 3)
    text = TEXT + "x" * 130
    parts = list(BPE.encode_documents([Document("t", text.encode())]))
    assert len(parts) > 10
    assert BPE.decode([i for part in parts for i in part]) == text
    assert BPE.decode(parts[0]).endswith("\n")


def test_bpe_refuses_what_is_not_utf8_and_names_file_and_byte():
    with pytest.raises(DataError, match=r"latin.txt is not that at byte 1"):
        BPETokenizer.train([Document("latin.txt", b"a\xe9 b")], vocabulary=300)


@given(
    state=st.one_of(
        st.none(),
        st.lists(st.integers()),
        st.dictionaries(st.text(), st.integers()),
        st.fixed_dictionaries({"kind": st.text()}),
        st.fixed_dictionaries({"kind": st.just("bpe"), "json": st.text() | st.integers()}),
        st.just({"kind": "bpe"}),
    )
)
@settings(deadline=None)
def test_garbage_for_a_state_is_a_data_error(state):
    if isinstance(state, dict) and state.get("kind") == "byte":
        return
    with pytest.raises(DataError):
        Tokenizer.from_state(state)


def test_without_the_package_bpe_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependency, match=r"pip install 'cupel\[data\]'"):
        BPETokenizer.train([], vocabulary=300)
