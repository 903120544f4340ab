# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where `lab` enters Python: this folder is on the path then, so that the lab's package is found."""

from __future__ import annotations

import sys

from herdlab.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
