# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action plugin that runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dns_repoint
author:
  - the elephaas.herd authors (@elephaas)
version_added: 1.0.0
short_description: Point a DNS name at another server, and see it on every name server
description:
  - Changes one CNAME, A or AAAA record by a signed dynamic update (RFC 2136, RFC 8945), for example the vhost of a
    herd after a failover.
  - The update carries the record as it was read (or as O(expected) says) as its condition. When somebody else
    changed the record in the meantime, the server refuses the whole update and the module fails with the code
    C(DNS_RECORD_CHANGED) and what is there now.
  - Afterwards the record is read from every authoritative server directly, by address and without recursion, so no
    cache answers.
  - When an answer is lost, the record is read before anything is sent again.
  - Exactly one type of record must be there. Several values, another type, or an absent record are refused unless
    allowed by O(allow_multiple), O(allow_type_change), or O(expected=absent).
options:
  record:
    description: The DNS name to repoint. Case and a final dot do not matter; international names may be written as
      such.
    type: str
    required: true
  value:
    description: What it shall point to, a host name for a CNAME, an IPv4 address for an A, an IPv6 address for an
      AAAA record.
    type: str
    required: true
  type:
    description: Type of the record. With V(auto) it is the one that fits O(value); one that differs from the
      present type is refused.
    type: str
    choices: [auto, CNAME, A, AAAA]
    default: auto
  expected:
    description:
      - What the record must hold now, one value or all of its values. V(absent) if it must not be there yet; then
        it is made.
      - If not given, whatever is read just before is taken as expected.
      - A record that holds O(value) already is never a failure.
    type: list
    elements: str
  ttl:
    description: Time to live of the record, in seconds. The present one is kept when it is not given; a new record
      gets 60 seconds.
    type: int
  allow_type_change:
    description: Allow that a record of one type is replaced by one of another type, in the same update.
    type: bool
    default: false
  allow_multiple:
    description: Allow that several values of the present record are all replaced by the one O(value).
    type: bool
    default: false
  verify:
    description: Read the record back from every authoritative server.
    type: bool
    default: true
  wait_s:
    description: How long to wait for servers that answer with the old record, in seconds. After that the module
      fails.
    type: float
    default: 10.0
  require_all:
    description: Also fail when a server cannot be read. Otherwise that is a warning, since a data center may be gone.
    type: bool
    default: false
  herd:
    description:
      - Name of the herd whose vhost this is. With it, O(environment) and O(token) are needed, and the token must be
        that of the operation which the registry has open for the herd.
    type: str
  environment:
    description: Environment of the herd.
    type: str
  token:
    description: Token of the operation, from RV(elephaas.herd.registry_operation#module:operation).
    type: int
  registry:
    description:
      - How to reach the registry to check O(token), with the names of the options of
        M(elephaas.herd.registry_operation), for example C(dsn).
      - What is not given comes from the same environment variables.
    type: dict
    default: {}
  registry_may_be_lost:
    description:
      - Go on, with a note in RV(notes), when the registry that was to confirm O(token) cannot be reached.
      - For a run that took the token from the registry and holds it on the members' hosts. Applications must not stay at a stopped server because
        the registry was lost a moment later.
    type: bool
    default: false
  without_registry:
    description: Do not check O(token) in the registry, because it is lost. The result says so.
    type: bool
    default: false
extends_documentation_fragment:
  - elephaas.herd.dns
  - elephaas.herd.attributes
  - elephaas.herd.attributes.controller
attributes:
  check_mode:
    support: full
    details:
      - Sends an update that adds what is there already, under the same conditions and signed with the same key. It
        changes nothing, not even the serial of the zone, and fails where the real one would. Only a server that
        cannot write its own files is not found out.
  diff_mode:
    support: full
    details: Shows the record in the form of a zone file.
seealso:
  - module: elephaas.herd.failover_plan_info
notes:
  - Updates are always signed; reading needs no key.
  - The key is never shown, neither in results nor in errors, whatever the verbosity.
"""

EXAMPLES = r"""
- name: Point the vhost at the new primary, if it still points at the old one
  elephaas.herd.dns_repoint:
    server: [ns1.example.com]
    key_file: /etc/elephaas/dns.key
    record: trading-db.prod.example.com
    value: nyc-db1.prod.example.com
    expected: chi-db1.prod.example.com

- name: See whether that would work, without changing anything
  elephaas.herd.dns_repoint:
    server: [ns1.example.com]
    key_file: /etc/elephaas/dns.key
    record: trading-db.prod.example.com
    value: nyc-db1.prod.example.com
  check_mode: true

- name: Make the address record of a new herd
  elephaas.herd.dns_repoint:
    server: [192.0.2.53]
    key_name: elephaas
    key_secret: "{{ vault_dns_secret }}"
    zone: prod.example.com
    record: trading-db
    value: 192.0.2.11
    expected: absent
    ttl: 30

- name: Repoint within an operation, which must still be the herd's current one
  elephaas.herd.dns_repoint:
    server: [ns1.example.com]
    key_file: /etc/elephaas/dns.key
    record: trading-db.prod.example.com
    value: nyc-db1.prod.example.com
    herd: trading
    environment: prod
    token: "{{ begun.operation.token }}"
    registry:
      dsn: "{{ vault_registry_dsn }}"
"""

RETURN = r"""
record:
  description: The full name, in lower case, encoded, without the final dot.
  type: str
  returned: success
  sample: trading-db.prod.example.com
zone:
  description: The zone that holds it.
  type: str
  returned: success
  sample: prod.example.com
type:
  description: Type of the wanted record, V(CNAME), V(A) or V(AAAA).
  type: str
  returned: success
before:
  description: What was read from the update server at the start.
  type: dict
  returned: success
  contains:
    type:
      description: Type of the record, empty when it was absent.
      type: str
    values:
      description: All its values, sorted.
      type: list
      elements: str
    ttl:
      description: Its time to live in seconds.
      type: int
  sample: {type: CNAME, values: [chi-db1.prod.example.com], ttl: 30}
after:
  description: The wanted record, with the keys of RV(before).
  type: dict
  returned: success
  sample: {type: CNAME, values: [nyc-db1.prod.example.com], ttl: 30}
update_server:
  description: The server that was used, as given in O(server).
  type: str
  returned: success
servers:
  description: What each authoritative server answered at last. Empty when nothing was read back.
  type: list
  elements: dict
  returned: success
  contains:
    server:
      description: Its name.
      type: str
    address:
      description: The address that was asked.
      type: str
    type:
      description: Type of the record there.
      type: str
    values:
      description: Its values there.
      type: list
      elements: str
    ttl:
      description: Its time to live there in seconds.
      type: int
    error:
      description: Why it could not be read, as a code.
      type: str
    reason:
      description: The same in words.
      type: str
unreachable:
  description: Names of the servers that could not be read.
  type: list
  elements: str
  returned: success
confirmed_at:
  description: When the update server confirmed the change, in seconds since the epoch.
  type: float
  returned: success
took:
  description: Seconds that reading before (C(prepare_s)), the update (C(send_s)) and reading back (C(read_back_s))
    took.
  type: dict
  returned: success
notes:
  description: What else is worth knowing, for example that an answer was lost, or that no token was checked.
  type: list
  elements: str
  returned: success
code:
  description:
    - Why it failed, stable.
    - Before anything was sent C(DNS_NOT_CONFIGURED), C(DNS_MISSING_LIBRARY), C(DNS_KEY_INVALID),
      C(DNS_KEY_MISSING), C(DNS_NAME_INVALID), C(DNS_VALUE_INVALID), C(DNS_NOT_IN_ZONE), C(DNS_NOT_AUTHORITATIVE),
      C(DNS_RECORD_ABSENT), C(DNS_RECORD_MIXED), C(DNS_RECORD_MULTIPLE), C(DNS_TYPE_CHANGE), C(DNS_TARGET_ABSENT),
      C(TOKEN_MISSING), C(TOKEN_STALE).
    - From the server C(DNS_KEY_REFUSED), C(DNS_CLOCK_SKEW), C(DNS_RECORD_CHANGED), C(DNS_SERVER_FAILED),
      C(DNS_ANSWER_UNTRUSTED).
    - C(DNS_UNREACHABLE) has C(may_have_been_applied) in its evidence.
    - C(DNS_READBACK) after the change was made; the same command run again looks at the servers once more.
  type: str
  returned: failure
reason:
  description: What is wrong.
  type: str
  returned: failure
next_step:
  description: What to do about it.
  type: str
  returned: failure
evidence:
  description: The data that led to it.
  type: dict
  returned: failure
"""
