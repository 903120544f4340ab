# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a DNS update server is reached and what updates are signed with, said once."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  server:
    description:
      - Update servers of the zone, by name or address, usually only its primary.
      - They are tried in this order, the next one only when one gives no answer. A refusal by one of them is final.
      - If not given, the environment variable E(ELEPHAAS_DNS_SERVER) is used, with commas between several servers.
    type: list
    elements: str
  port:
    description: Port of all DNS servers, for UDP and TCP.
    type: int
    default: 53
  zone:
    description:
      - The zone that holds the record. It is found by asking the update server when it is not given.
      - A name that is a single label is taken to be inside this zone.
    type: str
  key_name:
    description:
      - Name of the TSIG key. It chooses the key when O(key_file) holds several.
      - If not given, the environment variable E(ELEPHAAS_DNS_KEY_NAME) is used.
    type: str
  key_algorithm:
    description:
      - Algorithm of the TSIG key given in O(key_secret), C(hmac-sha256) when nothing is given. A key file says its own.
      - If not given, the environment variable E(ELEPHAAS_DNS_KEY_ALGORITHM) is used.
    type: str
    choices: [hmac-md5, hmac-sha1, hmac-sha224, hmac-sha256, hmac-sha384, hmac-sha512]
  key_secret:
    description:
      - Secret of the TSIG key, in base64. Give either this or O(key_file).
      - If not given, the environment variable E(ELEPHAAS_DNS_KEY_SECRET) is used.
    type: str
  key_file:
    description:
      - File on the controller with the TSIG key, as C(tsig-keygen) writes it and BIND reads it.
      - If not given, the environment variable E(ELEPHAAS_DNS_KEY_FILE) is used.
    type: path
  authoritative:
    description:
      - The servers to read records back from, by name or address, in place of those in the zone's own NS records.
      - Useful where those names lead to servers that show another view of the zone. The update server is always read.
    type: list
    elements: str
  timeout:
    description: How long to wait for one answer of one server, in seconds.
    type: float
    default: 3.0
requirements:
  - dnspython >= 2.3 for the Python that runs Ansible
"""
