# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn what ``pip config list`` prints into one configuration file with the same effect.

Reads lines such as ``global.cert='/etc/ssl/…'`` and ``:env:.timeout='60'``, lowest precedence first as pip prints
them, and writes INI text.
"""

from __future__ import annotations

import ast
import configparser
import sys

settings = configparser.RawConfigParser()
for line in sys.stdin:
    name, separator, value = line.strip().partition("=")
    section, _dot, key = name.rpartition(".")
    if not separator or key == "config-file":
        continue
    section = "global" if section in (":env:", "global") else section
    if not settings.has_section(section):
        settings.add_section(section)
    settings.set(section, key, ast.literal_eval(value).replace("\n", "\n  "))
settings.write(sys.stdout)
