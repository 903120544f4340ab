# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A decided repoint of one record: rehearse it, send it, read it back. Private to the collection; controller only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.change import (
    Change,
    record_changed,
    rehearsal_message,
    update_message,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.library import dns
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.names import show_name, show_values, zone_file_text
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.options import Key, Options
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.servers import addresses, authoritative, poll
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.wire import (
    DATAGRAM_BYTES,
    UDP_SHARE,
    Address,
    NoAnswer,
    ask,
    exchange,
    rcode_error,
)
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.zone import Reading, read


class Prepared:
    """Made by `Updater.prepare`. `send` may be called once; what happened is then in `result()`.

    change: the decision. applied: our update changed the record. confirmed_at: epoch seconds of the server's word.
    """

    def __init__(self, options: Options, server: Address, change: Change, now: Reading) -> None:
        self.options = options
        self.server = server
        self.change = change
        self.now = now
        self.applied = False
        self.confirmed_at: float | None = None
        self.notes: list[str] = []
        self.warnings: list[str] = list(options.warnings)
        self.readings: list[Reading] = []
        self.took: dict[str, float] = {}
        # Whether a sending may have reached a server without an answer that came back.
        self._uncertain = False

    @property
    def _key(self) -> Key:
        if self.options.key is None:
            raise OperatorError(
                "DNS_KEY_MISSING",
                "no TSIG key is given: updates are always signed",
                "set key_name and key_secret, or key_file (or their environment variables)",
            )
        return self.options.key

    def rehearse(self) -> None:
        """Send the update that changes nothing: proves key, policy and prerequisites on the real server.

        What it cannot prove is that the server can write its journal. Raises OperatorError as `send` would.
        """
        message = rehearsal_message(self.change, self._key)
        try:
            answer = ask(message, self.server, self.options.timeout)  # harmless, so `ask` may repeat it by TCP
        except NoAnswer as failure:
            raise OperatorError(
                "DNS_UNREACHABLE",
                f"the DNS server gives no answer to an update: {failure.reason}",
                "check that updates get through to it",
                {"may_have_been_applied": False},
            ) from failure
        error = self._verdict(answer, self.server)
        if error is not None:
            now = self._look_again(self.server)
            raise error if now is None else self._changed(now)

    def send(self) -> bool:
        """Make the change on the update server; True when it was made by us. Nothing is sent when none is needed.

        A lost answer leaves open whether the update was applied, so before anything is sent again (by TCP, or to the
        next server) the record is read: a second sending happens only where the old value still stands, and its
        prerequisites make it harmless if the first one arrives late.
        Raises OperatorError: DNS_KEY_MISSING, DNS_KEY_REFUSED, DNS_CLOCK_SKEW, DNS_RECORD_CHANGED, DNS_NOT_IN_ZONE,
        DNS_SERVER_FAILED, DNS_ANSWER_UNTRUSTED, DNS_UNREACHABLE (evidence may_have_been_applied).
        """
        if not self.change.needed:
            return False
        started = time.monotonic()
        failures: list[str] = []
        try:
            for server in self._servers(failures):
                if self._send_to(server, failures):
                    self.server = server
                    self.confirmed_at = time.time()
                    return self.applied
        finally:
            self.took["send_s"] = round(time.monotonic() - started, 4)
        raise OperatorError(
            "DNS_UNREACHABLE",
            f"no DNS update server confirmed the change of {show_name(self.change.name)}: {'; '.join(failures)}",
            "read the record first: the update may still have been applied. Then run the same command again"
            if self._uncertain
            else "check the server's address and port, and that UDP and TCP get there",
            {"may_have_been_applied": self._uncertain},
        )

    def _servers(self, failures: list[str]) -> Iterator[Address]:
        """The server that was read, then the other ones; their names are looked up only when they are needed."""
        yield self.server
        for host in self.options.servers:
            try:
                yield from (each for each in addresses(self.options, host) if each.ip != self.server.ip)
            except NoAnswer as failure:
                failures.append(failure.reason)

    def _send_to(self, server: Address, failures: list[str]) -> bool:
        """Whether the wanted record now stands on this server; False when it cannot be told or reached."""
        timeout = self.options.timeout
        message = update_message(self.change, self._key)
        protocols = (True,) if len(message.to_wire()) > DATAGRAM_BYTES else (False, True)
        for tcp in protocols:
            if self._uncertain:
                now = self._look_again(server)
                if now is None:
                    failures.append(f"{server}: the record cannot be read back")
                    return False
                if self.change.reached(now):
                    self.applied = True
                    self.notes.append(f"the answer to the update was lost; {server} shows that it was applied")
                    return True
                if not self.change.untouched(now):
                    raise self._changed(now)
            try:
                answer = exchange(message, server, timeout * (1 - UDP_SHARE if tcp else UDP_SHARE), tcp)
            except NoAnswer as failure:
                failures.append(failure.reason)
                self._uncertain = self._uncertain or failure.delivered
                continue
            error = self._verdict(answer, server)
            if error is None:
                self.applied = True
            else:
                self._take_refused_prerequisite(server, error)
            return True
        return self._shows_wanted(server)

    def _shows_wanted(self, server: Address) -> bool:
        """After the last lost answer of a server: whether the update arrived all the same."""
        now = self._look_again(server) if self._uncertain else None
        if now is None or not self.change.reached(now):
            return False
        self.applied = True
        self.notes.append(f"the answer to the update was lost; {server} shows that it was applied")
        return True

    def _take_refused_prerequisite(self, server: Address, error: OperatorError) -> None:
        """Another value stands there: raise, unless it is the wanted one."""
        now = self._look_again(server)
        if now is None:
            raise error
        if not self.change.reached(now):
            raise self._changed(now)
        self.applied = self._uncertain
        self.notes.append(
            "the first sending had been applied although its answer was lost"
            if self._uncertain
            else "somebody else set the same value in the meantime"
        )

    def _verdict(self, answer: dns.message.Message, server: Address) -> OperatorError | None:
        """None when the server did it; the error when a prerequisite failed; every other error is raised."""
        if answer.rcode() == dns.rcode.NOERROR:
            return None
        error = rcode_error(answer.rcode(), server)
        if error.code != "DNS_RECORD_CHANGED":
            raise error
        return error

    def _look_again(self, server: Address) -> Reading | None:
        """What stands there now; None when it cannot be read."""
        try:
            now = read(server, self.change.name, self.options.timeout)
        except NoAnswer:
            return None
        return None if now.error else now

    def _changed(self, now: Reading) -> OperatorError:
        hint = ""
        if self.change.untouched(now):
            hint = (
                "; the server still answers as before but says that its record is another: the answer may come from a "
                "wildcard or another view, or other records stand beside it"
            )
        return record_changed(self.change.name, now, show_values(self.change.before), hint)

    def read_back(self, wait_s: float = 10.0, require_all: bool = False) -> list[Reading]:
        """What every authoritative server says now; waits up to `wait_s` seconds for those that are behind.

        A server that cannot be read is a warning, unless `require_all`. Raises OperatorError DNS_READBACK when a server
        still answers something else (evidence: applied, behind, unreachable, servers).
        """
        started = time.monotonic()
        groups = authoritative(self.options, self.server, self.change.zone)
        self.readings = poll(self.options, groups, self.change.name, self.change.reached, wait_s)
        self.took["read_back_s"] = round(time.monotonic() - started, 4)
        unread = [each for each in self.readings if each.error]
        self.warnings.extend(f"the DNS server {each.server} could not be read: {each.reason}" for each in unread)
        behind = self.behind
        if behind or (require_all and unread) or len(unread) == len(self.readings):
            texts = [f"{each.server} answers {', '.join(each.values) or 'nothing'}" for each in behind]
            texts += [f"{each.server} cannot be read" for each in unread]
            raise OperatorError(
                "DNS_READBACK",
                f"{show_name(self.change.name)} should be {', '.join(self.after['values'])} on every authoritative "
                f"server, but after {wait_s:g} s: {'; '.join(texts)}",
                "the update server has the change; look at the zone transfers to the servers named, then run the same "
                "command again to see them agree",
                {
                    "applied": self.applied,
                    "behind": [each.server for each in behind],
                    "unreachable": [each.server for each in unread],
                    "servers": [each.as_result() for each in self.readings],
                },
            )
        return self.readings

    @property
    def behind(self) -> list[Reading]:
        """The servers of the last reading that answer, but not with the wanted value."""
        return [each for each in self.readings if not each.error and not self.change.reached(each)]

    @property
    def after(self) -> dict[str, Any]:
        """The wanted record: {"type", "values", "ttl" (seconds)}."""
        return Reading("", None, (self.change.after,)).as_record()

    def result(self) -> dict[str, Any]:
        """Plain data; the keys are documented in the RETURN section of the module dns_repoint."""
        before, after = zone_file_text(self.change.before), zone_file_text((self.change.after,))
        return {
            "changed": self.applied,
            "record": show_name(self.change.name),
            "zone": show_name(self.change.zone),
            "type": self.after["type"],
            "before": self.now.as_record(),
            "after": self.after,
            "update_server": self.server.host,
            "servers": [each.as_result() for each in self.readings],
            "unreachable": [each.server for each in self.readings if each.error],
            "confirmed_at": self.confirmed_at,
            "took": dict(self.took),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "diff": {"before": before, "after": after if self.change.needed else before},
        }
