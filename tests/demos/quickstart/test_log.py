"""What is printed is kept, whatever happens."""

import sys

import pytest

from demos.quickstart.log import logged


def test_what_is_printed_is_shown_and_kept(tmp_path, capsys):
    file = tmp_path / "run" / "quickstart.log"
    with logged(file):
        print("one")
        print("two", file=sys.stderr)
    shown = capsys.readouterr()
    assert shown.out == "one\n" and shown.err == "two\n"
    assert file.read_text() == "one\ntwo\n"


def test_an_error_is_kept_with_where_it_came_from(tmp_path):
    file = tmp_path / "quickstart.log"
    with pytest.raises(ValueError, match="negative"), logged(file):
        print("ranking")
        raise ValueError("'yerr' must not contain negative values")
    text = file.read_text()
    assert text.startswith("ranking\nTraceback") and "test_log.py" in text and "negative values" in text
