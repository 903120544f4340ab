-- Copyright: the elephaas.herd authors
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
--
-- The layout of ElepHaaS 1.x, so that a new registry and one that grew up with 1.x go the same way from here.
-- Every migration runs in one transaction with search_path set to the registry's schema: no name is qualified, and
-- functions keep that path (SET search_path FROM CURRENT).

DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'util_exec')
       AND (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user) THEN
        CREATE ROLE util_exec NOLOGIN;
    END IF;
END
$$;

CREATE TABLE ele_environment (
    environment_id serial PRIMARY KEY,
    env_name varchar(40) NOT NULL,
    env_descr text,
    created_dt date NOT NULL DEFAULT current_date,
    modified_dt date NOT NULL DEFAULT current_date
);

CREATE TABLE ele_herd (
    herd_id serial PRIMARY KEY,
    environment_id int REFERENCES ele_environment ON DELETE SET NULL,
    base_name varchar(40) NOT NULL,
    herd_name varchar(40) NOT NULL,
    herd_descr text,
    db_port int NOT NULL DEFAULT 5432,
    pgdata varchar(100) NOT NULL,
    vhost varchar(40),
    created_dt date NOT NULL DEFAULT current_date,
    modified_dt date NOT NULL DEFAULT current_date
);

CREATE TABLE ele_server (
    server_id serial PRIMARY KEY,
    environment_id int REFERENCES ele_environment ON DELETE SET NULL,
    hostname varchar(40) NOT NULL,
    created_dt date NOT NULL DEFAULT current_date,
    modified_dt date NOT NULL DEFAULT current_date
);

CREATE TABLE ele_instance (
    instance_id serial PRIMARY KEY,
    herd_id int NOT NULL REFERENCES ele_herd ON DELETE CASCADE,
    server_id int NOT NULL REFERENCES ele_server ON DELETE CASCADE,
    version varchar(10),
    local_pgdata varchar(100),
    xlog_pos bigint,
    is_online boolean,
    master_id int REFERENCES ele_instance ON DELETE SET NULL,
    created_dt date NOT NULL DEFAULT current_date,
    modified_dt date NOT NULL DEFAULT current_date
);

CREATE FUNCTION sp_audit_stamps() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.created_dt := current_date;
    ELSE
        NEW.created_dt := OLD.created_dt;
    END IF;
    NEW.modified_dt := current_date;
    RETURN NEW;
END
$$;

CREATE TRIGGER t_audit_environment BEFORE INSERT OR UPDATE ON ele_environment
    FOR EACH ROW EXECUTE FUNCTION sp_audit_stamps();
CREATE TRIGGER t_audit_herd BEFORE INSERT OR UPDATE ON ele_herd
    FOR EACH ROW EXECUTE FUNCTION sp_audit_stamps();
CREATE TRIGGER t_audit_server BEFORE INSERT OR UPDATE ON ele_server
    FOR EACH ROW EXECUTE FUNCTION sp_audit_stamps();
CREATE TRIGGER t_audit_instance BEFORE INSERT OR UPDATE ON ele_instance
    FOR EACH ROW EXECUTE FUNCTION sp_audit_stamps();

CREATE VIEW v_flat_instance AS
SELECT i.instance_id, h.herd_id, s.server_id, e.environment_id, e.env_name, h.base_name, h.herd_name, h.db_port,
       coalesce(i.local_pgdata, h.pgdata) AS pgdata, h.vhost, s.hostname, i.version, i.xlog_pos, i.is_online,
       i.master_id, ms.hostname AS master_host
  FROM ele_instance i
  JOIN ele_herd h USING (herd_id)
  JOIN ele_server s USING (server_id)
  LEFT JOIN ele_environment e ON e.environment_id = h.environment_id
  LEFT JOIN ele_instance m ON m.instance_id = i.master_id
  LEFT JOIN ele_server ms ON ms.server_id = m.server_id;

CREATE VIEW v_dr_pairs AS
SELECT DISTINCT ON (r.herd_id) r.herd_id, r.instance_id, r.master_id, r.server_id,
       (p.xlog_pos - r.xlog_pos) / 1024 / 1024 AS mb_lag, h.vhost
  FROM ele_instance r
  JOIN ele_instance p ON p.instance_id = r.master_id
  JOIN ele_herd h ON h.herd_id = r.herd_id
 WHERE r.is_online
 ORDER BY r.herd_id, p.xlog_pos - r.xlog_pos NULLS LAST, r.instance_id;

CREATE FUNCTION sp_instance_checkin(sherd varchar, shost varchar, nport int, sver varchar, bonline boolean,
                                    sdatadir varchar, smasterhost varchar, nxlog bigint)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    nserver int;
    nenvironment int;
    nupstream int;
    nherd int;
    ninstance int;
BEGIN
    SELECT server_id, environment_id INTO nserver, nenvironment FROM ele_server WHERE hostname = shost;
    IF nserver IS NULL THEN
        INSERT INTO ele_server (hostname) VALUES (shost) RETURNING server_id INTO nserver;
    END IF;

    SELECT i.instance_id, i.herd_id INTO nupstream, nherd
      FROM ele_instance i
      JOIN ele_server s USING (server_id)
      JOIN ele_herd h USING (herd_id)
     WHERE s.hostname = smasterhost AND h.base_name = sherd
     ORDER BY h.db_port = nport DESC
     LIMIT 1;
    IF nherd IS NULL THEN
        SELECT herd_id INTO nherd FROM ele_herd
         WHERE base_name = sherd AND db_port = nport AND environment_id = nenvironment;
    END IF;
    IF nherd IS NULL THEN
        RETURN;
    END IF;

    SELECT instance_id INTO ninstance FROM ele_instance WHERE herd_id = nherd AND server_id = nserver;
    IF ninstance IS NULL THEN
        INSERT INTO ele_instance (herd_id, server_id, version, local_pgdata, xlog_pos, is_online, master_id)
        SELECT nherd, nserver, sver, nullif(sdatadir, h.pgdata), nxlog, bonline, nupstream
          FROM ele_herd h WHERE h.herd_id = nherd;
    ELSE
        UPDATE ele_instance
           SET version = CASE WHEN string_to_array(version, '.')::int[] > string_to_array(sver, '.')::int[]
                              THEN version ELSE coalesce(sver, version) END,
               xlog_pos = coalesce(nxlog, xlog_pos), is_online = bonline,
               master_id = coalesce(nupstream, master_id)
         WHERE instance_id = ninstance;
    END IF;
END
$$;
REVOKE ALL ON FUNCTION sp_instance_checkin(varchar, varchar, int, varchar, boolean, varchar, varchar, bigint) FROM PUBLIC;
