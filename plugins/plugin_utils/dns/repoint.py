# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pointing a herd's name at another server: the door to this package. Private to the collection; controller only.

- `Updater.from_params(params)`: parameters as in DNS_ARGUMENT_SPEC.
- `updater.probe("db.example.com", "nyc-db1.example.com")`: all facts and whether it would work; does not raise.
- `updater.prepare("db.example.com", "nyc-db1.example.com", expected="chi-db1.example.com")`, and of what it returns:
  `rehearse()` proves key, policy and prerequisites and changes nothing; `send()` is one datagram there and back;
  `read_back(wait_s=10)` asks every authoritative server directly; `result()` is plain data.
"""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.change import Change, Wish, decide
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.library import dns, require_dnspython
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.names import alias_target, parse_name, show_name
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.options import Options
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.prepared import Prepared
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.servers import addresses, authoritative, poll
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.wire import Address, NoAnswer, ask
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.zone import Reading, find_zone, question, read


class Updater:
    """Speaks with the update servers of `options`. Holds no connection; may be used for many records."""

    def __init__(self, options: Options) -> None:
        require_dnspython()
        self.options = options

    @classmethod
    def from_params(cls, params: dict[str, Any]) -> Updater:
        """From module parameters as in DNS_ARGUMENT_SPEC. Raises OperatorError as `Options.from_params`."""
        require_dnspython()
        return cls(Options.from_params(params))

    def probe(self, record: str, value: str | None = None, **wish: Any) -> dict[str, Any]:
        """What stands there, on every authoritative server, and whether a repoint would be accepted. Changes nothing.

        record, value: as for `prepare`, which takes `wish` too; without a value the present one stands for it.
        Returns {"record", "zone", "type", "values", "ttl" (seconds), "servers": [{"server", "address", "type",
        "values", "ttl", "error", "reason"}], "update_server" (host as given), "key_ok": bool, "error": code or None,
        "reason", "next_step", "warnings"}. What DNS or the key does wrong is in error/reason; it is not raised.
        """
        facts: dict[str, Any] = {
            "record": record,
            "zone": None,
            "type": None,
            "values": [],
            "ttl": None,
            "servers": [],
            "update_server": None,
            "key_ok": False,
            "error": None,
            "reason": "",
            "next_step": "",
            "warnings": list(self.options.warnings),
        }
        try:
            server, name, zone, now = self._locate(record)
            facts.update(record=show_name(name), zone=show_name(zone), update_server=server.host, **now.as_record())
            groups = authoritative(self.options, server, zone)
            readings = poll(self.options, groups, name, lambda _reading: True, 0.0)
            facts["servers"] = [each.as_result() for each in readings]
            if value is None and now.values:
                value, wish["allow_multiple"] = now.values[0], True
            change = decide(name, zone, now, Wish(value=value or "", **wish))
            # Also where nothing is to be changed now: the question is whether the key would work.
            Prepared(self.options, server, change, now).rehearse()
            facts["key_ok"] = True
            self._check_target(server, change)
        except OperatorError as error:
            facts.update(error=error.code, reason=error.reason, next_step=error.next_step)
        return facts

    def prepare(self, record: str, value: str, **wish: Any) -> Prepared:
        """Look and decide, so that only the sending remains. Talks to the update server only.

        record: full name, or a single label inside the option zone. value: host name for a CNAME, else an address.
        wish: type ("auto", "CNAME", "A", "AAAA"), expected (None, "absent", a value or a list of them), ttl (seconds),
        allow_type_change, allow_multiple; see `decide` for what is refused with which code.
        Raises OperatorError, also DNS_UNREACHABLE, DNS_NOT_AUTHORITATIVE, DNS_TARGET_ABSENT.
        """
        started = time.monotonic()
        server, name, zone, now = self._locate(record)
        change = decide(name, zone, now, Wish(value=value, **wish))
        if change.needed:
            self._check_target(server, change)
        prepared = Prepared(self.options, server, change, now)
        prepared.took["prepare_s"] = round(time.monotonic() - started, 4)
        return prepared

    def repoint(
        self, record: str, value: str, wait_s: float = 10.0, require_all: bool = False, **wish: Any
    ) -> dict[str, Any]:
        """prepare, send and read_back in one; returns `Prepared.result()`. Raises OperatorError as they do."""
        prepared = self.prepare(record, value, **wish)
        prepared.send()
        prepared.read_back(wait_s, require_all)
        return prepared.result()

    def _locate(self, record: str) -> tuple[Address, dns.name.Name, dns.name.Name, Reading]:
        """The first update server that answers, the record's name and zone on it, and what stands there."""
        # With the final dot, because a zone may be a single label.
        given = parse_name(f"{self.options.zone.rstrip('.')}.") if self.options.zone else None
        name = parse_name(record, given)
        if given is not None and not name.is_subdomain(given):
            raise OperatorError("DNS_NOT_IN_ZONE", f"{show_name(name)} is not inside the zone {show_name(given)}")
        failures = []
        for host in self.options.servers:
            try:
                for server in addresses(self.options, host):
                    try:
                        zone = find_zone(server, name, self.options.timeout)
                        now = read(server, name, self.options.timeout)
                    except NoAnswer as failure:
                        failures.append(failure.reason)
                        continue
                    _check_place(server, name, zone, given, now)
                    return server, name, zone, now
            except NoAnswer as failure:
                failures.append(failure.reason)
        raise OperatorError(
            "DNS_UNREACHABLE",
            f"no DNS update server answers: {'; '.join(failures)}",
            "check the server's address and port, and that UDP and TCP get there",
            {"servers": list(self.options.servers), "may_have_been_applied": False},
        )

    def _check_target(self, server: Address, change: Change) -> None:
        """Refuse an alias to a name that its own zone says does not exist: every client would be cut off."""
        target = alias_target(change.after[0])
        if target is None or not target.is_subdomain(change.zone):
            return
        try:
            answer = ask(question(target, "A"), server, self.options.timeout)
        except NoAnswer:
            return  # it answered a moment ago; the sending will tell
        if answer.rcode() == dns.rcode.NXDOMAIN and answer.flags & dns.flags.AA:
            raise OperatorError(
                "DNS_TARGET_ABSENT",
                f"{show_name(change.name)} would be an alias of {show_name(target)}, which does not exist",
                "correct the value, or make that name first",
            )


def _check_place(
    server: Address, name: dns.name.Name, zone: dns.name.Name, given: dns.name.Name | None, now: Reading
) -> None:
    if given is not None and zone != given:
        raise OperatorError(
            "DNS_NOT_IN_ZONE",
            f"{show_name(name)} is in the zone {show_name(zone)} on {server}, not in {show_name(given)}",
            "correct zone, or leave it out",
        )
    if now.error:
        raise OperatorError(now.error, now.reason, "look into the DNS server's log")
