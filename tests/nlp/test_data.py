"""Reading texts, tables and pairs: the layouts of the public files, and every way in which a file can be wrong."""

import gzip
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flambeau.data import DataLoader
from flambeau.errors import FlambeauError
from flambeau_nlp.data import Windows, open_labelled, open_pairs, open_text, read_labelled
from flambeau_nlp.tasks.language_modelling import character_ids
from flambeau_nlp.text import read_lines, read_text


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (b"fine\nna\xefve\n", r"not UTF-8 text \(line 2\)"),
        (gzip.compress(b"some text" * 99, mtime=0)[:-20], "damaged gzip"),
        (b"\x1f\x8bnonsense", "damaged gzip"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, content, message):
    path = tmp_path / "file.txt"
    if content is not None:
        write(path, content)
    with pytest.raises(FlambeauError, match=message) as caught:
        read_text(path)
    assert caught.value.mend


def test_a_folder_is_no_text(tmp_path):
    with pytest.raises(FlambeauError, match="is a folder"):
        read_text(tmp_path)


def test_byte_order_mark_line_ends_and_gzip(tmp_path):
    path = write(tmp_path / "a.gz", gzip.compress(b"\xef\xbb\xbfone\r\ntwo\rthree\n\nfive"))
    assert read_lines(path) == ["one", "two", "three", "", "five"]
    # Characters that Python's splitlines would break at do not shift the lines of a parallel text.
    assert read_lines(write(tmp_path / "b", "a\u2028b\x0cc\nd\n")) == ["a\u2028b\x0cc", "d"]


def test_splits_of_a_text(tmp_path):
    path = write(tmp_path / "input.txt", "0123456789")
    assert open_text(str(path), "train") == "012345678"
    assert open_text(str(path), "test", 0.2) == open_text(str(tmp_path), "val", 0.2) == "89"
    assert open_text(str(path), "all") == "0123456789"
    with pytest.raises(FlambeauError, match="no split 'tset'"):
        open_text(str(path), "tset")
    write(tmp_path / "valid.txt.gz", gzip.compress(b"held out"))
    assert open_text(str(tmp_path), "val") == "held out"
    with pytest.raises(FlambeauError, match=r"no train\.txt"):
        open_text(str(tmp_path), "train")


@given(size=st.integers(2, 60), length=st.integers(1, 20))
def test_fixed_windows_count_each_character_once(size, length):
    windows = Windows(np.arange(size), length)
    seen = []
    for index in range(len(windows)):
        ids, target = windows[index]
        assert len(ids) == len(target) == windows.length
        kept = target != -100
        np.testing.assert_array_equal(ids[kept] + 1, target[kept])
        seen += target[kept].tolist()
    assert seen == list(range(1, size))


def test_random_windows_are_pieces_of_the_text():
    windows = Windows(np.arange(100), 8, randomly=True, count=50)
    starts = set()
    for ids, target in DataLoader(windows, 10):
        np.testing.assert_array_equal(ids.numpy() + 1, target.numpy())
        starts |= set(ids[:, 0].tolist())
    assert len(starts) > 20


@given(st.text(alphabet=st.characters(), max_size=30))
def test_character_ids(text):
    characters = "ab\U0001f525"
    expected = [characters.find(character) + 1 for character in text]
    assert character_ids(characters, text).tolist() == expected


def test_the_column_of_the_label_is_found(tmp_path):
    texts = ["fine day", "bad day", "good one", "so so"]
    last = write(tmp_path / "last.tsv", "sentence\tlabel\n" + "".join(f"{t}\t{i % 2}\n" for i, t in enumerate(texts)))
    first = write(tmp_path / "SMS", "".join(f"{i % 2}\t{t}\twith a tab {i}\n" for i, t in enumerate(texts)))
    commas = write(tmp_path / "news.csv", "".join(f'"{i % 2}","{t}, or so","more {i}"\n' for i, t in enumerate(texts)))
    assert read_labelled(last).labels == read_labelled(first).labels == read_labelled(commas).labels == list("0101")
    assert read_labelled(last).texts == texts
    assert read_labelled(first).texts[0] == "fine day with a tab 0"
    assert read_labelled(commas).texts[0] == "fine day, or so more 0"
    assert read_labelled(last, "first").labels == texts


def test_splits_of_one_table_do_not_overlap(tmp_path):
    path = write(tmp_path / "all.tsv", "".join(f"text {i}\t{i % 2}\n" for i in range(40)))
    train, test = (open_labelled(str(path), split, 0.25).texts for split in ("train", "test"))
    assert len(test) == 10 and Counter(train) + Counter(test) == Counter(open_labelled(str(path), "all").texts)
    assert open_labelled(str(tmp_path), "val", 0.25).texts == test


@pytest.mark.parametrize("content, message", [("a\t1\nno label\n", "row 2 has no tab"), ("text\tlabel\n", "no rows")])
def test_bad_tables(tmp_path, content, message):
    with pytest.raises(FlambeauError, match=message):
        read_labelled(write(tmp_path / "x.tsv", content))


def test_bad_pairs(tmp_path):
    assert open_pairs(str(tmp_path), "train", "en", "de") is None
    write(tmp_path / "train.en", "a\nb\n")
    with pytest.raises(FlambeauError, match=r"no train\.de"):
        open_pairs(str(tmp_path), "train", "en", "de")
    write(tmp_path / "train.de", "a\n")
    with pytest.raises(FlambeauError, match=r"train\.en has 2 lines, train\.de has 1") as caught:
        open_pairs(str(tmp_path), "train", "en", "de")
    assert caught.value.mend == "line n must translate line n"
    with pytest.raises(FlambeauError, match="not a folder"):
        open_pairs(str(tmp_path / "train.en"), "train", "en", "de")


def test_the_public_files(real_data):
    sst2 = open_labelled(str(real_data("05_text_classification/sst2")), "test")
    assert len(sst2) == 1821 and set(sst2.labels) == {"0", "1"}
    sms = open_labelled(str(real_data("05_text_classification/sms_spam")), "all")
    assert Counter(sms.labels) == {"ham": 4827, "spam": 747}
    news = read_labelled(real_data("05_text_classification/ag_news_test/test.csv.gz"))
    assert Counter(news.labels) == dict.fromkeys("1234", 1900)
    pairs = open_pairs(str(real_data("06_translation/multi30k")), "train", "en", "de")
    assert len(pairs) == 29_000 and pairs.source[0].startswith("Two young, White males")
    text = open_text(str(real_data("10_language_modelling/tinyshakespeare")), "all")
    assert len(text) == 1_115_394 and len(set(text)) == 65
