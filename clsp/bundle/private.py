"""What must not stand in a bundle: names and folders of this machine, and secrets of any kind.

Two kinds are looked for. Words of this machine, such as the user's name, are known literally. Paths
and secrets of other machines are known by their form, as the formats of common services have it.
"""

import getpass
import os
import pwd
import re
import socket
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from clsp.runtime.digest import ROOT
from clsp.runtime.places import ROOTS

# Accounts and machines that everybody has tell nothing.
GENERIC = frozenset(
    re.findall(
        r"\S+",
        """
    root user users admin administrator ubuntu debian fedora centos ec2-user runner docker vagrant
    jovyan nobody guest test home local localhost localdomain container builder worker default host
    server node linux
""",
    )
)
SHORTEST = 4  # letters of a word that can be told from chance
LONGEST = 2048  # bytes that a form may take, in the widest letters; blocks overlap by so many


@dataclass(frozen=True)
class Form:
    """Something that is private by its form.

    Attributes:
        what: How a message calls it.
        pattern: Of bytes; its group "value", or all of it, is what is private.
        hint: A word in lower case without which it cannot occur, or nothing.
    """

    what: str
    pattern: re.Pattern[bytes]
    hint: bytes = b""


def _form(what: str, pattern: bytes, hint: bytes = b"", flags: int = 0) -> Form:
    return Form(what, re.compile(pattern, flags), hint)


_BEFORE = rb"(?<![\w.~:/<>)\\-])"  # what stands before a path is no part of a word, address or tag
_ROOTS = "|".join(root for root in ROOTS.split("|") if root not in ("home", "Users")).encode()
# What models call tokens is no secret.
_MODELS = b"".join(rb"(?<!\b%s_)" % name for name in (b"mask", b"cls", b"class", b"patch", b"pad"))
_SECRET = (
    rb"(?<![a-z0-9])(?:passwords?|passwd|passphrase|secrets?|credentials?"
    rb"|(?:access|api|auth|refresh|bearer|id|private|session|account)[_-]?(?:token|key)s?"
    rb"|" + _MODELS + rb"tokens?)"
)
FORMS = (
    _form(
        "a home folder",  # what stands in the address of a page is none
        rb"https?://[^\s\"'<>?#]*"
        rb"|(?P<value>/(?:home|Users)/[\w.+-]+(?=[/\"'\s:;,)\]}<]|$))",
        b"/",
    ),
    _form("a folder of Windows", rb"(?<!\w)[A-Za-z]:\\{1,2}(?:Users|home|Documents)\b[^\s\"]*"),
    _form("an address of a local file", rb"file:/{1,3}[\w.~%-]+/[^\s\"'<>]*", b"file:"),
    _form(
        "an absolute path",
        _BEFORE + rb"/(?:" + _ROOTS + rb"|app)/[\w.+@-]+",
    ),
    _form("an absolute path", rb"(?<=[\"'=])/[\w.+@-]+/[\w.+@ -]+(?:/[\w.+@ -]+)*(?=[\"'])"),
    _form("a key of AWS", rb"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"),
    _form("a token of GitHub", rb"\b(?:gh[pousr]_\w{36,}|github_pat_\w{22,})"),
    _form("a token of GitLab", rb"\bglpat-[\w-]{20,}"),
    _form("a token of Hugging Face", rb"\bhf_[A-Za-z0-9]{30,}"),
    _form("a key of an API", rb"\bsk-(?:[a-z]+-)*[A-Za-z0-9_-]{20,}"),
    _form("a token of Slack", rb"\bxox[abposr]-[\w-]{10,}"),
    _form("a web token", rb"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{5,}"),
    _form("a private key", rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    _form("a password in an address", rb"[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>]+:[^\s/@\"'<>]+@"),
    _form(
        "a secret by its name",
        rb"(?i)" + _SECRET + rb"[\"']?\s*[:=]\s*[\"'](?P<value>[^\"'\s]{6,200})[\"']",
    ),
    _form(
        "a secret by its name",
        rb"(?<!\w)(?:[A-Z0-9]+_)*(?:TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|CREDENTIALS)"
        rb"=(?P<value>[^\s\"'&;]{6,200})",
    ),
)
NO_SECRET = re.compile(
    rb"(?i)(?:none|null|true|false|redacted|\*+|<[^>]*>|\[[^\]]*\]|\$\{?\w+\}?)$"
)


@dataclass(frozen=True)
class Word:
    """A word of this machine.

    Attributes:
        what: How a message calls it.
        text: The word itself.
        whole: Whether letters or digits may not stand beside it.
    """

    what: str
    text: bytes
    whole: bool


def _names_of_user() -> Iterator[str]:
    try:
        yield getpass.getuser()
    except (OSError, KeyError):
        return
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        return
    yield entry.pw_name
    yield entry.pw_gecos.partition(",")[0]
    yield Path(entry.pw_dir).name


def _secrets_of_environment() -> Iterator[str]:
    named = re.compile(rb"(?i)(?:^|_)(?:TOKEN|SECRET|PASSW(?:OR)?D|KEY|CREDENTIALS?)$")
    for name, value in os.environb.items():
        if named.search(name) and len(value) >= 8:
            yield os.fsdecode(value)


def words_of_machine(vocabulary: Collection[str]) -> list[Word]:
    """Words that tell of this machine and its user.

    Args:
        vocabulary: Words, in lower case, that the suite and the settings use themselves: a user
            who is called like a dataset cannot be told from it.
    """
    found = {}
    for folder in (Path.home(), Path(os.environ.get("HOME") or "/"), Path.cwd(), ROOT):
        for path in {str(folder), str(folder.resolve())}:
            if path.count("/") > 1 or path == "/root":
                found[path] = ("a folder of this machine", path == "/root")
    if (temporary := tempfile.gettempdir()).count("/") > 1:
        found[temporary] = ("a folder of this machine", False)
    host = socket.gethostname()
    machine = [(name, "the name of this machine") for name in {host, host.partition(".")[0]}]
    people = [(name, "the name of the user") for name in {*_names_of_user()}]
    for name, what in machine + people:
        plain = name.strip().lower()
        known = plain in GENERIC or plain in vocabulary or plain.isdigit()
        if len(plain) >= SHORTEST and not known:
            found[name.strip()] = (what, True)
    for value in _secrets_of_environment():
        found[value] = ("a secret of the environment", False)
    return [Word(what, os.fsencode(text), whole) for text, (what, whole) in sorted(found.items())]
