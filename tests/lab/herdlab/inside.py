# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands that work on a lab that is up. Each runs in the lab's namespaces and returns an exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from . import controller, dns, hosts, network, postgres, registry
from .errors import LabError
from .plan import Plan
from .state import State
from .writer import Writer

_Command = Callable[[State, Plan, argparse.Namespace], int]


def guarded(work: _Command, state: State, plan: Plan, arguments: argparse.Namespace) -> int:
    """Do a command; an error that a person can act on becomes a line."""
    try:
        return work(state, plan, arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def _command_line(arguments: argparse.Namespace) -> list[str]:
    argv = list(arguments.argv)
    if argv[:1] == ["--"]:
        argv = argv[1:]
    if not argv:
        raise LabError(f"{arguments.command}: no command given")
    return argv


def do_run(state: State, plan: Plan, arguments: argparse.Namespace) -> int:
    """A command on the controller's side."""
    return controller.execute(state, plan, _command_line(arguments))


def do_exec(state: State, plan: Plan, arguments: argparse.Namespace) -> int:
    """A command on a server."""
    return hosts.attached(plan.host(arguments.server), _command_line(arguments), arguments.user)


def do_sql(state: State, plan: Plan, arguments: argparse.Namespace) -> int:
    """SQL on an instance."""
    sys.stdout.write(postgres.query(plan, plan.instance(arguments.instance), arguments.sql, arguments.db))
    return 0


def do_dig(state: State, plan: Plan, arguments: argparse.Namespace) -> int:
    """A question to the lab's DNS."""
    sys.stdout.write(dns.ask(plan, arguments.name, arguments.type, arguments.server))
    return 0


def do_poweroff(state: State, plan: Plan, arguments: argparse.Namespace) -> int:
    """Cut the power."""
    hosts.power_off(plan.host(arguments.server))
    return 0


def do_poweron(state: State, plan: Plan, arguments: argparse.Namespace) -> int:
    """Start a server, and what would start there by itself."""
    host = plan.host(arguments.server)
    if hosts.pid_of(host) is not None:
        raise LabError(f"server {host.name} is on already")
    network.attach([host])
    hosts.power_on(state, host)
    if host.name == registry.HOST:
        registry.start(plan)
    elif host.infrastructure:
        dns.start(plan, int(host.name[-1]))
    elif not arguments.no_start:
        for instance in plan.on(host.name):
            postgres.start(plan, instance)
        for instance in plan.on(host.name):
            if not postgres.answers(plan, instance):
                print(f"lab: {instance.name} was started, but does not answer yet", file=sys.stderr)
    return 0


def do_partition(state: State, plan: Plan, arguments: argparse.Namespace) -> int:
    """Cable out."""
    network.cut(plan.host(arguments.server))
    return 0


def do_heal(state: State, plan: Plan, arguments: argparse.Namespace) -> int:
    """Cable in."""
    network.join(plan.host(arguments.server))
    return 0


def do_registry(state: State, plan: Plan, arguments: argparse.Namespace) -> int:
    """The registry's PostgreSQL."""
    (registry.stop if arguments.what == "stop" else registry.start)(plan)
    return 0


def do_dns(state: State, plan: Plan, arguments: argparse.Namespace) -> int:
    """The DNS servers."""
    for number in [arguments.server] if arguments.server else [1, 2]:
        (dns.stop if arguments.what == "stop" else dns.start)(plan, number)
    return 0


def do_writer(state: State, plan: Plan, arguments: argparse.Namespace) -> int:
    """A herd's writer."""
    writer = Writer(state, plan, arguments.herd)
    if arguments.what == "start":
        servers = arguments.servers.split(",") if arguments.servers else []
        writer.start(arguments.rate, arguments.connections, arguments.dns_cache, servers, arguments.seconds)
    elif arguments.what == "stop":
        writer.stop()
    else:
        return writer.report()
    return 0


def do_status(state: State, plan: Plan, arguments: argparse.Namespace) -> int:
    """Hosts and instances, one a line."""
    print(f"state folder {state.root}; registry {plan.registry}; DNS {' '.join(plan.dns)}")
    for host in plan.hosts:
        pid = hosts.pid_of(host)
        power = "off" if pid is None else "cut off" if network.is_cut(host) else "on"
        print(f"{host.name:<20} {host.address:<16} {power}")
        for instance in plan.on(host.name):
            what = _describe(plan, instance) if pid else "powered off"
            print(f"    {instance.name:<40} port {instance.port:<6} {what}")
    return 0


def _describe(plan: Plan, instance: postgres.Instance) -> str:
    sql = """
        SELECT CASE WHEN pg_is_in_recovery() THEN 'replica' ELSE 'primary' END
            || coalesce((SELECT ' of ' || sender_host || ' ' || status FROM pg_stat_wal_receiver), '')
            || coalesce((SELECT ' with ' || nullif(count(*), 0) || ' replica(s)' FROM pg_stat_replication), '')
    """
    try:
        return postgres.query(plan, instance, sql).strip()
    except LabError:
        return "does not answer"
