# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All servers that own a zone, and what each of them says. Private to the collection; controller only."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.library import dns
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.names import show_name
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.options import Options
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.wire import Address, NoAnswer
from ansible_collections.elephaas.herd.plugins.plugin_utils.dns.zone import (
    Reading,
    name_servers,
    read_any,
    resolve,
    server_addresses,
    together,
)

# Seconds between two questions to a server that is still behind: short at first, because NOTIFY is fast.
_POLL_FIRST, _POLL_LONGEST = 0.01, 0.5


def addresses(options: Options, host: str) -> list[Address]:
    """The addresses of a server named in the options, looked up within the time-out. Raises NoAnswer."""
    found = together([partial(resolve, host, options.port)], options.timeout)[0]
    if found is None:
        raise NoAnswer(f"the name {host} of a DNS server cannot be resolved in time", delivered=False)
    return found


def authoritative(options: Options, server: Address, zone: dns.name.Name) -> dict[str, list[Address]]:
    """Host -> addresses of each server to read from: the update server, and the configured ones or the zone's NS.

    A server whose name cannot be resolved has no addresses: a fact about one server, not a failure of all.
    """
    look_ups: dict[str, Callable[[], list[Address]]] = {}
    if options.authoritative:
        for host in options.authoritative:
            look_ups[host] = partial(resolve, host, options.port)
    else:
        for name in _name_servers(options, server, zone):
            look_ups[show_name(name)] = partial(server_addresses, server, name, options.timeout)
    found = together([partial(_or_nothing, each) for each in look_ups.values()], 2 * options.timeout)
    groups = {host: addresses or [] for host, addresses in zip(look_ups, found, strict=True)}
    if all(server.ip != address.ip for group in groups.values() for address in group):
        groups = {server.host: [server], **groups}  # a hidden primary
    return groups


def _name_servers(options: Options, server: Address, zone: dns.name.Name) -> list[dns.name.Name]:
    try:
        return name_servers(server, zone, options.timeout)
    except NoAnswer:
        return []  # the update server is read in any case, and will be shown as not reachable


def _or_nothing(look_up: Callable[[], list[Address]]) -> list[Address]:
    try:
        return look_up()
    except NoAnswer:
        return []


def poll(
    options: Options,
    groups: dict[str, list[Address]],
    name: dns.name.Name,
    reached: Callable[[Reading], bool],
    wait_s: float,
) -> list[Reading]:
    """What each server says of `name`, in the order of `groups`; one that has not `reached` is asked on for `wait_s`.

    wait_s: seconds. A server that does not answer is not waited for: one time-out, then it is an error in its Reading.
    """
    deadline = time.monotonic() + wait_s

    def follow(host: str, group: Sequence[Address]) -> Reading:
        pause = _POLL_FIRST
        while True:
            reading = read_any(host, group, name, options.timeout)
            if reading.error or reached(reading) or time.monotonic() + pause >= deadline:
                return reading
            time.sleep(pause)
            pause = min(pause * 2, _POLL_LONGEST)

    # Two questions per address, each with its own time-out, may still be under way when the wait is over.
    limit = wait_s + 1.0 + 2 * options.timeout * max((len(group) for group in groups.values()), default=1)
    readings = together([partial(follow, host, group) for host, group in groups.items()], limit)
    return [
        reading or Reading(host, None, error="DNS_UNREACHABLE", reason="it did not answer in time")
        for host, reading in zip(groups, readings, strict=True)
    ]
