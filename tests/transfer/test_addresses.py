"""Addresses: what is written is what is read, and what is none is named in the error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.addresses import Address, parse
from transfer.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8443", Address("127.0.0.1", 8443)),
        ("node-1.example:0", Address("node-1.example", 0)),
        ("[::1]:65535", Address("::1", 65535)),
        ("[fe80::1%eth0]:80", Address("fe80::1%eth0", 80)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse(text) == address
    assert str(address) == text


@given(st.one_of(st.ip_addresses().map(str), st.from_regex(r"[a-z0-9.-]{1,60}", fullmatch=True)), st.integers(0, 65535))
def test_what_is_written_is_what_is_read(host: str, port: int) -> None:
    assert parse(str(Address(host, port))) == Address(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":80",
        "host",
        "host:",
        "host:x",
        "host:-1",
        "host:65536",
        "host:80 ",
        "host:8.0",
        "host:99999999999",
        "::1",
        "[]:80",
        "host:²",
        "a:b:80",
        "host:000080",
        "[::1:80",
        "::1]:80",
    ],
)
def test_what_is_no_address_is_named_in_the_error(text: str) -> None:
    with pytest.raises(SettingsError, match="is not an address; write host:port") as refused:
        parse(text)
    assert f"`{text}`" in refused.value.message
