# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts a play acts on, or an error: never a green run that did nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
name: selected
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Hosts of the given groups that the limit leaves, or an error
description:
  - For the C(hosts) line of a play. Returns the hosts that are in one of the given groups and inside C(--limit).
  - When there is none it raises an error that says what to do. Without it, ansible-core ends such a run with
    a line about no hosts matched and exit status 0, which at night looks like success.
  - Use C(leads) for a play that acts on whole herds, once per herd. A herd whose failover is finished is found through
    C(former_leads) under the limit it was found under before, so that the same command can answer that it is done.
options:
  _terms:
    description:
      - Names of inventory groups. A host in any of them is returned, each host once, in inventory order.
      - A group that does not exist counts as empty.
    type: list
    elements: str
    required: true
  one_per_herd:
    description:
      - Of each herd only its first selected instance, for plays that act on a herd through whichever of its members are
        selected. What is no instance is left out.
    type: bool
    default: false
notes:
  - The error ends the whole run before the play starts, with a non-zero exit status.
  - Set C(host_pattern_mismatch=error) and C(unparsed_is_failed=true) in the C([inventory]) section of C(ansible.cfg)
    as well. The first makes a limit of which only one part is mistyped an error, the second names the inventory source
    that could not be read.
  - With C(--syntax-check) nothing is selected and nothing refused.
  - In a task of a play, only hosts of that play are considered.
seealso:
  - plugin: elephaas.herd.herds
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Act on every selected herd once
  hosts: "{{ query('elephaas.herd.selected', 'leads') }}"
  gather_facts: false
  tasks:
    - name: Show the herd
      ansible.builtin.debug:
        var: elephaas_herd_group

- name: Find the herd again after its failover is finished
  hosts: "{{ query('elephaas.herd.selected', 'leads', 'former_leads') }}"
  gather_facts: false
  tasks: []

- name: Act on every herd of which an instance is selected
  hosts: "{{ query('elephaas.herd.selected', 'instances', one_per_herd=true) }}"
  gather_facts: false
  tasks: []

- name: Act on every selected instance
  hosts: "{{ query('elephaas.herd.selected', 'instances') }}"
  gather_facts: false
  tasks: []
"""

RETURN = r"""
_raw:
  description: Names of the selected hosts, each once, in inventory order. Never empty.
  type: list
  elements: str
"""

import typing as t

from ansible import context
from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

LISTING = "`ansible-inventory --graph %s` lists them."


def select(groups: t.Mapping[str, t.Sequence[str]], inside: t.Sequence[str], wanted: t.Sequence[str]) -> list[str]:
    """Return the hosts of *inside* that are in one of the *wanted* groups, in the order of *inside*.

    *groups* maps group name to host names, as Ansible's variable of that name; *inside* are the hosts inside the limit.
    """
    members = {host for group in wanted for host in groups.get(group, ())}
    return [host for host in dict.fromkeys(inside) if host in members]


def first_of_each_herd(hosts: t.Sequence[str]) -> list[str]:
    """The first instance of each herd, in the order given. A host name is herd_environment@server."""
    first: dict[str, str] = {}
    for host in hosts:
        if "@" in host:
            first.setdefault(host.split("@", 1)[0], host)
    return list(first.values())


def refusal(
    groups: t.Mapping[str, t.Sequence[str]], inside: t.Sequence[str], wanted: t.Sequence[str], limit: str | None
) -> str:
    """Say why nothing is selected, and what to do about it."""
    names = " or ".join(wanted)
    if not groups.get("all"):
        return (
            "The inventory has no hosts, so there is nothing to act on. It could not be read or the registry is empty: "
            "see the warnings above and `ansible-inventory --graph`, and name the inventory with -i or in ansible.cfg."
        )
    if not any(groups.get(group) for group in wanted):
        return (
            f"The inventory has no host in group {names}, so there is nothing to act on. "
            "Is it read by the plugin elephaas.herd.herds, and does the registry know a herd? "
            "Look with `ansible-inventory --graph`."
        )
    listing = LISTING % wanted[0]
    if "leads" not in wanted:
        return f"--limit {limit!r} selects no host of group {names}, so there is nothing to act on. {listing}"
    # A host name is herd_environment@server: what stands before the @ is the same for all members of a herd.
    selected_herds = {host.split("@", 1)[0] for host in inside if "@" in host}
    leads = [lead for lead in groups.get("leads", ()) if lead.split("@", 1)[0] in selected_herds]
    advice = ""
    if leads:
        shown = ", ".join(leads[:3]) + (f" and {len(leads) - 3} more" if len(leads) > 3 else "")
        advice = f" What it does select belongs to herds led by {shown}: to act on those herds, limit to their leads."
    return (
        f"--limit {limit!r} selects no lead, so there is nothing to act on. A herd is operated through its lead (its "
        "primary, or the old primary while an operation is open), so that a limit on a replica never acts on its herd."
        f"{advice} {listing}"
    )


class LookupModule(LookupBase):
    """Entry point for Ansible."""

    def run(self, terms: list[str], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[str]:
        """Return the selected host names, or raise AnsibleLookupError."""
        self.set_options(var_options=variables, direct=kwargs)
        if not terms:
            raise AnsibleLookupError("elephaas.herd.selected needs at least one group name.")
        known = variables or {}
        groups = known.get("groups", {})
        # While core templates `hosts:` of a play, this variable holds all hosts that are inside the limit, which spares
        # us a second reading of the limit's syntax (files, ranges, regular expressions, intersections).
        inside = known.get("ansible_play_hosts_all", groups.get("all", []))
        found = select(groups, inside, terms)
        if not found:
            # Linters check playbooks without an inventory, and a syntax check acts on no host.
            if context.CLIARGS.get("syntax"):
                return terms
            raise AnsibleLookupError(refusal(groups, inside, terms, known.get("ansible_limit")))
        return first_of_each_herd(found) if self.get_option("one_per_herd") else found
