-- Copyright: the elephaas.herd authors
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
--
-- Every host and group name that the inventory will use has one owner. A collision found by the inventory plugin would
-- turn every run into "no hosts matched", so it is refused when the row is written, whoever writes it.
-- The rules are those of module_utils/decide/names.py; a test compares the two.

CREATE FUNCTION ele_group_name(name text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN name ~ '^[0-9]' THEN '_' ELSE '' END || regexp_replace(name, '[^A-Za-z0-9_]', '_', 'g')
$$;

CREATE TABLE ele_inventory_name (
    name text NOT NULL,
    kind text NOT NULL,
    owner_id int NOT NULL,
    CONSTRAINT ele_inventory_name_taken UNIQUE (name) DEFERRABLE,
    CONSTRAINT ele_inventory_name_reserved CHECK (
        kind NOT IN ('server', 'herd')
        OR (name NOT IN ('all', 'ungrouped', 'primaries', 'replicas', 'online', 'offline', 'instances', 'servers',
                         'leads', 'former_leads', 'dr_pairs', 'localhost')
            AND name !~ '^(env_|dc_|server_|pg_[0-9])'))
);
CREATE INDEX ele_inventory_name_owner ON ele_inventory_name (kind, owner_id);

CREATE FUNCTION ele_claim_names() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_TABLE_NAME = 'ele_environment' THEN
        DELETE FROM ele_inventory_name WHERE kind = 'environment' AND owner_id = OLD.environment_id;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO ele_inventory_name
            VALUES (ele_group_name('env_' || NEW.env_name), 'environment', NEW.environment_id);
            DELETE FROM ele_inventory_name n USING ele_herd h
             WHERE n.kind = 'herd' AND n.owner_id = h.herd_id AND h.environment_id = NEW.environment_id;
            INSERT INTO ele_inventory_name
            SELECT ele_group_name(herd_name || '_' || NEW.env_name), 'herd', herd_id
              FROM ele_herd WHERE environment_id = NEW.environment_id;
        END IF;
    ELSIF TG_TABLE_NAME = 'ele_datacenter' THEN
        DELETE FROM ele_inventory_name WHERE kind = 'datacenter' AND owner_id = OLD.datacenter_id;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO ele_inventory_name
            VALUES (ele_group_name('dc_' || NEW.dc_name), 'datacenter', NEW.datacenter_id);
        END IF;
    ELSIF TG_TABLE_NAME = 'ele_server' THEN
        DELETE FROM ele_inventory_name WHERE kind IN ('server', 'server group') AND owner_id = OLD.server_id;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO ele_inventory_name
            VALUES (NEW.hostname, 'server', NEW.server_id),
                   (ele_group_name('server_' || NEW.hostname), 'server group', NEW.server_id);
        END IF;
    ELSE
        DELETE FROM ele_inventory_name WHERE kind = 'herd' AND owner_id = OLD.herd_id;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO ele_inventory_name
            SELECT ele_group_name(NEW.herd_name || '_' || env_name), 'herd', NEW.herd_id
              FROM ele_environment WHERE environment_id = NEW.environment_id;
        END IF;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER ele_environment_names AFTER INSERT OR DELETE OR UPDATE OF env_name ON ele_environment
    FOR EACH ROW EXECUTE FUNCTION ele_claim_names();
CREATE TRIGGER ele_datacenter_names AFTER INSERT OR DELETE OR UPDATE OF dc_name ON ele_datacenter
    FOR EACH ROW EXECUTE FUNCTION ele_claim_names();
CREATE TRIGGER ele_server_names AFTER INSERT OR DELETE OR UPDATE OF hostname ON ele_server
    FOR EACH ROW EXECUTE FUNCTION ele_claim_names();
CREATE TRIGGER ele_herd_names AFTER INSERT OR DELETE OR UPDATE OF herd_name, environment_id ON ele_herd
    FOR EACH ROW EXECUTE FUNCTION ele_claim_names();

-- Claim the names of what is already there: environments take their herds' along.
UPDATE ele_environment SET env_name = env_name;
UPDATE ele_server SET hostname = hostname;
