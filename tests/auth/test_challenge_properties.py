"""Parsing of WWW-Authenticate: no text raises an exception, and valid challenges round-trip."""

from __future__ import annotations

import string

from hypothesis import example, given
from hypothesis import strategies as st

from ociwire.auth import Challenge

# Nearly valid text reaches more of the parser than random text.
PIECES = ["Bearer", "Basic", "Negotiate", "realm", "service", " ", "\t", ",", ", ", "=", "==", '"', '""', "\\", '\\"']
PIECES += [
    'realm="x"',
    "realm=x",
    '="',
    '",',
    "YWJj",
    "https://h/t?a=b",
    "\r\n",
    "\0",
    "é",
    "@",
    "(",
    ";",
    "'",
    "\udc80",
]
TEXT = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=16).map("".join))

TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~" + string.ascii_letters + string.digits
TOKENS = st.text(TOKEN_CHARACTERS, min_size=1, max_size=8)
NAMES = TOKENS.map(str.lower)
VALUES = st.text(st.characters(blacklist_characters="\r\n\0", blacklist_categories=["Cs"]), max_size=12)
PARAMS = st.dictionaries(NAMES, VALUES, max_size=4)
CHALLENGES = st.builds(Challenge, TOKENS.map(str.lower), PARAMS)
SEPARATORS = st.sampled_from([",", ", ", " ,", ",,", "\t, ,", " , "])


def quoted(value: str) -> str:
    return '"{}"'.format(value.replace("\\", r"\\").replace('"', r"\""))


def is_token(value: str) -> bool:
    return bool(value) and all(character in TOKEN_CHARACTERS for character in value)


@st.composite
def draw_header(draw: st.DrawFn, challenge: Challenge) -> str:
    """Draw a text of a challenge in a form that RFC 9110, section 11.6.1 allows."""
    params = []
    for name, value in challenge.params.items():
        is_unquoted = is_token(value) and draw(st.booleans())
        space = draw(st.sampled_from(["", "", " ", "\t"]))
        name = draw(st.sampled_from([name, name.upper(), name.title()]))
        params.append(f"{name}{space}={space}{value if is_unquoted else quoted(value)}")
    scheme = draw(st.sampled_from([challenge.scheme, challenge.scheme.upper()]))
    text = f"{scheme} " if params else scheme
    for number, param in enumerate(params):
        text += (draw(SEPARATORS) if number else "") + param
    return text


@given(st.lists(TEXT, max_size=3))
@example(['Bearer realm="x\\'])
def test_parse_arbitrary_text_never_raises(headers: list[str]) -> None:
    parsed = Challenge.parse(*headers)
    assert parsed == [challenge for header in headers for challenge in Challenge.parse(header)]
    for challenge in parsed:
        assert challenge.scheme
        assert challenge.scheme == challenge.scheme.lower()
        assert is_token(challenge.scheme)
        assert all(is_token(name) and name == name.lower() for name in challenge.params)


@given(st.lists(CHALLENGES, max_size=4), st.data())
def test_parse_well_formed_challenges_round_trips(challenges: list[Challenge], data: st.DataObject) -> None:
    texts = [data.draw(draw_header(challenge)) for challenge in challenges]
    assert Challenge.parse(*texts) == challenges
    joined = "".join((data.draw(SEPARATORS) if number else "") + text for number, text in enumerate(texts))
    assert Challenge.parse(joined) == challenges


@given(st.lists(CHALLENGES, min_size=1, max_size=3), TEXT, st.data())
def test_parse_garbage_after_challenges_keeps_them(
    challenges: list[Challenge], garbage: str, data: st.DataObject
) -> None:
    text = ", ".join(data.draw(draw_header(challenge)) for challenge in challenges)
    parsed = Challenge.parse(f"{text}, {garbage}")
    assert parsed[: len(challenges) - 1] == challenges[:-1]
    last = parsed[len(challenges) - 1]
    assert last.scheme == challenges[-1].scheme
    assert last.params.items() >= challenges[-1].params.items()
