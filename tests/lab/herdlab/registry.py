# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's registry server: a PostgreSQL with an empty database admin and an operator's role."""

from __future__ import annotations

from . import hosts, postgres
from .plan import Plan
from .state import State

HOST = "lab-registry"
DATA = "/var/lib/postgresql/registry"
DATABASE = "admin"
OPERATOR = "herd_operator"


def create(state: State, plan: Plan, password: str) -> None:
    """Initialise the registry and start it. The operator may create roles (the schema brings some) and owns admin."""
    host = plan.host(HOST)
    postgres.initialise(
        state,
        host,
        DATA,
        "postgres",
        "listen_addresses = '*'\nshared_buffers = 16MB\nhuge_pages = off\n",
        f"host {DATABASE} all 0.0.0.0/0 scram-sha-256\nhost {DATABASE} all ::/0 scram-sha-256\n",
        [
            f"CREATE ROLE {OPERATOR} LOGIN CREATEROLE PASSWORD '{password}'",
            f"CREATE DATABASE {DATABASE} OWNER {OPERATOR}",
        ],
    )
    start(plan)


def dsn(plan: Plan) -> str:
    """How the operator reaches the registry; the password is in a file of its own."""
    return f"host={plan.registry} port=5432 dbname={DATABASE} user={OPERATOR}"


def start(plan: Plan) -> None:
    """Start the registry's PostgreSQL."""
    postgres.start_plain(plan.host(HOST), DATA, "postgres", "/var/log/postgresql/registry.log")


def stop(plan: Plan) -> None:
    """Stop the registry's PostgreSQL; its host stays, so that it refuses connections at once."""
    program = postgres.postgres()[1] / "pg_ctl"
    hosts.execute(plan.host(HOST), [str(program), "-D", DATA, "-s", "-m", "fast", "-w", "stop"], "postgres")
