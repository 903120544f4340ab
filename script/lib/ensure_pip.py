# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands where ansible-test keeps its downloaded pip installer, and does the same with the pip that Python carries.

Called as the installer is: requirements such as ``pip==24.2``, then ``--no-setuptools`` and ``--no-wheel``.
"""

from __future__ import annotations

import ensurepip
import subprocess
import sys

ensurepip.bootstrap()
requirements = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", "--quiet", *requirements]))
