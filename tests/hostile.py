# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text that nobody should ever write into a registry, the same for the same seed.

Each text that some interpreter could run (Jinja, a shell, ssh) would create the canary, a file: as long as it is not
there, nothing was run.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

SEED = 20_030_607

_RUNS = (
    # Jinja, with every delimiter, and with delimiters that the text brings along.
    "{{ lookup('ansible.builtin.pipe', 'touch CANARY') }}",
    "{{ query('pipe', 'touch CANARY') | first }}",
    "{{ lookup('pipe', \"touch CANARY\") }}{# comment #}",
    "{% set x = lookup('pipe', 'touch CANARY') %}x",
    "{% for x in [lookup('pipe', 'touch CANARY')] %}{{ x }}{% endfor %}",
    "{%- include 'CANARY' -%}",
    "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
    "#jinja2: variable_start_string:'[[', variable_end_string:']]'\n[[ lookup('pipe', 'touch CANARY') ]]",
    "#jinja2:block_start_string:'[%',block_end_string:'%]'\n[% set x = lookup('pipe', 'touch CANARY') %]",
    "{{ ''.join(['{', '{ lookup(\"pipe\", \"touch CANARY\") }', '}']) }}",
    "!unsafe {{ lookup('pipe', 'touch CANARY') }}",
    "{\"__ansible_unsafe\": \"{{ lookup('pipe', 'touch CANARY') }}\"}",
    "{'__ansible_unsafe': '{{ lookup(\"pipe\", \"touch CANARY\") }}'}",
    '{"__ansible_vault": "$ANSIBLE_VAULT;1.1;AES256\\n6162"}',
    "[{{ lookup('pipe', 'touch CANARY') }}]",
    # Shells, and what is handed to one.
    "$(touch CANARY)",
    "`touch CANARY`",
    "; touch CANARY;",
    "| touch CANARY",
    "|| touch CANARY #",
    "&& touch CANARY",
    "' ; touch CANARY ; '",
    '" ; touch CANARY ; "',
    "\ntouch CANARY\n",
    "\r\ntouch CANARY\r\n",
    "x\\\n; touch CANARY",
    "> CANARY",
    "/srv/$(touch CANARY)/data",
    "/srv/a b'c\"d;touch CANARY;",
    "\\! touch CANARY",
    "'; COPY (SELECT 1) TO PROGRAM 'touch CANARY'; --",
    "() { :;}; touch CANARY",
    # Options of ssh and others.
    "-oProxyCommand=touch CANARY",
    "-oProxyCommand=touch${IFS}CANARY",
    "-o ProxyCommand='touch CANARY' 127.0.0.1",
    "--rsync-path=touch CANARY",
    "x -oProxyCommand=touch\tCANARY",
    "postgres@-oProxyCommand=touch CANARY",
    "127.0.0.1 -oProxyCommand=`touch CANARY`",
    "fe80::1%$(touch CANARY)",
    "fe80::1%-oProxyCommand=touch",
)

_INERT = (
    "",
    " ",
    "\t",
    "{{",
    "}}",
    "{{ undefined_thing.at.all }}",
    "{{ 7 * 191 }}",
    "{#",
    "{%",
    "%}",
    "{{ self }}",
    "{{ hostvars | dict2items }}",
    "{",
    "#jinja2:",
    "#jinja2: nonsense",
    "'",
    '"',
    "\\",
    "''",
    "%s%(x)s%n",
    "\x07\x08\x0c",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x1b[2J\x1b[H",
    "\x9b31m",
    "line\nbreak",
    "carriage\rreturn",
    "\u2028line\u2029paragraph\x85",
    "\u202eevil\u202c",
    "\u2066isolate\u2069",
    "zero\u200bwidth\u200d\ufeff",
    "e\u0301" * 5 + "\u0300\u0301\u0302",
    "\N{ELEPHANT}\N{ELEPHANT}\u200d\N{FIRE}",
    "ünïcødé",
    "\uff41\uff4c\uff4c",
    "\u0661\u0662\u0663",
    "x" * 10_000,
    "{{ x }}" * 1_500,
    "a." * 5_000,
    "null",
    "~",
    "yes",
    "off",
    "0123",
    "0x1F",
    "12e5",
    "1_000",
    ".inf",
    "2025-01-01",
    "!unsafe x",
    "!vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162",
    "$ANSIBLE_VAULT;1.1;AES256\n6162",
    "__ansible_unsafe",
    "__ansible_vault",
    "!!python/object/apply:os.system [id]",
    "&anchor x",
    "*anchor",
    "<<: *x",
    "- item",
    "? key",
    ": value",
    "# comment",
    "@at",
    "`tick",
    "a: b",
    "[1, 2",
    '{"a": [1, 2]}',
    "all",
    "all:!all",
    "ungrouped",
    "localhost",
    "127.0.0.1",
    "::1",
    "leads",
    "instances",
    "env_prod",
    "env_x",
    "dc_chicago",
    "server_x",
    "pg_15",
    "1",
    "-1",
    "65536",
    "99999999999999999999",
    "..",
    "../../etc/passwd",
    "/",
    "/etc/../srv",
    "//srv//x",
    "/srv/$HOME/x",
    "~postgres/x",
    "/srv/*",
    "!x",
    "&x",
    "a:b",
    "a,b",
    "x[0]",
    "x[0:3]",
    "~.*",
    "?",
    "*",
    "@file",
    "x" * 64,
    "x" * 63,
    "-x",
    "x-",
    "_x",
    "x_",
    "x.",
    ".x",
    "a..b",
    "*.example.com",
    "xn--",
    "\\046.example.com",
    "Robert'); DROP TABLE ele_herd; --",
)

NOT_IN_POSTGRESQL = ("nul\x00byte", "\x00", "lone\ud800surrogate", "\udcff")
"""What a YAML or JSON file can hold and a PostgreSQL database in UTF-8 cannot."""

SAFE_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]*")
SAFE_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*")
"""What ssh may be given: one word, and no option. Said here once more, so that the tests do not ask the code."""

_WRAPS = ("{}", "x{}", "{}x", "/srv/{}", "{}.example.com", "db1 {}", "{}\n", " {} ", "'{}'", "10.0.0.1{}", "h_prod@{}")


def seeds(canary: Path) -> list[str]:
    """Every text by itself."""
    return [text.replace("CANARY", str(canary)) for text in (*_RUNS, *_INERT)]


def texts(canary: Path, seed: int = SEED) -> Iterator[str]:
    """Without end: every text by itself first, then in wraps, in pairs, cut, and among noise. All fit into UTF-8."""
    known = seeds(canary)
    yield from known
    chance = random.Random(seed)
    while True:
        text = chance.choice(known)
        way = chance.randrange(4)
        if way == 0:
            text = chance.choice(_WRAPS).replace("{}", text)
        elif way == 1:
            text += chance.choice(known)
        elif way == 2:
            text = text[chance.randrange(len(text) + 1) :] + chance.choice(known)[:40]
        else:
            text = text[:60] + "".join(_character(chance) for _place in range(chance.randrange(1, 12)))
        # Cut or mixed, it may be any text, but never one that PostgreSQL cannot hold.
        yield text.replace("\x00", "")


def _character(chance: random.Random) -> str:
    while True:
        char = chr(
            chance.choice((chance.randrange(1, 0x100), chance.randrange(1, 0x3000), chance.randrange(0x1F000, 0x1FAFF)))
        )
        if unicodedata.category(char) != "Cs":
            return char
