# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleet files of any size, for measurements."""

from __future__ import annotations

from typing import Any

DATACENTERS = ("chicago", "newyork", "london")


def fleet(herds: int, members: int, per_server: int = 1) -> dict[str, Any]:
    """A fleet document: herds with that many members each, over three data centers.

    per_server instances share a server (and differ in port). A herd's members stand in data centers one after the
    other, its primary in the one of its number, so that each data center has a third of the primaries.
    """
    document: dict[str, Any] = {
        "environments": {"prod": {"protected": True}},
        "datacenters": {
            name: {"networks": [f"10.{number}0.0.0/16"]} for number, name in enumerate(DATACENTERS, start=1)
        },
        "servers": {},
        "herds": [],
    }
    for herd in range(herds):
        place, slot = divmod(herd, per_server)
        names = []
        for member in range(members):
            datacenter = (place + member) % len(DATACENTERS)
            name = f"{DATACENTERS[datacenter][:3]}-db{place * members + member + 1:03d}"
            number = place * members + member
            address = f"10.{datacenter + 1}0.{number // 200}.{number % 200 + 11}"
            document["servers"].setdefault(name, {"environment": "prod", "address": address})
            names.append(name)
        document["herds"].append(
            {
                "name": f"herd{herd + 1:03d}",
                "environment": "prod",
                "port": 5432 + slot,
                "pgdata": f"/var/lib/postgresql/15/herd{herd + 1:03d}",
                "vhost": f"herd{herd + 1:03d}-db.prod.example.com",
                "members": [{"server": name} for name in names],
            }
        )
    return document
