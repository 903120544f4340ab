-- Copyright: the elephaas.herd authors
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
--
-- A restart that stopped half way is over: unlike an incomplete failover, nothing has to be finished by the same command.

ALTER TABLE ele_operation
    DROP CONSTRAINT ele_operation_state_known,
    ADD CONSTRAINT ele_operation_state_known
        CHECK (state IN ('open', 'incomplete', 'done', 'failed', 'aborted', 'refused', 'superseded'));
