# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read from the registry is data: no ansible-core may take it for a template. Private to the collection.

Before ansible-core 2.19 every string of an inventory is a template unless it is marked unsafe; from 2.19 on none is
unless it is marked trusted, and `ansible-inventory --list` writes what is not trusted as `{"__ansible_unsafe": …}`,
which readers of that JSON take for a mapping. So on both sides a string that cannot be a template stays a plain string
everywhere, and one that could be is inert everywhere: here, in the JSON, and in an inventory script that prints it.
"""

from __future__ import annotations

import typing as t

from ansible.utils.unsafe_proxy import wrap_var

try:
    from ansible.template import trust_as_template as _plain
except ImportError:  # ansible-core before 2.19: a plain string is what it is

    def _plain(value: t.Any) -> t.Any:
        return value


# Jinja's own delimiters all hold a brace. A string may also bring its own delimiters along, in a first line that starts
# with this header (ansible.builtin.template): then it needs no brace at all.
OVERRIDE_HEADER = "#jinja2:"


def could_be_template(text: str) -> bool:
    """Whether any supported ansible-core would look for a template in this string."""
    return "{" in text or text.startswith(OVERRIDE_HEADER)


class Marker:
    """Marks values so that they stay data. One marker serves one reading: equal strings are marked once and shared."""

    def __init__(self) -> None:
        self._known: dict[str, t.Any] = {}

    def text(self, value: str) -> t.Any:
        """The marked string."""
        marked = self._known.get(value)
        if marked is None:
            marked = wrap_var(value) if could_be_template(value) else _plain(value)
            self._known[value] = marked
        return marked

    def data(self, value: t.Any) -> t.Any:
        """The marked value: strings at any depth of lists and dictionaries (keys too); anything else as it is."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {(self.text(k) if could_be_template(k) else k): self.data(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.data(item) for item in value]
        return value
