"""The token cache: right when fresh, when reused, when damaged, when killed and when raced for."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.data.corpus import load_corpus
from cupel.data.settings import TextDataSettings
from cupel.data.tokenizer import Tokenizer
from cupel.data.tokens import load_tokens
from cupel.errors import DataError

TEXT = "".join(f"def spam{i}(eggs):\n    return eggs + {i * i}, 'é€'\n\n\n" for i in range(60))

# A process that loads the tokens of argv[1] with the cache of argv[2], and prints their hash.
LOADER = """
import sys
from cupel.data.settings import TextDataSettings
from cupel.data.tokens import load_tokens
tokens = load_tokens(TextDataSettings(path=sys.argv[1], cache=sys.argv[2], tokens=sys.argv[3]))
print(tokens.sha256)
"""


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def settings_for(path, cache, **more):
    return TextDataSettings(path=str(path), cache=str(cache), **more)


def cache_files(cache):
    return {path.name: path for path in Path(cache).rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_tokens_decode_to_the_corpus_of_each_split(text, tmp_path, kind):
    asked = settings_for(text, tmp_path / "cache", tokens=kind, val_fraction=0.25)
    tokens, corpus = load_tokens(asked), load_corpus(asked)
    for ids, documents in ((tokens.train, corpus.train), (tokens.val, corpus.val)):
        assert tokens.decode(ids).encode() == b"".join(d.content for d in documents)
        assert ids.max() < tokens.vocabulary
        assert not ids.flags.writeable


def test_a_second_load_reads_the_cache_and_gives_the_same(text, tmp_path):
    asked = settings_for(text, tmp_path / "cache", tokens="bpe", vocabulary=300)
    first = load_tokens(asked)
    times = {
        name: path.stat().st_mtime_ns for name, path in cache_files(tmp_path / "cache").items()
    }
    second = load_tokens(asked)
    assert second.describe() == first.describe()
    assert second.notes == ()
    assert np.array_equal(first.train, second.train)
    assert times == {n: p.stat().st_mtime_ns for n, p in cache_files(tmp_path / "cache").items()}


def test_every_setting_that_changes_tokens_changes_the_cache_and_the_hash(text, tmp_path):
    cache, hashes = tmp_path / "cache", set()
    variants = [
        {},
        {"val_fraction": 0.3},
        {"max_bytes": 800},
        {"tokens": "bpe", "vocabulary": 260},
        {"tokens": "bpe", "vocabulary": 270},
    ]
    for more in variants:
        hashes.add(load_tokens(settings_for(text, cache, **more)).sha256)
    assert len(hashes) == len(variants) == len(list((cache / "tokens").iterdir()))


def test_bytes_per_token_and_description_count_what_is_there(text, tmp_path):
    tokens = load_tokens(settings_for(text, tmp_path / "cache", tokens="bpe", vocabulary=300))
    sizes = tokens.corpus["bytes"]
    assert sizes["train"] + sizes["val"] == len(TEXT.encode())
    assert tokens.bytes_per_token["train"] == sizes["train"] / len(tokens.train) > 2
    described = json.loads(json.dumps(tokens.describe()))
    assert described["tokens"] == {"train": len(tokens.train), "val": len(tokens.val)}
    assert described["tokenizer"] == "bpe"
    assert described["vocabulary"] == 300


def test_the_tokenizer_state_alone_decodes(text, tmp_path):
    tokens = load_tokens(settings_for(text, tmp_path / "cache", tokens="bpe"))
    alone = Tokenizer.from_state(json.loads(json.dumps(tokens.tokenizer_state())))
    assert alone.decode(tokens.val) == tokens.decode(tokens.val)


def test_a_vocabulary_that_the_corpus_cannot_fill_is_told(tmp_path):
    (tmp_path / "t").write_text("abab" * 5)
    tokens = load_tokens(settings_for(tmp_path / "t", tmp_path / "cache", tokens="bpe"))
    assert tokens.vocabulary < 512
    assert f"the vocabulary is {tokens.vocabulary}, not the 512" in tokens.notes[0]


@given(
    name=st.sampled_from(["train.bin", "val.bin", "tokenizer.json", "tokens.json"]), data=st.data()
)
@settings(deadline=None, max_examples=40)
@pytest.mark.slow
def test_a_damaged_cache_is_found_told_and_built_anew(name, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t")
        path.write_text(TEXT)
        asked = settings_for(path, Path(folder, "cache"))
        before = load_tokens(asked)
        victim = cache_files(asked.cache)[name]
        garbage = data.draw(
            st.none() | st.binary(max_size=40) | st.sampled_from([b"[]", b'{"sha256": {}}', b"1"])
        )
        if garbage is not None:
            victim.write_bytes(garbage)
        elif name == "tokens.json":
            victim.write_bytes(victim.read_bytes()[:-30])
        else:
            victim.unlink()
        after = load_tokens(asked)
        assert "was damaged" in after.notes[0]
        assert name in after.notes[0] or name == "tokens.json"  # then any file may be blamed
        assert after.sha256 == before.sha256
        assert after.decode(after.val) == load_corpus(asked).val[0].content.decode()
        assert load_tokens(asked).notes == ()


def test_one_flipped_bit_is_found(text, tmp_path):
    asked = settings_for(text, tmp_path / "cache")
    load_tokens(asked)
    victim = cache_files(tmp_path / "cache")["train.bin"]
    content = bytearray(victim.read_bytes())
    content[100] ^= 1
    victim.write_bytes(content)
    tokens = load_tokens(asked)
    assert "train.bin does not match its checksum" in tokens.notes[0]
    assert tokens.train[100] == TEXT.encode()[100]


def test_an_open_token_set_outlives_the_cache(text, tmp_path):
    asked = settings_for(text, tmp_path / "cache")
    tokens = load_tokens(asked)
    for path in cache_files(tmp_path / "cache").values():
        path.unlink()
    assert tokens.decode(tokens.train).startswith("def spam")


@pytest.mark.slow
def test_a_loader_killed_while_writing_leaves_nothing_that_is_believed(tmp_path):
    text, cache = tmp_path / "text", tmp_path / "cache"
    text.write_bytes(random.Random(0).randbytes(24_000_000))
    loader = subprocess.Popen([sys.executable, "-c", LOADER, str(text), str(cache), "byte"])
    while not list(cache.rglob("*.tmp")):
        assert loader.poll() is None
        time.sleep(0.0005)
    os.kill(loader.pid, signal.SIGKILL)
    loader.wait()
    assert "tokens.json" not in cache_files(cache)
    tokens = load_tokens(settings_for(text, cache))
    assert tokens.notes == ()
    assert np.concatenate([tokens.train, tokens.val]).tobytes() == text.read_bytes()


@pytest.mark.slow
def test_loaders_at_the_same_time_agree(text, tmp_path):
    command = [sys.executable, "-c", LOADER, str(text), str(tmp_path / "cache"), "bpe"]
    loaders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    hashes = {loader.communicate()[0].strip() for loader in loaders}
    assert [loader.returncode for loader in loaders] == [0, 0, 0]
    assert hashes == {load_tokens(settings_for(text, tmp_path / "cache", tokens="bpe")).sha256}


def test_the_environment_names_the_cache_and_the_setting_wins(text, tmp_path, monkeypatch):
    monkeypatch.setenv("CUPEL_CACHE", str(tmp_path / "env"))
    load_tokens(TextDataSettings(path=str(text)))
    assert "train.bin" in cache_files(tmp_path / "env")
    load_tokens(settings_for(text, tmp_path / "own"))
    assert "train.bin" in cache_files(tmp_path / "own")


def test_a_cache_that_cannot_be_written_says_what_to_set(text, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"set data.cache or CUPEL_CACHE"):
        load_tokens(settings_for(text, tmp_path / "file"))
