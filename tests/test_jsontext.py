"""JSON compared as values: against a model that knows nothing of orjson."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from migrate import jsontext
from migrate.jsontext import canonical, jsonb_problem

# --- values, and the many ways in which they can be written ----------------------

ODD_CHARACTERS = '"\\/#\x00\x1f\x7f\u00e9\u2028\ud800\udcff😀ab '
odd_text = st.text(st.one_of(st.sampled_from(ODD_CHARACTERS), st.characters()), max_size=4)
numbers = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(
        [
            "0",
            "-0",
            "1",
            "1.0",
            "1.00",
            "0.1",
            "0.10",
            "100",
            "1e2",
            "1E+2",
            "10e1",
            "1e-2",
            "0.01",
            "-0.0",
            "1e22",
            "0.00001",
            "1e-05",
            "12345678901234567890.12",
            "9007199254740993",
            "0e5",
            "1.5e1",
            "15",
        ]
    ),
    st.tuples(st.integers(-999, 999), st.integers(-30, 30)).map(lambda p: f"{p[0]}e{p[1]}"),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(lambda d: format(d, "f")),
)


class Num(str):
    """A number's token."""

    __slots__ = ()


trees = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers.map(Num), odd_text),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(st.tuples(odd_text, inner), max_size=3).map(lambda members: ("object", members)),
    ),
    max_leaves=6,
)


def spelled(text: str, data: st.DataObject) -> str:
    """Write a string with a free choice of escapes."""
    out = []
    for c in text:
        must = c in '"\\' or c < " " or "\ud800" <= c <= "\udfff"
        if must or data.draw(st.integers(0, 4)) == 0:
            units = c.encode("utf-16-be", "surrogatepass")
            out += [f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)]
        else:
            out.append(c)
    return '"' + "".join(out) + '"'


def written(tree: Any, data: st.DataObject) -> str:
    """Write a value with free white space, escapes and order of distinct keys."""
    gap = data.draw(st.sampled_from(["", "", " ", "\n\t"]))
    if isinstance(tree, Num):
        return gap + str(tree)
    if isinstance(tree, str):
        return gap + spelled(tree, data)
    if isinstance(tree, list):
        return gap + "[" + ",".join(written(item, data) for item in tree) + gap + "]"
    if isinstance(tree, tuple):
        members = tree[1]
        if len({k for k, _ in members}) == len(members):
            members = data.draw(st.permutations(members))
        parts = [f"{gap}{spelled(k, data)}{gap}:{written(v, data)}" for k, v in members]
        return gap + "{" + ",".join(parts) + "}"
    return gap + json.dumps(tree) + gap


def joined(text: str) -> str:
    """Return a text as its UTF-16 reading: an escaped pair is one character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def model(tree: Any) -> Any:
    """Return what two equal values have in common."""
    if isinstance(tree, Num):
        return ("number", Decimal(str(tree)).as_tuple())
    if isinstance(tree, str):
        return ("string", joined(tree))
    if isinstance(tree, list):
        return ("array", [model(item) for item in tree])
    if isinstance(tree, tuple):
        members = [(joined(k), model(v)) for k, v in tree[1]]
        return ("object", sorted(members, key=lambda m: m[0].encode("utf-8", "surrogatepass")))
    return ("word", tree)


@given(trees, st.data())
def test_the_same_value_written_in_two_ways_has_one_canonical_form(tree: Any, data: st.DataObject) -> None:
    one, two = written(tree, data), written(tree, data)
    assert canonical(one) is not None
    assert canonical(one) == canonical(two)


@given(trees, st.data())
def test_forms_are_equal_only_for_equal_values(a: Any, data: st.DataObject) -> None:
    b = data.draw(st.one_of(st.just(a), trees))
    assert (canonical(written(a, data)) == canonical(written(b, data))) == (model(a) == model(b))


def exact_path(text: str) -> bytes:
    return jsontext._write(jsontext._parse(text))


plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False),
        st.text(max_size=4),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(st.sampled_from('"#\\\x01\x7fé😀a'), max_size=3), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(plain, st.booleans())
@example({'a"': 1, "a#": 2}, False)
@example({"\\": 1, "a": 2, "\x01": 3}, True)
@example({"\U0001f600": 1, "\uffff": 2}, False)
def test_the_fast_and_the_exact_path_agree(value: Any, compact: bool) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":") if compact else None)
    assume("Infinity" not in text)
    fast = jsontext._fast(text)
    if fast is not None:
        assert fast == exact_path(text)


@given(numbers)
def test_the_fast_path_takes_no_number_that_it_changes(token: str) -> None:
    fast = jsontext._fast(f"[{token}]")
    assert fast in (None, f"[{token}]".encode())


def test_key_order_white_space_and_escapes_do_not_count() -> None:
    assert canonical('{"b":[1, 2],"a":"\\u00e9"}') == canonical(' {\n"a" : "é" , "b":[1,2]} ')


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("1", "1.0"),
        ("1.0", "1.00"),
        ("1e2", "100"),
        ("0", "-0"),
        ("0.0", "-0.0"),
        ("9007199254740993", "9007199254740992"),
        ("1e400", "1e401"),
        ('{"a":1}', '{"a":1,"a":1}'),
        ('{"a":1,"a":2}', '{"a":2,"a":1}'),
        ("[1,2]", "[2,1]"),
        ('"1"', "1"),
        ("null", '"null"'),
        ("[]", "{}"),
        ('"\\u0000"', '""'),
        ('"\\ud800"', '"\\\\ud800"'),
        ('"e\u0301"', '"\u00e9"'),
    ],
)
def test_values_that_look_alike_differ(a: str, b: str) -> None:
    assert canonical(a) is not None
    assert canonical(a) != canonical(b)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "{broken",
        "NaN",
        "Infinity",
        "-Infinity",
        "[1,]",
        "'a'",
        "01",
        "+1",
        "1.",
        ".5",
        "0x1",
        '"\n"',
        "nul",
        "[1] [2]",
        "\ufeff1",
        "１",
        '{"a"}',
        "{1:2}",
    ],
)
def test_a_text_that_is_no_json_has_no_form_and_no_place_in_jsonb(text: str) -> None:
    assert canonical(text) is None
    assert jsonb_problem(text) == "not valid JSON"


# --- what jsonb alters or refuses ------------------------------------------------

DIGITS = "7" * 131072


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a":1,"a":1}', "jsonb keeps only the last of repeated keys"),
        ('[{"x":{"\\u0061":1,"a":2}}]', "jsonb keeps only the last of repeated keys"),
        ('"a\\u0000b"', "jsonb refuses \\u0000"),
        ('{"\\u0000":1}', "jsonb refuses \\u0000"),
        ('"\\ud800"', "jsonb refuses a lone surrogate"),
        ('["\\udc00\\ud800"]', "jsonb refuses a lone surrogate"),
        ("-0", "jsonb turns -0 into 0"),
        ("[-0.00]", "jsonb turns -0 into 0"),
        ("-0e5", "jsonb turns -0 into 0"),
        ("1e2", "jsonb writes this number without its exponent"),
        ("[1E+2]", "jsonb writes this number without its exponent"),
        ("7" + DIGITS, "jsonb refuses a number of this size"),
        ("1e131072", "jsonb refuses a number of this size"),
        ("0." + "0" * 16383 + "1", "jsonb refuses a number of this size"),
        ("1e1000000000000000000", "jsonb refuses a number of this size"),
        ("1e-1000000000000000000", "jsonb refuses a number of this size"),
    ],
)
def test_what_jsonb_alters_or_refuses_is_named(text: str, reason: str) -> None:
    assert jsonb_problem(text) == reason
    assert jsonb_problem(" " * 100 + text) == reason  # a long text takes another way through the code


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "true",
        "[]",
        "{}",
        '""',
        "0",
        "-1",
        "1.0",
        "1.00",
        "0.10",
        "1e-2",
        "1.5e1",
        '{"b":1,"a":2}',
        '"\\ud83d\\ude00"',
        '"-0"',
        '"1e5"',
        '"\\\\u0000"',
        DIGITS,
        "0." + "0" * 16382 + "1",
        "12345678901234567890.120",
        '[" -0 ", "[1e5"]',
    ],
)
def test_what_jsonb_keeps_is_no_problem(text: str) -> None:
    assert jsonb_problem(text) is None
    assert jsonb_problem(text + " " * 100) is None


@pytest.mark.parametrize("depth", [10, 254, 255, 300, 500, 1024, 1025, 5000, 200_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_never_crashes(depth: int, opening: str, closing: str) -> None:
    text = opening * depth + "1" + closing * depth
    assert canonical(text) in (None, text.encode())
    assert jsonb_problem(text) in (None, "not valid JSON")
    if depth <= 500:
        assert canonical(text) == text.encode()
        assert jsonb_problem(text) is None


def test_a_number_beyond_all_bounds_is_a_value_like_any_other() -> None:
    huge = "1e1000000000000000000"
    assert canonical(huge) is not None
    assert canonical(huge) == canonical(f" {huge} ")
    assert canonical(huge) != canonical("1e1000000000000000001")
