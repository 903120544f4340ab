# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check-in says about a herd: what is recorded, reconciled, or does not fit. Private to the collection.

Pure: recorded facts and observed facts in, decisions out. An observation is what was seen of one member:
{"server", "reachable": bool, "facts": the result of instance_info or None, "error": text or None}.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ansible_collections.elephaas.herd.plugins.module_utils.decide.errors import OperatorError
from ansible_collections.elephaas.herd.plugins.module_utils.decide.lsn import parse_lsn
from ansible_collections.elephaas.herd.plugins.module_utils.decide.mirror import records_of

# Moves with every write on the primary: recorded, but no change that anybody has to know about.
VOLATILE = ("lsn", "lag_bytes", "last_seen")


@dataclass(frozen=True)
class Mismatch:
    """Something seen that contradicts the record, and that nobody but a person (or an operation) may resolve."""

    code: str
    reason: str
    server: str | None = None


@dataclass(frozen=True)
class Reconciliation:
    """Roles that were moved without the registry and are recorded now.

    record: the operation mirrored on the members' hosts that explains it, None when only the facts do.
    """

    from_server: str | None
    to_server: str
    roles: dict[str, dict[str, Any]]
    record: dict[str, Any] | None = None


@dataclass
class Verdicts:
    """values: server -> column -> value to record. rejoined: superseded members that stream again, and their roles now."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    rejoined: dict[str, dict[str, Any]] = field(default_factory=dict)
    mismatches: list[Mismatch] = field(default_factory=list)
    reconciliation: Reconciliation | None = None


def judge(
    members: dict[str, dict[str, Any]],
    operation: dict[str, Any] | None,
    last_token: int,
    seen: dict[str, dict[str, Any]],
) -> Verdicts:
    """Decide for one herd.

    members: server -> recorded {"role", "upstream_server", "system_identifier", "port", "names": [what it is called in
    a connection string]}. operation: the open one, as operations.open_operation gives it. seen: server -> observation.
    """
    verdicts = Verdicts()
    running = {server: item["facts"] for server, item in seen.items() if _is_ours(server, item, members, verdicts)}
    primary_lsn = _position([facts for facts in running.values() if facts.get("writable")])
    for server, item in seen.items():
        verdicts.values[server] = _values(item, running.get(server), members[server], primary_lsn)
    busy = operation is not None and operation["lease_live"]
    upstreams = _upstreams(members, running)
    _judge_roles(members, operation, last_token, seen, running, upstreams, verdicts)
    if not busy and verdicts.reconciliation is None:
        _follow_upstreams(members, upstreams, verdicts)
        _rejoin(members, running, upstreams, verdicts)
    return verdicts


def _is_ours(server: str, item: dict[str, Any], members: dict[str, dict[str, Any]], verdicts: Verdicts) -> bool:
    """Whether facts of a running instance are there, and are those of the recorded one."""
    facts = item.get("facts")
    if not item.get("reachable") or not facts:
        return False
    if facts.get("identity_problem"):
        verdicts.mismatches.append(Mismatch("IDENTITY", str(facts["identity_problem"]), server))
        return False
    recorded, found = members[server]["system_identifier"], facts.get("system_identifier")
    if recorded and found and recorded != found:
        verdicts.mismatches.append(
            Mismatch("SYSTEM_IDENTIFIER", f"its system identifier is {found}, recorded is {recorded}", server)
        )
        return False
    return facts.get("status") == "running" and not facts.get("sql_error")


def _position(facts: list[dict[str, Any]]) -> int | None:
    """The current position of the only writable instance, in bytes."""
    if len(facts) != 1:
        return None
    return _lsn((facts[0].get("positions") or {}).get("current"))


def _lsn(text: object) -> int | None:
    try:
        return parse_lsn(text) if isinstance(text, str) else None
    except OperatorError:
        return None


def _values(
    item: dict[str, Any], running: dict[str, Any] | None, recorded: dict[str, Any], primary_lsn: int | None
) -> dict[str, Any]:
    facts = item.get("facts")
    if not item.get("reachable") or not facts:
        # Not reached is not known: neither online nor offline.
        return {"is_online": None}
    values: dict[str, Any] = {"is_online": running is not None}
    if running is None and facts.get("status") == "running":
        # Something else answers there, or it hangs: nothing that it says is recorded.
        return values
    found = facts.get("system_identifier")
    if recorded["system_identifier"] and found and recorded["system_identifier"] != found:
        return {"is_online": False}
    for column, fact in (("version", "version"), ("system_identifier", "system_identifier"), ("timeline", "timeline")):
        if facts.get(fact) is not None:
            values[column] = facts[fact]
    if running is None:
        return values
    positions = running.get("positions") or {}
    if running.get("writable"):
        values["lsn"], values["lag_bytes"] = positions.get("current"), 0
        return values
    here = max(
        (text for text in (positions.get("received"), positions.get("replayed")) if text), key=_order, default=None
    )
    if here is not None:
        values["lsn"] = here
    ahead = primary_lsn if primary_lsn is not None else _lsn((running.get("upstream") or {}).get("latest_end_lsn"))
    replayed = _lsn(positions.get("replayed"))
    if ahead is not None and replayed is not None:
        # The primary may have been looked at a moment earlier than its replica.
        values["lag_bytes"] = max(0, ahead - replayed)
    return values


def _order(text: str) -> int:
    return _lsn(text) or 0


def _upstreams(members: dict[str, dict[str, Any]], running: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Which member each running replica streams from, where its connection string names one."""
    found = {}
    for server, facts in running.items():
        upstream = facts.get("upstream") or {}
        if facts.get("writable") or not upstream.get("host"):
            continue
        matching = [
            other
            for other, member in members.items()
            if other != server
            and upstream["host"] in member["names"]
            and int(upstream.get("port") or 0) == member["port"]
        ]
        if len(matching) == 1:
            found[server] = matching[0]
    return found


def _judge_roles(
    members: dict[str, dict[str, Any]],
    operation: dict[str, Any] | None,
    last_token: int,
    seen: dict[str, dict[str, Any]],
    running: dict[str, dict[str, Any]],
    upstreams: dict[str, str],
    verdicts: Verdicts,
) -> None:
    recorded = next((server for server, member in members.items() if member["role"] == "primary"), None)
    # Promoted for a diagnosis, and recorded so: exempt.
    writable = [s for s, facts in running.items() if facts.get("writable") and members[s]["role"] != "detached"]
    if len(writable) > 1:
        verdicts.mismatches.append(
            Mismatch("SPLIT_BRAIN", f"{len(writable)} members are writable: {', '.join(sorted(writable))}")
        )
        return
    if not writable:
        if recorded in running:
            verdicts.mismatches.append(
                Mismatch("NO_PRIMARY", "the recorded primary is in recovery, no member is writable", recorded)
            )
        return
    found = writable[0]
    if found == recorded and operation is None:
        return
    record = _explanation(seen, found, operation, last_token)
    if members[found]["role"] == "superseded" and record is None:
        # That its successor is not seen makes it no primary again; only a failover to it, which it must have followed, does.
        verdicts.mismatches.append(
            Mismatch(
                "SUPERSEDED",
                f"it was overtaken by a failover, and is writable; recorded as primary is {recorded or 'none'}",
                found,
            )
        )
        return
    if found == recorded:
        # An operation that ended without a change of roles, or whose roles were recorded already.
        return

    problem = _not_settled(members, seen, recorded, found, record)
    if problem is None and operation is not None and operation["lease_live"]:
        problem = f"{operation['operator']} has an open operation on this herd"
    if problem is None and operation is not None and record is None:
        problem = "an operation is open, and the members' hosts do not say that it was finished"
    if problem is not None:
        verdicts.mismatches.append(
            Mismatch(
                "OTHER_PRIMARY", f"{found} is writable, recorded as primary is {recorded or 'none'}: {problem}", found
            )
        )
        return
    verdicts.reconciliation = Reconciliation(
        recorded, found, _roles(members, running, seen, upstreams, recorded, found), record
    )


def _explanation(
    seen: dict[str, dict[str, Any]], found: str, operation: dict[str, Any] | None, last_token: int
) -> dict[str, Any] | None:
    """The newest record on the members' hosts of a failover that was finished, if it made this member the primary.

    An older one that did proves nothing: another has followed. It counts when it is newer than anything the registry
    knows, or when it is the registry's own open operation, which the run could finish but no longer record.
    """
    best: dict[str, Any] | None = None
    for mirrored in (
        record for item in seen.values() for record in records_of((item.get("facts") or {}).get("operation"))
    ):
        token, about = mirrored.get("token"), mirrored.get("operation") or {}
        if mirrored.get("closed") != "done" or not isinstance(token, int) or not server_of(about.get("to")):
            continue
        if best is None or token > best["token"]:
            best = {"token": token, **about}
    if best is None or server_of(best["to"]) != found:
        return None
    known = operation is not None and best["token"] == operation["token"]
    return best if best["token"] > last_token or known else None


def server_of(name: object) -> str | None:
    """The server of an instance's inventory name (trading_prod@chi-db1), or the server name itself."""
    return name.rpartition("@")[2] if isinstance(name, str) and name else None


def _not_settled(
    members: dict[str, dict[str, Any]],
    seen: dict[str, dict[str, Any]],
    recorded: str | None,
    found: str,
    record: dict[str, Any] | None,
) -> str | None:
    """Why what is seen is no finished failover to this member; None when it is one."""
    for server, item in seen.items():
        facts = item.get("facts")
        if server == found or members[server]["role"] == "detached" or not item.get("reachable") or not facts:
            continue
        if facts.get("status") == "absent":
            continue
        if members[server]["role"] == "superseded" and not facts.get("writable"):
            # It waits to be demoted, whoever the primary is.
            continue
        if facts.get("role") != "replica":
            return f"{server} is no replica"
    reached = recorded is None or bool(seen.get(recorded, {}).get("reachable") and seen[recorded].get("facts"))
    if not reached and record is None:
        # It may be alive and writable where we do not see it.
        return f"{recorded} was not reached"
    return None


def _roles(
    members: dict[str, dict[str, Any]],
    running: dict[str, dict[str, Any]],
    seen: dict[str, dict[str, Any]],
    upstreams: dict[str, str],
    recorded: str | None,
    found: str,
) -> dict[str, dict[str, Any]]:
    roles: dict[str, dict[str, Any]] = {found: {"role": "primary", "upstream_server": None}}
    for server, member in members.items():
        if server == found or member["role"] == "detached":
            continue
        if member["role"] == "superseded" and not _streams(running.get(server), running.get(found)):
            continue
        facts = seen.get(server, {}).get("facts") or {}
        if server == recorded and facts.get("role") != "replica":
            # Nobody saw it come back as a replica: whatever it holds now is behind the new primary.
            roles[server] = {"role": "superseded", "upstream_server": None}
            continue
        kept = member["upstream_server"]
        upstream = upstreams.get(server) or (found if kept in (None, recorded, found) else kept)
        roles[server] = {"role": "replica", "upstream_server": upstream}
    return roles


def _streams(facts: dict[str, Any] | None, primary: dict[str, Any] | None) -> bool:
    """Whether a replica streams, itself or through others, what the primary writes: on the primary's timeline."""
    upstream = (facts or {}).get("upstream") or {}
    return (
        facts is not None
        and facts.get("role") == "replica"
        and upstream.get("status") == "streaming"
        and upstream.get("receiver_timeline") is not None
        and upstream["receiver_timeline"] == (primary or {}).get("timeline")
    )


def _rejoin(
    members: dict[str, dict[str, Any]],
    running: dict[str, dict[str, Any]],
    upstreams: dict[str, str],
    verdicts: Verdicts,
) -> None:
    """A superseded member is one of the herd again once it is seen streaming from it, and not before."""
    primary = next((facts for server, facts in running.items() if members[server]["role"] == "primary"), None)
    if primary is None or not primary.get("writable"):
        return
    for server, upstream in upstreams.items():
        if members[server]["role"] == "superseded" and _streams(running[server], primary):
            verdicts.rejoined[server] = {"role": "replica", "upstream_server": upstream}


def _follow_upstreams(
    members: dict[str, dict[str, Any]],
    upstreams: dict[str, str],
    verdicts: Verdicts,
) -> None:
    """A replica seen streaming from another member than recorded is recorded so: that moves no primary."""
    for server, upstream in upstreams.items():
        member = members[server]
        if member["role"] == "replica" and upstream != member["upstream_server"]:
            verdicts.values[server]["upstream_server"] = upstream
