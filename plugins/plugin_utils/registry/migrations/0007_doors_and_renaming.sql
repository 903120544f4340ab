-- Copyright: the elephaas.herd authors
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
--
-- What becomes a word of ssh's, an account or a name in DNS is refused here too, whoever types the row; history follows
-- a renaming; removing one thing does not read everything.

-- Empty means not given: forms of 1.x left empty texts behind.
UPDATE ele_herd SET vhost = nullif(btrim(vhost), '') WHERE vhost IS DISTINCT FROM nullif(btrim(vhost), '');
UPDATE ele_server SET address = nullif(btrim(address), ''), dns_name = nullif(btrim(dns_name), '')
 WHERE (address, dns_name) IS DISTINCT FROM (nullif(btrim(address), ''), nullif(btrim(dns_name), ''));

-- The rules are those of module_utils/decide/fields.py and names.py; tests compare them.
ALTER TABLE ele_server
    -- A DNS name with a letter in it, an IPv4 address, or an IPv6 address with or without a zone.
    ADD CONSTRAINT ele_server_address_valid CHECK (
        (length(address) <= 253 AND address ~ '[A-Za-z]'
            AND address ~ '^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?$')
        OR address ~ '^[0-9]{1,3}(\.[0-9]{1,3}){3}$'
        OR address ~ '^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_][A-Za-z0-9_.-]*)?$') NOT VALID,
    ADD CONSTRAINT ele_server_dns_name_valid CHECK (
        length(dns_name) <= 253
        AND dns_name ~ '^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?$') NOT VALID,
    ADD CONSTRAINT ele_server_ssh_user_valid CHECK (ssh_user ~ '^[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,127}$') NOT VALID;
ALTER TABLE ele_herd
    ADD CONSTRAINT ele_herd_vhost_valid CHECK (
        length(vhost) <= 253
        AND vhost ~ '^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?$') NOT VALID,
    ADD CONSTRAINT ele_herd_os_user_valid CHECK (os_user ~ '^[A-Za-z_][A-Za-z0-9_.-]{0,31}$') NOT VALID;
-- Ansible takes a host called 127.0.0.1 for the controller.
ALTER TABLE ele_inventory_name
    DROP CONSTRAINT ele_inventory_name_reserved,
    ADD CONSTRAINT ele_inventory_name_reserved CHECK (
        kind NOT IN ('server', 'herd')
        OR (name NOT IN ('all', 'ungrouped', 'primaries', 'replicas', 'online', 'offline', 'instances', 'servers',
                         'leads', 'former_leads', 'dr_pairs', 'localhost', '127.0.0.1')
            AND name !~ '^(env_|dc_|server_|pg_[0-9])')) NOT VALID;

-- Say everything that a person has to mend at once, by name; validation alone would stop at the first, by rule.
DO $$
DECLARE
    item record;
    broken text;
    problems text[] := '{}';
BEGIN
    FOR item IN
        SELECT c.conrelid::regclass AS relation, pg_get_expr(c.conbin, c.conrelid) AS rule, w.label
          FROM (VALUES
            ('ele_server_address_valid', $l$format('server %L: address %L', hostname, address)$l$),
            ('ele_server_dns_name_valid', $l$format('server %L: dns_name %L', hostname, dns_name)$l$),
            ('ele_server_ssh_user_valid', $l$format('server %L: ssh_user %L', hostname, ssh_user)$l$),
            ('ele_herd_vhost_valid', $l$format('herd %L: vhost %L', herd_name, vhost)$l$),
            ('ele_herd_os_user_valid', $l$format('herd %L: os_user %L', herd_name, os_user)$l$),
            ('ele_inventory_name_reserved', $l$format('%s: name %L', kind, name)$l$)
          ) w (rule, label)
          JOIN pg_constraint c ON c.conname = w.rule AND c.connamespace = quote_ident(current_schema())::regnamespace
         ORDER BY w.rule
    LOOP
        EXECUTE format('SELECT string_agg(%s || '' is not valid'', E''\n'') FROM %s WHERE NOT (%s)',
                       item.label, item.relation, item.rule) INTO broken;
        problems := array_append(problems, broken);
    END LOOP;
    IF array_to_string(problems, '') <> '' THEN
        RAISE EXCEPTION 'rows that the new layout can not hold'
            USING DETAIL = array_to_string(problems, E'\n'), ERRCODE = 'check_violation';
    END IF;
END
$$;
ALTER TABLE ele_server
    VALIDATE CONSTRAINT ele_server_address_valid,
    VALIDATE CONSTRAINT ele_server_dns_name_valid,
    VALIDATE CONSTRAINT ele_server_ssh_user_valid;
ALTER TABLE ele_herd
    VALIDATE CONSTRAINT ele_herd_vhost_valid,
    VALIDATE CONSTRAINT ele_herd_os_user_valid;
ALTER TABLE ele_inventory_name VALIDATE CONSTRAINT ele_inventory_name_reserved;

-- Foreign keys that had to read a whole table for every row that goes.
CREATE INDEX ele_instance_upstream ON ele_instance (upstream_id, herd_id);
CREATE INDEX ele_server_of_environment ON ele_server (environment_id);
CREATE INDEX ele_server_of_datacenter ON ele_server (datacenter_id);

-- A member with a port and a directory of its own stays where it is: nothing to fill in.
CREATE OR REPLACE FUNCTION ele_herd_places() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    -- The instances' own trigger fills in what follows from the herd.
    UPDATE ele_instance SET herd_id = herd_id
     WHERE herd_id = NEW.herd_id AND (local_port IS NULL OR local_pgdata IS NULL);
    RETURN NULL;
END
$$;

-- The history of a herd is found under the name that it has today, and its servers by theirs: the inventory looks up
-- both. What went on under a name that now belongs to something else stays with what it was about. The plan of an
-- operation is left as it was agreed to.
CREATE FUNCTION ele_rename_operations() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_TABLE_NAME = 'ele_server' THEN
        UPDATE ele_operation o SET from_server = n.hostname
          FROM old_rows b JOIN new_rows n ON n.server_id = b.server_id
         WHERE b.hostname <> n.hostname AND o.from_server = b.hostname AND o.started_dt >= b.created_dt;
        UPDATE ele_operation o SET to_server = n.hostname
          FROM old_rows b JOIN new_rows n ON n.server_id = b.server_id
         WHERE b.hostname <> n.hostname AND o.to_server = b.hostname AND o.started_dt >= b.created_dt;
    ELSE
        UPDATE ele_operation o SET env_name = e.env_name, herd_name = h.herd_name
          FROM ele_herd h JOIN ele_environment e ON e.environment_id = h.environment_id
         WHERE o.herd_id = h.herd_id AND (o.env_name, o.herd_name) IS DISTINCT FROM (e.env_name, h.herd_name);
    END IF;
    RETURN NULL;
END
$$;
-- Per statement: two servers may swap their names in one. Such triggers can not be for some columns only.
CREATE TRIGGER ele_server_operations AFTER UPDATE ON ele_server
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION ele_rename_operations();
CREATE TRIGGER ele_herd_operations AFTER UPDATE OF herd_name, environment_id ON ele_herd
    FOR EACH STATEMENT EXECUTE FUNCTION ele_rename_operations();
CREATE TRIGGER ele_environment_operations AFTER UPDATE OF env_name ON ele_environment
    FOR EACH STATEMENT EXECUTE FUNCTION ele_rename_operations();
