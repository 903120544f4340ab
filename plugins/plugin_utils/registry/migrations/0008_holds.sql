-- Copyright: the elephaas.herd authors
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
--
-- Who put a herd on hold, and since when; and a history of that.

ALTER TABLE ele_herd
    ADD hold_by text,
    ADD hold_since timestamptz;
-- Of a hold that is there already nobody knows them; a blank reason never was one.
UPDATE ele_herd SET hold_reason = NULL WHERE btrim(hold_reason) = '';

-- Also for who types the row: a hold that is taken off leaves nothing behind, and a new one has a name and a time.
CREATE FUNCTION ele_herd_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF btrim(NEW.hold_reason) = '' THEN
        NEW.hold_reason := NULL;
    END IF;
    IF NEW.hold_reason IS NULL THEN
        NEW.hold_by := NULL;
        NEW.hold_since := NULL;
    ELSIF NEW.hold_reason IS DISTINCT FROM OLD.hold_reason
          AND (NEW.hold_by, NEW.hold_since) IS NOT DISTINCT FROM (OLD.hold_by, OLD.hold_since) THEN
        NEW.hold_by := session_user;
        NEW.hold_since := clock_timestamp();
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER ele_herd_hold BEFORE INSERT OR UPDATE OF hold_reason, hold_by, hold_since ON ele_herd
    FOR EACH ROW EXECUTE FUNCTION ele_herd_hold();

-- A hold claims nothing on any host, so it takes no token: a token of its own would make one that a failover without the
-- registry left on the hosts look like an old one.
ALTER TABLE ele_operation
    ALTER token DROP NOT NULL,
    ADD CONSTRAINT ele_operation_token_given CHECK (token IS NOT NULL OR verb IN ('hold', 'release'));
