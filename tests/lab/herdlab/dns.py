# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's DNS: BIND twice, a primary that takes signed updates and a secondary that follows by NOTIFY and transfer.

Both also serve an empty root zone, so that a name outside the lab gets "no such name" at once, not a time-out:
a reverse look-up that hangs would hang sshd and psql with it.
"""

from __future__ import annotations

import base64
import os
import secrets
import time
from pathlib import Path

from . import accounts, hosts
from .errors import LabError
from .plan import OWN_ZONE, Plan
from .programs import path_of, run
from .state import State

KEY_NAME = "herd-key"
TTL = 10
_OPTIONS = """\
options {{
    directory "/var/cache/bind";
    pid-file "/run/named/named.pid";
    session-keyfile "/run/named/session.key";
    listen-on {{ any; }};
    listen-on-v6 {{ any; }};
    recursion no;
    dnssec-validation no;
    empty-zones-enable no;
    check-names primary ignore;
    check-names secondary ignore;
    allow-query {{ any; }};
    allow-transfer {{ any; }};
    notify explicit;
    also-notify {{ {notify} }};
    notify-delay 0;
    min-refresh-time 1;
    min-retry-time 1;
    serial-query-rate 1000;
    startup-notify-rate 1000;
    transfers-in 100;
    transfers-per-ns 100;
}};
controls {{ }};
"""


def write_keys(folder: Path) -> None:
    """The key that may change the zones, and one that looks the same and may not."""
    for name in ("tsig.key", "wrong-tsig.key"):
        secret = base64.b64encode(secrets.token_bytes(32)).decode()
        path = folder / name
        path.touch(mode=0o600)
        path.write_text(
            f'key "{KEY_NAME}" {{\n    algorithm hmac-sha256;\n    secret "{secret}";\n}};\n', encoding="utf-8"
        )


def prepare(state: State, plan: Plan) -> None:
    """Write both servers' configuration and the primary's zones."""
    uid, gid, _home = accounts.identity(state, "bind")
    key = (state.controller / "tsig.key").read_text(encoding="utf-8")
    primary, secondary = plan.dns
    for number in (1, 2):
        folder = hosts.storage(state, f"lab-dns{number}", "/etc/bind")
        config = key + _OPTIONS.format(notify=f"{secondary};" if number == 1 else "")
        for zone in [".", *plan.zones]:
            file = f"{'root' if zone == '.' else zone}.db"
            if number == 1:
                update = "" if zone == "." else f'allow-update {{ key "{KEY_NAME}"; }};'
                config += f'zone "{zone}" {{ type primary; file "{file}"; {update} }};\n'
            else:
                config += f'zone "{zone}" {{ type secondary; file "{file}"; primaries {{ {primary}; }}; }};\n'
        path = folder / "named.conf"
        path.touch(mode=0o640)
        path.write_text(config, encoding="utf-8")
        os.chown(path, 0, gid)
    zones = hosts.storage(state, "lab-dns1", "/var/cache/bind")
    for zone, records in {".": [], **plan.zones}.items():
        path = zones / f"{'root' if zone == '.' else zone}.db"
        path.write_text(_zone(records), encoding="utf-8")
        os.chown(path, uid, gid)


def _zone(records: list[tuple[str, str, str]]) -> str:
    lines = [
        f"$TTL {TTL}",
        # refresh 5 s: a secondary that missed a NOTIFY (it was off, or cut off) catches up soon
        f"@ SOA lab-dns1.{OWN_ZONE}. hostmaster.{OWN_ZONE}. 1 5 2 86400 1",
        *(f"@ NS lab-dns{number}.{OWN_ZONE}." for number in (1, 2)),
        *(f"{name}. {kind} {value}" for name, kind, value in records),
    ]
    return "\n".join(lines) + "\n"


def start(plan: Plan, number: int) -> None:
    """Start one of the two servers; returns when it answers."""
    host = plan.host(f"lab-dns{number}")
    log = "/var/cache/bind/named.log"
    hosts.execute(host, [path_of("named"), "-u", "bind", "-n", "1", "-c", "/etc/bind/named.conf", "-L", log])


def stop(plan: Plan, number: int) -> None:
    """End one of the two servers; its host stays, so that it refuses connections at once."""
    host = plan.host(f"lab-dns{number}")
    pid = hosts.execute(host, ["cat", "/run/named/named.pid"]).strip()
    hosts.execute(host, ["kill", pid])
    deadline = time.monotonic() + 10
    # named removes its pid file as the last thing it does.
    while hosts.execute(host, ["ls", "/run/named"]).find("named.pid") >= 0:
        if time.monotonic() > deadline:
            raise LabError(f"named on {host.name} does not end")
        time.sleep(0.05)


def ask(plan: Plan, name: str, kind: str, server: int | None = None) -> str:
    """What the lab's DNS answers, one value a line; nothing when there is no such record."""
    address = plan.dns[(server or 1) - 1]
    try:
        return run([path_of("dig"), "+short", "+time=1", "+tries=2", f"@{address}", "-q", name, "-t", kind])
    except LabError:
        raise LabError(f"the lab's DNS server {address} does not answer") from None
