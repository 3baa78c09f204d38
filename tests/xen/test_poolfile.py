"""The pool file: what it says, every mistake by its key, and no secret in any word."""

import os
from pathlib import Path

import pytest

from transfer.errors import SettingsError
from xen import poolfile
from xen.observed import GIB

GOOD = """
cluster = "radiology"
administrator = "administrator.json"
[xenapi]
coordinator = "https://xen-1.example.org"
password_file = "password"
[nodes]
count = 30
template = "node image"
storage = "shared"
network = "storage network"
[addresses]
domain = "nodes.example.org"
"""


def load(tmp_path: Path, text: str = GOOD, *changes: tuple[str, str]) -> poolfile.PoolFile:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "pool.toml"
    path.write_text(text)
    return poolfile.load(path, {})


def test_the_paper_s_shape_is_what_is_meant_without_a_word(tmp_path: Path) -> None:
    wanted = load(tmp_path).wanted()
    assert (wanted.count, wanted.vcpus, wanted.memory_bytes, wanted.disk_bytes) == (30, 1, GIB, 3 * GIB)
    assert wanted.name(7) == "node-07"


def test_the_example_is_what_it_says() -> None:
    example = poolfile.load(Path(__file__).parents[2] / "examples/pool.toml", {})
    assert (example.wanted().count, example.back_end, example.host(3)) == (30, "xenapi", "node-03.nodes.example.org")
    usual = poolfile.WatchTable()
    assert example.watch == usual
    assert (example.growth.count_max, example.growth.free_share_min) == (0, poolfile.GrowthTable().free_share_min)


def test_nodes_are_reached_by_name_or_by_address(tmp_path: Path) -> None:
    named = load(tmp_path)
    assert (named.host(7), named.address(7)) == ("node-07.nodes.example.org", "")
    numbered = load(tmp_path, GOOD, ('domain = "nodes.example.org"', 'first = "10.1.0.11/24"\nrouter = "10.1.0.1"'))
    assert (numbered.host(7), numbered.address(7)) == ("10.1.0.17", "10.1.0.17/24")
    six = load(tmp_path, GOOD, ('domain = "nodes.example.org"', 'first = "fd00::10/64"'))
    assert (six.host(7), six.address(7)) == ("fd00::16", "fd00::16/64")


MISTAKES = [
    ("count = 30", "counts = 30", "unknown key `nodes.counts`; did you mean `count`?"),
    ("count = 30", "count = -1", "$.nodes.count"),
    ("count = 30", 'count = "30"', "$.nodes.count"),
    ("count = 30", "", "required field `count` - at `$.nodes`"),
    ("count = 30", "count = 30\nmemory_mib = 1", "$.nodes.memory_mib"),
    ("count = 30", 'count = 30\nprefix = "Node_"', "`nodes.prefix`: 'Node_' is not a name"),
    ("count = 30", 'count = 30\nrevision = "a b"', "$.nodes.revision"),
    ('cluster = "radiology"', 'cluster = ""', "`cluster`: '' is not a name"),
    ('cluster = "radiology"', 'cluster = "radiology"\nclusters = 1', "unknown key `clusters`"),
    ("https://xen-1", "http://xen-1", "`xenapi.coordinator`: 'http://xen-1.example.org' is not https://HOST"),
    ("https://xen-1", "https://root:secret@xen-1", "`xenapi.coordinator`: no user or password in the address"),
    ('password_file = "password"', "", "exactly one of `password_file` and `password_env`"),
    ('password_file = "password"', 'password_file = "a"\npassword_env = "B"', "exactly one of `password_file`"),
    ('password_file = "password"', 'password = "x"', "unknown key `xenapi.password`; did you mean `password_"),
    ("[xenapi]", '[libvirt]\nuris = ["xen:///system"]\n[xenapi]', "exactly one of the tables"),
    ('domain = "nodes.example.org"', "", "`addresses`: say `domain`"),
    ('domain = "nodes.example.org"', 'domain = "nodes..$"', "`addresses.domain`"),
    ('domain = "nodes.example.org"', 'first = "10.1.0.300/24"', "`addresses.first`"),
    ('domain = "nodes.example.org"', 'first = "10.1.0.240/24"', "`addresses.first`: 30 nodes from 10.1.0.240 on go"),
    ('domain = "nodes.example.org"', 'first = "10.1.0.1/24"\nrouter = "x"', "`addresses.router`"),
    ('domain = "nodes.example.org"', 'domain = "a.b"\n[spread]\nper_host_max = -1', "$.spread.per_host_max"),
    ('domain = "nodes.example.org"', 'domain = "a.b"\n[watch]\ngrace_s = 0', "$.watch.grace_s"),
    ("[nodes]", "[growth]\ncount_max = 29\n[nodes]", "`growth.count_max`: 29 is fewer than the 30 of `nodes.count`"),
    ("[nodes]", "[growth]\ncount_max = -1\n[nodes]", "$.growth.count_max"),
    ("[nodes]", "[growth]\ncount_max = 10_000\n[nodes]", "$.growth.count_max"),
    ("[nodes]", "[growth]\nfree_share_min = 0\n[nodes]", "$.growth.free_share_min"),
    ("[nodes]", "[growth]\nfree_share_min = 1.0\n[nodes]", "$.growth.free_share_min"),
    ("[nodes]", "[growth]\nfree_share_min = 15\n[nodes]", "$.growth.free_share_min"),
    ("[nodes]", "[growth]\nfree_share = 0.1\n[nodes]", "`growth.free_share`; did you mean `free_share_min`?"),
    ("[nodes]", "[nodes", "not valid TOML"),
]


@pytest.mark.parametrize(("old", "new", "said"), MISTAKES, ids=[each[1][:40].strip() or each[0] for each in MISTAKES])
def test_a_mistake_is_named_with_its_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, GOOD, (old, new))
    assert said in caught.value.message
    assert "pool.toml" in caught.value.message
    assert "secret" not in caught.value.message


def test_all_nodes_that_there_may_be_must_have_addresses(tmp_path: Path) -> None:
    few = ('domain = "nodes.example.org"', 'first = "10.1.0.200/24"')
    assert load(tmp_path, GOOD, few).address(30) == "10.1.0.229/24"
    with pytest.raises(SettingsError, match=r"`addresses.first`: 60 nodes from 10.1.0.200 on go beyond"):
        load(tmp_path, GOOD, few, ("[nodes]", "[growth]\ncount_max = 60\n[nodes]"))


def test_a_number_beyond_the_maximum_is_refused(tmp_path: Path) -> None:
    file = load(tmp_path, GOOD, ("[nodes]", "[growth]\ncount_max = 40\n[nodes]"))
    assert poolfile.with_count(file, 40, tmp_path).nodes.count == 40
    with pytest.raises(SettingsError, match=r"`growth.count_max`: 40 is fewer than the 41 of `nodes.count`"):
        poolfile.with_count(file, 41, tmp_path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the configuration"):
        poolfile.load(tmp_path / "pool.toml", {})


def password(tmp_path: Path, **environment: str) -> str:
    table = load(tmp_path).xenapi
    assert table is not None
    return poolfile.password(table, tmp_path, environment)


def test_a_node_that_replaces_another_gets_no_address_beyond_the_network(tmp_path: Path) -> None:
    named = 'domain = "nodes.example.org"'
    tight = load(tmp_path, GOOD, (named, 'first = "10.1.0.225/24"'))
    assert tight.address(30) == "10.1.0.254/24"
    with pytest.raises(
        SettingsError, match=r"`addresses.first`: node 31 from 10.1.0.225 on would be beyond 10.1.0.0/24"
    ):
        tight.address(31)
    with pytest.raises(SettingsError, match="node 31"):
        tight.host(31)
    with pytest.raises(SettingsError, match="go beyond"):
        load(tmp_path, GOOD, (named, 'first = "10.1.0.226/24"'))  # node 30 would be the broadcast address
    assert load(tmp_path, GOOD, (named, 'first = "fd00::ffe2/112"')).address(30) == "fd00::ffff/112"


def test_the_password_is_the_file_s_first_line_whole(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("two words \n")
    (tmp_path / "password").chmod(0o600)
    assert password(tmp_path) == "two words "


def test_a_password_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hush")
    (tmp_path / "password").chmod(0o640)
    with pytest.raises(SettingsError, match=r"`xenapi.password_file`: .*can be read by others; chmod 600") as caught:
        password(tmp_path)
    assert "hush" not in caught.value.message


def test_no_password(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"`xenapi.password_file`: .*cannot be read"):
        password(tmp_path)
    os.close(os.open(tmp_path / "password", os.O_CREAT, 0o600))
    with pytest.raises(SettingsError, match="is empty"):
        password(tmp_path)


def test_a_password_of_the_environment(tmp_path: Path) -> None:
    table = load(tmp_path, GOOD, ('password_file = "password"', 'password_env = "XEN_PASSWORD"')).xenapi
    assert table is not None
    assert poolfile.password(table, tmp_path, {"XEN_PASSWORD": "hush"}) == "hush"
    with pytest.raises(SettingsError, match=r"`xenapi.password_env`: the variable XEN_PASSWORD is not set"):
        poolfile.password(table, tmp_path, {})
