# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets for the tests of fleets and records: one, and any."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st


def document() -> dict[str, Any]:
    return {
        "environments": {"prod": {"protected": True}, "stage": {}},
        "datacenters": {"chicago": {"networks": ["10.10.0.0/16"]}, "annex": {"networks": ["10.10.9.0/24"]}},
        "servers": {
            "chi-db1": {"environment": "prod", "address": "10.10.0.11"},
            "chi-db2": {"environment": "prod", "address": "10.10.9.12"},
            "far-db1": {"environment": "prod", "datacenter": "annex"},
        },
        "herds": [
            {
                "name": "Order-Book",
                "environment": "prod",
                "pgdata": "/srv/pg//main/",
                "members": [{"server": "chi-db1"}, {"server": "chi-db2"}, {"server": "far-db1", "upstream": "chi-db2"}],
            }
        ],
    }


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,8}", fullmatch=True)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Valid fleets: places differ by construction, names by prefix."""
    environments = {f"e{index}": {"protected": draw(st.booleans())} for index in range(draw(st.integers(1, 3)))}
    servers = {
        f"s{index}": {
            "environment": draw(st.sampled_from(sorted(environments))),
            "address": f"10.{draw(st.integers(0, 3))}.0.{index + 1}",
        }
        for index in range(draw(st.integers(1, 5)))
    }
    herds = []
    for index in range(draw(st.integers(0, 3))):
        chosen = draw(st.lists(st.sampled_from(sorted(servers)), min_size=1, unique=True))
        members: list[dict[str, Any]] = []
        for position, server in enumerate(chosen):
            member: dict[str, Any] = {"server": server, "priority": draw(st.integers(0, 3))}
            if position:
                member["upstream"] = draw(st.sampled_from(chosen[:position]))
            if draw(st.booleans()):
                member["pgdata"] = f"/other/{index}"
            members.append(member)
        members[0]["role"] = "primary"
        # The order of a file's members is free once the primary is named.
        members = draw(st.permutations(members))
        herds.append(
            {
                "name": f"h{index}" + draw(NAMES),
                "environment": draw(st.sampled_from(sorted(environments))),
                "port": 5000 + index,
                "pgdata": f"/srv/{index}",
                "description": draw(
                    st.one_of(
                        st.none(),
                        st.text(
                            alphabet=st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1
                        ),
                    )
                ),
                "members": members,
            }
        )
    return {
        "environments": environments,
        "datacenters": {"d1": {"networks": ["10.0.0.0/8"]}, "d2": {"networks": ["10.1.0.0/16", "10.2.0.0/16"]}},
        "servers": servers,
        "herds": herds,
    }
