-- Copyright: the elephaas.herd authors
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
--
-- Everything belongs to an environment; servers get an address, a data center and the way in.

-- The 1.x views, its reporter function and its audit triggers stand on columns that change type or name here and in
-- the next migrations; 0005 brings them back, with the same columns and the same signature.
DROP VIEW IF EXISTS v_dr_pairs;
DROP VIEW IF EXISTS v_flat_instance;
DO $$
DECLARE
    item record;
BEGIN
    FOR item IN
        SELECT p.oid::regprocedure AS signature FROM pg_proc p
         WHERE p.proname = 'sp_instance_checkin' AND p.pronamespace = quote_ident(current_schema())::regnamespace
    LOOP
        EXECUTE format('DROP FUNCTION %s', item.signature);
    END LOOP;
    FOR item IN
        SELECT t.tgname, t.tgrelid::regclass AS relation FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
         WHERE p.proname = 'sp_audit_stamps' AND p.pronamespace = quote_ident(current_schema())::regnamespace
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', item.tgname, item.relation);
    END LOOP;
    DROP FUNCTION IF EXISTS sp_audit_stamps();
    -- Foreign keys come back below under names of ours: 1.x databases differ in how theirs are called.
    FOR item IN
        SELECT c.conname, c.conrelid::regclass AS relation FROM pg_constraint c
         WHERE c.contype = 'f' AND c.conrelid IN ('ele_herd'::regclass, 'ele_server'::regclass, 'ele_instance'::regclass)
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', item.relation, item.conname);
    END LOOP;
END
$$;

-- Say everything that a person has to mend at once, by name; the constraints below would stop at the first, by rule.
DO $$
DECLARE
    problems text;
BEGIN
    SELECT string_agg(problem, E'\n') INTO problems FROM (
        SELECT format('environment %L is not a name', env_name) AS problem FROM ele_environment
         WHERE env_name IS NULL OR env_name !~ '^[A-Za-z0-9][A-Za-z0-9_.-]*$'
        UNION ALL
        SELECT format('environment %L is there %s times', env_name, count(*)) FROM ele_environment
         GROUP BY env_name HAVING count(*) > 1
        UNION ALL
        SELECT format('server %L is not a name', hostname) FROM ele_server
         WHERE hostname IS NULL OR hostname !~ '^[A-Za-z0-9][A-Za-z0-9_.-]*$'
        UNION ALL
        SELECT format('server %L is there %s times', hostname, count(*)) FROM ele_server
         GROUP BY hostname HAVING count(*) > 1
        UNION ALL
        SELECT format('herd %L is not a name', herd_name) FROM ele_herd
         WHERE herd_name IS NULL OR herd_name !~ '^[A-Za-z0-9][A-Za-z0-9_.-]*$'
        UNION ALL
        SELECT format('herd %L is there %s times in one environment', herd_name, count(*)) FROM ele_herd
         GROUP BY environment_id, herd_name HAVING count(*) > 1
        UNION ALL
        SELECT format('herd %L: base name %L is not a name', herd_name, base_name) FROM ele_herd
         WHERE base_name !~ '^[A-Za-z0-9][A-Za-z0-9_.-]*$'
        UNION ALL
        SELECT format('herd %L: port %s', herd_name, db_port) FROM ele_herd WHERE db_port NOT BETWEEN 1 AND 65535
        UNION ALL
        SELECT format('herd %L: pgdata %L is not absolute', herd_name, pgdata) FROM ele_herd WHERE pgdata !~ '^/'
        UNION ALL
        SELECT format('instance %s: local_pgdata %L is not absolute', instance_id, local_pgdata) FROM ele_instance
         WHERE local_pgdata !~ '^/'
        UNION ALL
        SELECT format('herd %L has server %L %s times', herd_name, hostname, count(*))
          FROM ele_instance JOIN ele_herd USING (herd_id) JOIN ele_server USING (server_id)
         GROUP BY herd_id, herd_name, server_id, hostname HAVING count(*) > 1
        UNION ALL
        SELECT format('server %L: port %s is that of %s herds', hostname, db_port, count(*))
          FROM ele_instance JOIN ele_herd USING (herd_id) JOIN ele_server USING (server_id)
         GROUP BY server_id, hostname, db_port HAVING count(DISTINCT herd_id) > 1
        UNION ALL
        SELECT format('server %L: directory %L is that of %s herds', hostname, coalesce(local_pgdata, pgdata), count(*))
          FROM ele_instance JOIN ele_herd USING (herd_id) JOIN ele_server USING (server_id)
         GROUP BY server_id, hostname, coalesce(local_pgdata, pgdata) HAVING count(DISTINCT herd_id) > 1
        UNION ALL
        SELECT format('instance %s streams from instance %s of another herd', r.instance_id, u.instance_id)
          FROM ele_instance r JOIN ele_instance u ON u.instance_id = r.master_id WHERE u.herd_id <> r.herd_id
    ) found;
    IF problems IS NOT NULL THEN
        RAISE EXCEPTION 'rows that the new layout can not hold' USING DETAIL = problems, ERRCODE = 'check_violation';
    END IF;
END
$$;

ALTER TABLE ele_environment
    ALTER created_dt TYPE timestamptz, ALTER created_dt SET DEFAULT now(),
    ALTER modified_dt TYPE timestamptz, ALTER modified_dt SET DEFAULT now(),
    ALTER env_name TYPE varchar(63), ALTER env_name SET NOT NULL,
    ADD protected boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT ele_environment_name_valid CHECK (env_name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]*$'),
    ADD CONSTRAINT ele_environment_name_unique UNIQUE (env_name) DEFERRABLE;

INSERT INTO ele_environment (env_name, env_descr)
SELECT 'unassigned', 'Servers and herds that nobody has given an environment yet.'
 WHERE (EXISTS (SELECT 1 FROM ele_server WHERE environment_id IS NULL)
        OR EXISTS (SELECT 1 FROM ele_herd WHERE environment_id IS NULL))
   AND NOT EXISTS (SELECT 1 FROM ele_environment WHERE env_name = 'unassigned');
UPDATE ele_server SET environment_id = (SELECT environment_id FROM ele_environment WHERE env_name = 'unassigned')
 WHERE environment_id IS NULL;
UPDATE ele_herd SET environment_id = (SELECT environment_id FROM ele_environment WHERE env_name = 'unassigned')
 WHERE environment_id IS NULL;

CREATE TABLE ele_datacenter (
    datacenter_id serial PRIMARY KEY,
    dc_name varchar(63) NOT NULL,
    dc_descr text,
    networks cidr[] NOT NULL DEFAULT '{}',
    created_dt timestamptz NOT NULL DEFAULT now(),
    modified_dt timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ele_datacenter_name_valid CHECK (dc_name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]*$'),
    CONSTRAINT ele_datacenter_name_unique UNIQUE (dc_name) DEFERRABLE
);

ALTER TABLE ele_server
    ALTER created_dt TYPE timestamptz, ALTER created_dt SET DEFAULT now(),
    ALTER modified_dt TYPE timestamptz, ALTER modified_dt SET DEFAULT now(),
    ALTER environment_id SET NOT NULL,
    ALTER hostname TYPE varchar(63), ALTER hostname SET NOT NULL,
    ADD datacenter_id int,
    ADD address text,
    ADD dns_name text,
    ADD ssh_port int NOT NULL DEFAULT 22,
    ADD ssh_user text NOT NULL DEFAULT 'postgres',
    ADD CONSTRAINT ele_server_environment FOREIGN KEY (environment_id) REFERENCES ele_environment,
    ADD CONSTRAINT ele_server_datacenter FOREIGN KEY (datacenter_id) REFERENCES ele_datacenter,
    ADD CONSTRAINT ele_server_name_valid CHECK (hostname ~ '^[A-Za-z0-9][A-Za-z0-9_.-]*$'),
    ADD CONSTRAINT ele_server_name_unique UNIQUE (hostname) DEFERRABLE,
    ADD CONSTRAINT ele_server_ssh_port_valid CHECK (ssh_port BETWEEN 1 AND 65535);

-- What 1.x inserted without an environment still goes in, and is seen as such.
CREATE FUNCTION ele_fill_environment() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF NEW.environment_id IS NULL THEN
        SELECT environment_id INTO NEW.environment_id FROM ele_environment WHERE env_name = 'unassigned';
        IF NOT FOUND THEN
            INSERT INTO ele_environment (env_name, env_descr)
            VALUES ('unassigned', 'Servers and herds that nobody has given an environment yet.')
            RETURNING environment_id INTO NEW.environment_id;
        END IF;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER ele_server_environment BEFORE INSERT OR UPDATE ON ele_server
    FOR EACH ROW EXECUTE FUNCTION ele_fill_environment();

CREATE FUNCTION sp_audit_stamps() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.created_dt := now();
    ELSE
        NEW.created_dt := OLD.created_dt;
    END IF;
    NEW.modified_dt := now();
    RETURN NEW;
END
$$;
CREATE TRIGGER ele_environment_stamps BEFORE INSERT OR UPDATE ON ele_environment
    FOR EACH ROW EXECUTE FUNCTION sp_audit_stamps();
CREATE TRIGGER ele_datacenter_stamps BEFORE INSERT OR UPDATE ON ele_datacenter
    FOR EACH ROW EXECUTE FUNCTION sp_audit_stamps();
CREATE TRIGGER ele_server_stamps BEFORE INSERT OR UPDATE ON ele_server
    FOR EACH ROW EXECUTE FUNCTION sp_audit_stamps();
