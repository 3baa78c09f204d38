"""Where Debian's packages come from: what this machine's own apt is configured with, so that no host is written here.

Refuses to do: choosing mirrors; fetching.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from transfer.errors import SettingsError
from xen.image import programs

KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
FORMAT: Final = "$(REPO_URI)|$(CODENAME)|$(COMPONENT)|$(ORIGIN)"


class Source(msgspec.Struct, frozen=True):
    """One repository: its address, suite and component."""

    uri: str
    suite: str
    component: str

    def line(self) -> str:
        """Return it as a line of sources.list."""
        return f"deb [signed-by={KEYRING}] {self.uri} {self.suite} {self.component}"


def configured() -> list[Source]:
    """Return Debian's repositories that this machine's apt has package lists of.

    Raises:
        SettingsError: there is none, or no apt.
    """
    found = parse(programs.call("apt-get", "indextargets", "--format", FORMAT, "Identifier: Packages"))
    if not found:
        raise SettingsError("apt has no package lists of Debian here: configure its mirror and run apt-get update")
    return found


def parse(text: str) -> list[Source]:
    """Return the repositories in what apt lists; others' than Debian's are left out, and what is listed twice once."""
    rows = [line.split("|") for line in text.splitlines()]
    found = [Source(*row[:3]) for row in rows if len(row) == 4 and row[3] == "Debian" and row[2] == "main"]
    return list(dict.fromkeys(found))


def base(sources: Sequence[Source], suite: str) -> Source:
    """Return the repository that the suite itself is in.

    Raises:
        SettingsError: this machine's apt knows no such suite.
    """
    for source in sources:
        if source.suite == suite:
            return source
    known = ", ".join(sorted({source.suite for source in sources}))
    raise SettingsError(f"apt has no package lists of the suite {suite} here; it has: {known}")


def of_suite(sources: Sequence[Source], suite: str) -> list[Source]:
    """Return the suite's own repositories: it, its updates and its security updates."""
    return [source for source in sources if source.suite in {suite, f"{suite}-updates", f"{suite}-security"}]
