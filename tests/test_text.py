"""Sanitizing and redaction of texts in messages and logs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ociwire._text import format_path, format_size, sanitize, truncate

# --- sanitize ---


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ""),
        ("as it is", "as it is"),
        ("two\r\nlines", "two lines"),
        ("\x1b[31mred\x1b[0m", " [31mred [0m"),
        ("a\x00\x07\x08\x7fb", "a b"),
        ("a\x80\x85\x9b\x9fb", "a b"),
        ("a\tb", "a b"),
        ("a\u2028b\u2029c", "a b c"),
        ("caf\xe9 \N{SNOWMAN}", "caf\xe9 \N{SNOWMAN}"),
        (None, ""),
        (5, ""),
        (b"bytes", ""),
        (["list"], ""),
    ],
)
def test_sanitize_control_characters_become_spaces(value: object, expected: str) -> None:
    assert sanitize(value, 100) == expected


@given(st.text(), st.integers(0, 50))
def test_sanitize_any_text_is_short_and_printable(value: str, longest: int) -> None:
    made = sanitize(value, longest)
    assert len(made) <= longest
    assert len(made.splitlines()) <= 1
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in made)
    assert not set(made) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    made.encode()  # no surrogate is left


@pytest.mark.parametrize("harm", ["\ud800", "\u202e", "\x1b[2J", "\r\n", "\u2028"])
def test_sanitize_harmful_character_is_replaced(harm: str) -> None:
    assert sanitize(f"a{harm}b", 20) == f"a {harm[1:] if harm[0] == chr(27) else ''}b"


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_sanitize_printable_text_is_only_cut(value: str) -> None:
    assert sanitize(value, 10) == value[:10]


@pytest.mark.parametrize("path", ["a\nb/\udcff", Path("a\nb", "\udcff")])
def test_format_path_control_characters_and_surrogates_become_spaces(path: str | Path) -> None:
    assert format_path(path) == "a b/ "


# --- size ---


@pytest.mark.parametrize(("text", "expected"), [("", ""), ("12345", "12345"), ("123456", "1234…")])
def test_cut_longer_text_ends_in_mark(text: str, expected: str) -> None:
    assert truncate(text, 5) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1024, "1023.0 KiB"),
        (1024**2, "1.0 MiB"),
        (5 * 1024**2, "5.0 MiB"),
        (1024**3, "1.0 GiB"),
        (3 * 1024**4, "3072.0 GiB"),
    ],
)
def test_format_size_uses_binary_units(count: int, expected: str) -> None:
    assert format_size(count) == expected


@given(st.integers(0, 2**50))
def test_format_size_any_number_is_accurate(count: int) -> None:
    number, unit = format_size(count).split()
    factor = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}[unit]
    assert abs(float(number) * factor - count) <= 0.0501 * factor
