-- Copyright: the elephaas.herd authors
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
--
-- Herds say how their members are run; instances get a recorded role, and what can not be is refused here.

ALTER TABLE ele_herd
    ALTER created_dt TYPE timestamptz, ALTER created_dt SET DEFAULT now(),
    ALTER modified_dt TYPE timestamptz, ALTER modified_dt SET DEFAULT now(),
    ALTER environment_id SET NOT NULL,
    ALTER herd_name TYPE varchar(63), ALTER herd_name SET NOT NULL,
    ALTER base_name TYPE varchar(63),
    ALTER db_port SET NOT NULL,
    ALTER pgdata TYPE text, ALTER pgdata SET NOT NULL,
    ALTER vhost TYPE text,
    ADD os_user text NOT NULL DEFAULT 'postgres',
    ADD control text NOT NULL DEFAULT 'auto',
    ADD replication_user text,
    ADD hold_reason text,
    ADD last_token bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT ele_herd_environment FOREIGN KEY (environment_id) REFERENCES ele_environment,
    ADD CONSTRAINT ele_herd_name_valid CHECK (herd_name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]*$'),
    ADD CONSTRAINT ele_herd_base_name_valid CHECK (base_name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]*$'),
    ADD CONSTRAINT ele_herd_name_unique UNIQUE (environment_id, herd_name) DEFERRABLE,
    ADD CONSTRAINT ele_herd_port_valid CHECK (db_port BETWEEN 1 AND 65535),
    ADD CONSTRAINT ele_herd_pgdata_absolute CHECK (pgdata ~ '^/'),
    ADD CONSTRAINT ele_herd_control_known CHECK (control IN ('auto', 'pg_ctl', 'pg_ctlcluster'));
UPDATE ele_herd SET base_name = lower(herd_name) WHERE base_name IS NULL;
ALTER TABLE ele_herd ALTER base_name SET NOT NULL;

ALTER TABLE ele_instance RENAME master_id TO upstream_id;
ALTER TABLE ele_instance
    ALTER created_dt TYPE timestamptz, ALTER created_dt SET DEFAULT now(),
    ALTER modified_dt TYPE timestamptz, ALTER modified_dt SET DEFAULT now(),
    ALTER herd_id SET NOT NULL,
    ALTER server_id SET NOT NULL,
    ALTER version TYPE text,
    ALTER local_pgdata TYPE text,
    ADD local_port int,
    ADD effective_port int,
    ADD effective_pgdata text,
    ADD role text,
    ADD priority int NOT NULL DEFAULT 0,
    ADD system_identifier text,
    ADD timeline bigint,
    ADD lsn pg_lsn,
    ADD lag_bytes bigint,
    ADD last_seen timestamptz;

-- 1.x knew no roles. The only member without an upstream is the primary; of several, the only one that others stream
-- from; otherwise nobody knows, and no primary is recorded until a check-in finds it.
UPDATE ele_instance SET role = CASE WHEN upstream_id IS NULL THEN 'detached' ELSE 'replica' END;
UPDATE ele_instance i SET role = 'primary'
  FROM (SELECT herd_id, min(instance_id) AS instance_id FROM ele_instance WHERE upstream_id IS NULL
         GROUP BY herd_id HAVING count(*) = 1) only_one
 WHERE i.instance_id = only_one.instance_id;
UPDATE ele_instance i SET role = 'primary'
  FROM (SELECT u.herd_id, min(u.instance_id) AS instance_id FROM ele_instance u
         WHERE u.upstream_id IS NULL
           AND EXISTS (SELECT 1 FROM ele_instance r WHERE r.upstream_id = u.instance_id)
         GROUP BY u.herd_id HAVING count(*) = 1) only_followed
 WHERE i.instance_id = only_followed.instance_id
   AND NOT EXISTS (SELECT 1 FROM ele_instance p WHERE p.herd_id = i.herd_id AND p.role = 'primary');
-- A position in bytes is what pg_lsn prints as two hexadecimal halves (pg_lsn + numeric exists from 14 on only).
UPDATE ele_instance SET lsn = (to_hex(xlog_pos >> 32) || '/' || to_hex(xlog_pos & 4294967295))::pg_lsn
 WHERE xlog_pos IS NOT NULL;
ALTER TABLE ele_instance DROP xlog_pos;
UPDATE ele_instance i
   SET effective_port = h.db_port, local_pgdata = nullif(i.local_pgdata, h.pgdata),
       effective_pgdata = coalesce(i.local_pgdata, h.pgdata)
  FROM ele_herd h WHERE h.herd_id = i.herd_id;

ALTER TABLE ele_instance
    ALTER role SET NOT NULL,
    ALTER effective_port SET NOT NULL,
    ALTER effective_pgdata SET NOT NULL,
    ADD CONSTRAINT ele_instance_of_herd UNIQUE (instance_id, herd_id),
    ADD CONSTRAINT ele_instance_herd FOREIGN KEY (herd_id) REFERENCES ele_herd ON DELETE CASCADE,
    ADD CONSTRAINT ele_instance_server FOREIGN KEY (server_id) REFERENCES ele_server,
    ADD CONSTRAINT ele_instance_upstream_in_herd FOREIGN KEY (upstream_id, herd_id)
        REFERENCES ele_instance (instance_id, herd_id) DEFERRABLE,
    ADD CONSTRAINT ele_instance_once_per_server UNIQUE (herd_id, server_id) DEFERRABLE,
    ADD CONSTRAINT ele_instance_port_once_per_server UNIQUE (server_id, effective_port) DEFERRABLE,
    ADD CONSTRAINT ele_instance_pgdata_once_per_server UNIQUE (server_id, effective_pgdata) DEFERRABLE,
    -- A partial unique index can not be deferred, an exclusion constraint can: two members swap roles in one transaction.
    ADD CONSTRAINT ele_instance_one_primary EXCLUDE USING btree (herd_id WITH =) WHERE (role = 'primary') DEFERRABLE,
    ADD CONSTRAINT ele_instance_role_known CHECK (role IN ('primary', 'replica', 'detached', 'superseded')),
    ADD CONSTRAINT ele_instance_primary_has_no_upstream CHECK (role <> 'primary' OR upstream_id IS NULL),
    ADD CONSTRAINT ele_instance_port_valid CHECK (effective_port BETWEEN 1 AND 65535),
    ADD CONSTRAINT ele_instance_pgdata_absolute CHECK (effective_pgdata ~ '^/'),
    ADD CONSTRAINT ele_instance_system_identifier_valid CHECK (system_identifier ~ '^[0-9]+$');

CREATE FUNCTION ele_instance_fill() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    herd ele_herd;
BEGIN
    -- The herd's own row is locked against a change of its port or directory that would miss this new member.
    SELECT * INTO herd FROM ele_herd WHERE herd_id = NEW.herd_id FOR KEY SHARE;
    NEW.effective_port := coalesce(NEW.local_port, herd.db_port);
    NEW.effective_pgdata := coalesce(NEW.local_pgdata, herd.pgdata);
    IF NEW.role IS NULL THEN
        NEW.role := CASE
            WHEN NEW.upstream_id IS NOT NULL THEN 'replica'
            WHEN EXISTS (SELECT 1 FROM ele_instance WHERE herd_id = NEW.herd_id AND role = 'primary') THEN 'detached'
            ELSE 'primary' END;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER ele_instance_fill BEFORE INSERT OR UPDATE ON ele_instance
    FOR EACH ROW EXECUTE FUNCTION ele_instance_fill();

CREATE FUNCTION ele_herd_places() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    -- The instances' own trigger fills in what follows from the herd.
    UPDATE ele_instance SET herd_id = herd_id WHERE herd_id = NEW.herd_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER ele_herd_places AFTER UPDATE OF db_port, pgdata ON ele_herd
    FOR EACH ROW WHEN (OLD.db_port <> NEW.db_port OR OLD.pgdata <> NEW.pgdata) EXECUTE FUNCTION ele_herd_places();

CREATE FUNCTION ele_instance_no_loop() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    looping text;
BEGIN
    -- Two sessions could each make one half of a loop and see nothing wrong: one herd, one at a time.
    PERFORM 1 FROM ele_herd WHERE herd_id = NEW.herd_id FOR NO KEY UPDATE;
    WITH RECURSIVE chain AS (
        SELECT instance_id, upstream_id, ARRAY[instance_id] AS seen, false AS loops
          FROM ele_instance WHERE instance_id = NEW.instance_id
        UNION ALL
        SELECT i.instance_id, i.upstream_id, chain.seen || i.instance_id, i.instance_id = ANY (chain.seen)
          FROM chain JOIN ele_instance i ON i.instance_id = chain.upstream_id
         WHERE NOT chain.loops
    )
    SELECT (SELECT hostname FROM ele_instance JOIN ele_server USING (server_id) WHERE instance_id = NEW.instance_id)
      INTO looping FROM chain WHERE loops;
    IF looping IS NOT NULL THEN
        RAISE EXCEPTION 'the member on server "%" would stream from itself, in the end', looping
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ele_instance_no_loop', TABLE = 'ele_instance';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER ele_instance_no_loop AFTER INSERT OR UPDATE OF upstream_id ON ele_instance
    DEFERRABLE FOR EACH ROW WHEN (NEW.upstream_id IS NOT NULL) EXECUTE FUNCTION ele_instance_no_loop();
-- Rows that were there before are tested once.
UPDATE ele_instance SET upstream_id = upstream_id WHERE upstream_id IS NOT NULL;

CREATE TRIGGER ele_herd_environment BEFORE INSERT OR UPDATE ON ele_herd
    FOR EACH ROW EXECUTE FUNCTION ele_fill_environment();
CREATE TRIGGER ele_herd_stamps BEFORE INSERT OR UPDATE ON ele_herd
    FOR EACH ROW EXECUTE FUNCTION sp_audit_stamps();
CREATE TRIGGER ele_instance_stamps BEFORE INSERT OR UPDATE ON ele_instance
    FOR EACH ROW EXECUTE FUNCTION sp_audit_stamps();
