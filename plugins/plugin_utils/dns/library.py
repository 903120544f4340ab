# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that imports dnspython. Private to the collection; controller only."""

from __future__ import annotations

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError

try:
    import dns.exception
    import dns.flags
    import dns.message
    import dns.name
    import dns.opcode
    import dns.rcode
    import dns.rdata
    import dns.rdataclass
    import dns.rdatatype
    import dns.rrset
    import dns.tsig
    import dns.update
except ImportError:
    dns = None  # type: ignore[assignment]
    HAS_DNSPYTHON = False
else:
    HAS_DNSPYTHON = True


def require_dnspython() -> None:
    """Raise DNS_MISSING_LIBRARY where dnspython cannot be imported."""
    if not HAS_DNSPYTHON:
        raise OperatorError(
            "DNS_MISSING_LIBRARY",
            "the Python that runs Ansible has no dnspython 2.3 or newer",
            "install dnspython for the controller's Python (it is in the collection's requirements)",
        )


__all__ = ["HAS_DNSPYTHON", "dns", "require_dnspython"]
