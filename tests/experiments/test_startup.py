"""What is read from the command line before anything starts."""

import pytest

from experiments.flags.environments import env_kwargs


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("False", False),
        ("true", True),
        ("None", None),
        ("null", None),
        ("0.5", 0.5),
        ("-3", -3),
        ("1e3", 1000.0),
        ("'text'", "text"),
        ('"text"', "text"),
        ("'5'", "5"),
        ("text", "text"),
        ("007", "007"),
        ("", ""),
        ("(1, 2.5)", [1, 2.5]),
        ("[true, null]", [True, None]),
        ("{'a': (1,)}", {"a": [1]}),
        ("{1, 2}", "{1, 2}"),
        ("b'x'", "b'x'"),
        ("{1: 2}", "{1: 2}"),
        ("a=b", "a=b"),
        ("NaN", "NaN"),
        ("1e999", "1e999"),
        ("[" * 2000, "[" * 2000),
        ("__import__('os')", "__import__('os')"),
    ],
)
def test_values_are_pythons_or_json_or_text(text, value):
    found = env_kwargs([f"name={text}"])
    assert found == {"name": value}
    assert type(found["name"]) is type(value)
