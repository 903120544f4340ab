-- Copyright: the elephaas.herd authors
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
--
-- Operations with lease, token and history; and what readers and reporters of 1.x used, on the new columns.

-- Names are kept beside the herd's id: history outlives the herd.
CREATE TABLE ele_operation (
    operation_id bigserial PRIMARY KEY,
    herd_id int REFERENCES ele_herd ON DELETE SET NULL,
    env_name text NOT NULL,
    herd_name text NOT NULL,
    verb text NOT NULL,
    state text NOT NULL DEFAULT 'open',
    token bigint NOT NULL,
    plan_id text,
    from_server text,
    to_server text,
    operator text NOT NULL,
    holder jsonb NOT NULL DEFAULT '{}',
    lease_until timestamptz,
    started_dt timestamptz NOT NULL DEFAULT now(),
    finished_dt timestamptz,
    plan jsonb NOT NULL DEFAULT '{}',
    phases jsonb NOT NULL DEFAULT '[]',
    detail jsonb NOT NULL DEFAULT '{}',
    awx jsonb NOT NULL DEFAULT '{}',
    without_registry boolean NOT NULL DEFAULT false,
    created_dt timestamptz NOT NULL DEFAULT now(),
    modified_dt timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ele_operation_state_known
        CHECK (state IN ('open', 'incomplete', 'done', 'aborted', 'refused', 'superseded'))
);
CREATE UNIQUE INDEX ele_operation_one_open ON ele_operation (herd_id) WHERE state IN ('open', 'incomplete');
CREATE UNIQUE INDEX ele_operation_token ON ele_operation (herd_id, token);
CREATE INDEX ele_operation_newest ON ele_operation (herd_id, operation_id DESC);
CREATE TRIGGER ele_operation_stamps BEFORE INSERT OR UPDATE ON ele_operation
    FOR EACH ROW EXECUTE FUNCTION sp_audit_stamps();

CREATE VIEW v_flat_instance AS
SELECT i.instance_id, h.herd_id, s.server_id, e.environment_id, e.env_name, h.base_name, h.herd_name,
       i.effective_port AS db_port, i.effective_pgdata AS pgdata, h.vhost, s.hostname, i.version,
       (i.lsn - '0/0'::pg_lsn)::bigint AS xlog_pos, i.is_online, i.upstream_id AS master_id, us.hostname AS master_host,
       i.role, us.hostname AS upstream_server, i.lag_bytes, i.timeline, i.system_identifier, i.last_seen,
       dc.dc_name, s.address
  FROM ele_instance i
  JOIN ele_herd h ON h.herd_id = i.herd_id
  JOIN ele_environment e ON e.environment_id = h.environment_id
  JOIN ele_server s ON s.server_id = i.server_id
  LEFT JOIN ele_datacenter dc ON dc.datacenter_id = s.datacenter_id
  LEFT JOIN ele_instance u ON u.instance_id = i.upstream_id
  LEFT JOIN ele_server us ON us.server_id = u.server_id;

CREATE VIEW v_dr_pairs AS
SELECT DISTINCT ON (r.herd_id) r.herd_id, r.instance_id, r.upstream_id AS master_id, r.server_id,
       coalesce(r.lag_bytes, (p.lsn - r.lsn)::bigint) / 1024 / 1024 AS mb_lag, h.vhost
  FROM ele_instance r
  JOIN ele_instance p ON p.instance_id = r.upstream_id
  JOIN ele_herd h ON h.herd_id = r.herd_id
 WHERE r.is_online
 ORDER BY r.herd_id, coalesce(r.lag_bytes, (p.lsn - r.lsn)::bigint) NULLS LAST, r.instance_id;

-- The reporter of 1.x calls this with named arguments. It records what it saw; roles are moved by an operation or by a
-- check-in that saw the whole herd, never by one host's word.
CREATE FUNCTION sp_instance_checkin(sherd varchar, shost varchar, nport int, sver varchar, bonline boolean,
                                    sdatadir varchar, smasterhost varchar, nxlog bigint)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    nserver int;
    nenvironment int;
    nupstream int;
    nherd int;
    ninstance int;
    position pg_lsn := (to_hex(nxlog >> 32) || '/' || to_hex(nxlog & 4294967295))::pg_lsn;
BEGIN
    INSERT INTO ele_server (hostname) SELECT shost
     WHERE NOT EXISTS (SELECT 1 FROM ele_server WHERE hostname = shost);
    SELECT server_id, environment_id INTO nserver, nenvironment FROM ele_server WHERE hostname = shost;

    SELECT i.instance_id, i.herd_id INTO nupstream, nherd
      FROM ele_instance i
      JOIN ele_server s ON s.server_id = i.server_id
      JOIN ele_herd h ON h.herd_id = i.herd_id
     WHERE s.hostname = smasterhost AND h.base_name = sherd
     ORDER BY i.effective_port = nport DESC, i.instance_id
     LIMIT 1;
    IF nherd IS NULL THEN
        SELECT h.herd_id INTO nherd
          FROM ele_herd h LEFT JOIN ele_instance i ON i.herd_id = h.herd_id AND i.server_id = nserver
         WHERE h.base_name = sherd AND h.environment_id = nenvironment
           AND coalesce(i.effective_port, h.db_port) = nport
         ORDER BY h.herd_id
         LIMIT 1;
    END IF;
    IF nherd IS NULL THEN
        RETURN;
    END IF;

    SELECT instance_id INTO ninstance FROM ele_instance WHERE herd_id = nherd AND server_id = nserver;
    IF ninstance IS NULL THEN
        INSERT INTO ele_instance (herd_id, server_id, version, local_pgdata, local_port, lsn, is_online, upstream_id, last_seen)
        SELECT nherd, nserver, sver, nullif(sdatadir, h.pgdata), nullif(nport, h.db_port), position, bonline, nupstream, now()
          FROM ele_herd h WHERE h.herd_id = nherd;
    ELSE
        UPDATE ele_instance
           SET version = CASE
                   WHEN version ~ '^[0-9]+(\.[0-9]+)*$' AND sver ~ '^[0-9]+(\.[0-9]+)*$'
                        AND string_to_array(version, '.')::int[] > string_to_array(sver, '.')::int[] THEN version
                   ELSE coalesce(sver, version) END,
               lsn = coalesce(position, lsn),
               is_online = bonline,
               last_seen = now(),
               upstream_id = CASE WHEN role = 'replica' THEN coalesce(nupstream, upstream_id) ELSE upstream_id END
         WHERE instance_id = ninstance;
    END IF;
END
$$;
REVOKE ALL ON FUNCTION sp_instance_checkin(varchar, varchar, int, varchar, boolean, varchar, varchar, bigint) FROM PUBLIC;
