"""Keys that a server accepts: one reader of the header for every server."""

import pytest

from lensmith.hosting.keys import ApiKeys

NAMED = ApiKeys({"sk-a": "ann", "schlüssel": "bob", "": "nobody"})


@pytest.mark.parametrize(
    ("header", "owner"),
    [
        ("Bearer sk-a", "ann"),
        ("bearer  sk-a ", "ann"),
        ("Bearer " + "schlüssel".encode().decode("latin-1"), "bob"),  # as web frameworks read UTF-8
        ("Bearer sk-b", None),
        ("Bearer sk-a sk-a", None),
        ("Bearer ", None),
        ("Bearer", None),
        ("Basic sk-a", None),
        ("sk-a", None),
        ("Bearer \u20ac", None),
        ("", None),
        (None, None),
    ],
)
def test_the_owner_of_a_key(header, owner):
    assert NAMED.owner(header) == owner
    assert NAMED.accepts(header) == (owner is not None)


@pytest.mark.parametrize("keys", [(), {}, ("",)])
def test_without_keys_everybody_is_accepted_and_nobody_is_known(keys):
    open_to_all = ApiKeys(keys)
    assert not open_to_all
    assert open_to_all.accepts(None)
    assert open_to_all.owner("Bearer sk-a") is None


def test_a_key_without_a_name_is_its_own():
    assert ApiKeys(["sk-a", "sk-b"]).owner("Bearer sk-b") == "sk-b"
