"""Corpora: which files are found, how they are split, and that the hash names the content."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.data.corpus import load_corpus
from cupel.data.settings import TextDataSettings
from cupel.errors import DataError

names = st.text("abcdé", min_size=1, max_size=6)
folders = st.dictionaries(names, st.binary(min_size=1, max_size=60), min_size=2, max_size=12)


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def load(path: Path, **more):
    return load_corpus(TextDataSettings(path=str(path), **more))


def contents(documents):
    return {document.name: document.content for document in documents}


@given(files=folders, val_fraction=st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=40)
def test_every_file_is_in_exactly_one_split_and_no_split_is_empty(files, val_fraction):
    files = {name: content.replace(b"\0", b"0") for name, content in files.items()}
    with tempfile.TemporaryDirectory() as folder:
        corpus = load(write_folder(Path(folder), files), val_fraction=val_fraction)
    train, val = contents(corpus.train), contents(corpus.val)
    assert train
    assert val
    assert {**train, **val} == files
    assert len(train) + len(val) == len(files) == corpus.files
    target = val_fraction * sum(map(len, files.values()))
    assert corpus.size("val") <= max(target, min(map(len, files.values())))


@given(content=st.binary(min_size=2, max_size=200), val_fraction=st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=60)
def test_one_file_is_split_by_position_and_joins_again(content, val_fraction):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text")
        path.write_bytes(content)
        corpus = load(path, val_fraction=val_fraction)
    (train,), (val,) = corpus.train, corpus.val
    assert train.content + val.content == content
    assert len(train.content) >= 1
    assert len(val.content) >= 1
    # A step back to the start of a character is at most three bytes.
    assert abs(len(val.content) - len(content) * val_fraction) <= 5


@given(text=st.text("aé€😀", min_size=2, max_size=60), val_fraction=st.floats(0.05, 0.95))
@settings(deadline=None, max_examples=60)
def test_a_split_by_position_never_cuts_a_character(text, val_fraction):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text")
        path.write_bytes(text.encode())
        corpus = load(path, val_fraction=val_fraction)
    if len(text[0].encode()) == 1:  # a first character alone may be all that training gets
        assert corpus.train[0].content.decode() + corpus.val[0].content.decode() == text


def test_the_split_and_the_hash_depend_on_names_and_bytes_only(tmp_path):
    files = {f"a/{i}.txt": bytes([65 + i]) * (i + 1) for i in range(20)}
    one, two = load(write_folder(tmp_path / "x", files)), load(write_folder(tmp_path / "y", files))
    assert (one.train, one.val, one.sha256) == (two.train, two.val, two.sha256)


def test_the_hash_changes_with_a_byte_a_name_or_a_boundary_and_not_with_the_split(tmp_path):
    base = {"a": b"xb", "b": b"z"}
    others = [{"a": b"xb", "b": b"w"}, {"a": b"xb", "c": b"z"}, {"a": b"x", "bb": b"z"}]
    hashes = [
        load(write_folder(tmp_path / str(i), files)).sha256
        for i, files in enumerate([base, *others])
    ]
    assert len(set(hashes)) == 4
    assert load(tmp_path / "0", val_fraction=0.6).sha256 == hashes[0]


def test_validation_holds_nearly_its_share_of_the_bytes(tmp_path):
    files = {f"{i}.txt": b"x" * (100 + 37 * i) for i in range(50)}
    corpus = load(write_folder(tmp_path, files), val_fraction=0.2)
    assert 0.17 < corpus.size("val") / (corpus.size("val") + corpus.size("train")) <= 0.2


def test_a_folder_is_read_below_and_hidden_binary_and_empty_files_are_left_out(tmp_path):
    wanted = {"a.txt": b"a", "deep/er/b": b"\xff garbage"}
    left_out = {".git/c": b"c", "d/.e": b"e", "f.bin": b"f\0f", "empty": b""}
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    corpus = load(write_folder(tmp_path, wanted | left_out))
    assert contents(corpus.train + corpus.val) == wanted


def test_a_cut_keeps_whole_files_within_the_limit_and_samples_the_corpus(tmp_path):
    files = {f"{i:02}.txt": b"x" * 100 for i in range(40)}
    corpus = load(write_folder(tmp_path, files), max_bytes=1050)
    kept = contents(corpus.train + corpus.val)
    assert len(kept) == 10
    assert set(kept.values()) == {b"x" * 100}
    assert max(kept) > "20.txt" > min(kept)


def test_a_cut_of_one_file_is_its_beginning(tmp_path):
    (tmp_path / "t").write_bytes("abcdé".encode() * 10)
    corpus = load(tmp_path / "t", max_bytes=11, val_fraction=0.5)
    assert corpus.train[0].content + corpus.val[0].content == "abcdéabcd".encode()


def test_the_standard_library_is_there_without_tests_or_installed_packages():
    corpus = load_corpus(TextDataSettings())
    found = contents(corpus.train + corpus.val)
    assert "ast.py" in found
    assert "json/decoder.py" in found
    assert not any({"test", "tests", "site-packages"} & set(name.split("/")) for name in found)
    assert corpus.size("train") > 5_000_000
    assert "Python 3." in corpus.source
    assert 0.09 < corpus.size("val") / (corpus.size("val") + corpus.size("train")) <= 0.1


def test_describe_is_what_was_read(tmp_path):
    (tmp_path / "t").write_bytes(b"0123456789")
    described = load(tmp_path / "t").describe()
    assert described["bytes"] == {"train": 9, "val": 1}
    assert described["files"] == 1
    assert described["source"] == str(tmp_path / "t")
    assert len(described["sha256"]) == 64


@pytest.mark.parametrize(
    "files, more, message",
    [
        ({}, {}, "no text file in"),
        ({"a.bin": b"\0"}, {}, "no text file in"),
        (
            {"a": b"12345", "b": b"12345"},
            {"max_bytes": 3},
            "max_bytes: 3 is less than each of the 2",
        ),
        ({"only": b"x"}, {}, "only gives 1 bytes"),
    ],
)
def test_a_folder_without_enough_text_is_refused_in_one_line(tmp_path, files, more, message):
    with pytest.raises(DataError, match=message) as refused:
        load(write_folder(tmp_path, files), **more)
    assert "\n" not in str(refused.value)


def test_a_missing_path_is_named_with_what_to_give_instead(tmp_path):
    with pytest.raises(DataError, match=r"no file or folder at .*nowhere; give a text file"):
        load(tmp_path / "nowhere")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(DataError, match="empty is empty"):
        load(tmp_path / "empty")


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    write_folder(tmp_path, {"a": b"text", "b": b"text"})

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything, so modes do not do
    with pytest.raises(DataError, match=r"cannot read .*Permission denied"):
        load(tmp_path)
