# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every trap of a failover that was reproduced, and every bug that others shipped, with the tests that show it closed.

This is the page to read first when one of those tests is to be changed: what it says must stay tested somewhere.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

#: What happens to PostgreSQL, however it is driven.
REPRODUCED = {
    "one frozen sibling makes a stop wait, and pg_controldata says shut down while the postmaster lives on": (
        "integration/test_postgres_verbs.py::test_while_a_sibling_hangs_the_primary_is_not_stopped",
        "integration/test_failover_interrupted.py::test_a_candidate_that_never_gets_the_last_record_is_not_promoted",
    ),
    "the position of a shutdown checkpoint is where it starts; only the whole record is a proof": (
        "unit/postgres/test_reading.py::test_everything_else_proves_nothing",
        "integration/test_postgres_verbs.py::test_the_end_of_every_record_is_where_the_server_says",
        "unit/decide/test_timelines.py::test_the_end_of_a_shutdown_checkpoint_crosses_pages_and_segments",
    ),
    "a primary that restarts after it was armed, even after a crash of one backend, must come up read-only": (
        "integration/test_postgres_verbs.py::test_killed_after_arming_it_comes_up_read_only",
        "integration/test_postgres_verbs.py::test_a_backend_crash_after_arming_leaves_nothing_writable_behind",
    ),
    "the received position starts again at the beginning of a segment after a restart: the larger one counts": (
        "integration/test_postgres_verbs.py::test_after_a_restart_a_replica_says_it_has_received_less_than_it_replayed",
        "unit/decide/test_timelines.py::test_what_it_holds_alone",
    ),
    "statement_timeout does not end a write that waits for a synchronous replica": (
        "integration/test_postgres_verbs.py::test_nothing_waits_for_a_synchronous_replica_that_is_not_there",
        "integration/test_failover_odd.py::test_it_fails_over",
        "integration/test_failover_odd.py::test_refused_in_check_mode_and_in_the_real_run",
        "unit/decide/test_checks.py::test_synchronous_standbys_must_be_there",
    ),
    "replicas of a frozen primary still show streaming": (
        "integration/test_failover_unplanned.py::test_a_frozen_primary_is_fenced",
    ),
    "shut down in recovery without a signal file starts writable on the same timeline": (
        "integration/test_demote.py::test_a_replica_without_its_signal_file",
        "unit/decide/test_bulk.py::test_a_replica_that_would_come_up_writable",
        "unit/decide/test_timelines.py::test_the_trap_of_a_replica_that_lost_its_signal_file",
    ),
    "a checkpoint of the new primary takes minutes and recycles WAL that a sibling needs: it comes after DNS": (
        "unit/failover/test_conducting.py::test_the_order_of_a_planned_failover",
    ),
    "where a setting that replicas must match was lowered, a replica that restarts first does not come up": (
        "integration/test_bulk.py::test_lowered_raised_and_mixed_settings",
        "unit/decide/test_bulk.py::test_a_lowered_setting_turns_the_order_round",
    ),
    "numbers of timelines collide": (
        "unit/decide/test_bulk.py::test_a_timeline_is_told_by_its_history_and_not_by_its_number",
    ),
    "a replica that replays late reaches the new timeline late": (
        "integration/test_failover_odd.py::test_a_delayed_replica_keeps_its_delay",
    ),
}

#: Bugs of other tools that concern a failover.
OF_OTHERS = {
    "a failed switchover left daemons stopped or the old primary down": (
        "unit/failover/test_conducting.py::test_without_a_promotion_the_old_primary_is_brought_back",
        "integration/test_failover_interrupted.py::test_without_its_waiter_a_failover_is_undone",
        "integration/test_failover_hooks.py::test_one_that_fails_before_the_stop_leaves_everything_as_it_was",
    ),
    "errors of the switchover command were ignored, then the live leader was stopped": (
        "unit/failover/test_conducting.py::test_nobody_is_stopped_after_something_was_refused",
        "unit/failover/test_conducting.py::test_nobody_is_promoted_before_death_is_proven_and_every_receiver_is_gone",
    ),
    "not ansible_check_mode switched off exactly the checks that mattered": (
        "unit/failover/test_rehearsal.py::test_check_mode_refuses_what_the_real_run_refuses",
        "integration/test_failover_refused.py::test_each_trouble_is_refused_and_stops_nobody_else",
    ),
    "a dry run of a promotion promoted": (
        "integration/test_postgres_verbs.py::test_check_mode_looks_at_everything_and_changes_nothing",
        "integration/test_failover.py::test_a_rehearsal_shows_the_plan_and_changes_nothing",
    ),
    "exit 0 after something failed": (
        "unit/failover/test_conducting.py::test_a_member_that_does_not_follow_leaves_it_incomplete",
        "integration/test_failover_refused.py::test_each_trouble_is_refused_and_stops_nobody_else",
        "integration/test_failover_hooks.py::test_one_that_fails_after_the_promotion_does_not_keep_applications_waiting",
    ),
    "status unknown after success": (
        "integration/test_failover.py::test_the_confirmed_plan_is_what_happens",
        "integration/test_failover_without_registry.py::test_a_failover_without_the_registry_is_on_record_afterwards",
    ),
    "on the same timeline but ahead of the new primary, where a rewind does nothing and it never catches up": (
        "integration/test_demote.py::test_a_diverged_one_stays_stopped_with_all_that_it_holds",
        "unit/decide/test_timelines.py::test_what_it_holds_alone",
        "unit/failover/test_conducting.py::test_who_turns_out_to_hold_more_is_not_passed_over",
    ),
    "siblings were not attached to the new primary": (
        "integration/test_failover.py::test_the_confirmed_plan_is_what_happens",
        "integration/test_failover_odd.py::test_it_fails_over",
    ),
    "a cascade was left on the old timeline": (
        "integration/test_failover_odd.py::test_a_cascade_two_deep_gets_what_is_written_on_the_new_timeline",
    ),
    "the command ran on the wrong cluster because a name was ambiguous": (
        "unit/failover/test_conducting.py::test_the_order_of_a_planned_failover",
        "integration/test_postgres_verbs.py::test_another_instance_is_not_touched",
        "integration/test_failover.py::test_a_limit_that_selects_no_lead_is_an_error",
    ),
    "after a site came back, a bulk start brought the old primary up writable": (
        "integration/test_bulk.py::test_an_old_primary_is_not_started_beside_the_new_one",
        "integration/test_demote.py::test_no_start_and_no_restart_brings_one_up_writable",
        "integration/test_postgres_verbs.py::test_a_primary_that_a_failover_took_away_is_not_started_by_itself",
        "unit/decide/test_bulk.py::test_a_start_never_makes_a_second_primary",
    ),
    "a user was switched to a replica that was behind on replay only": (
        "integration/test_failover_odd.py::test_refused_in_check_mode_and_in_the_real_run",
        "unit/decide/test_failover_plan.py::test_a_replica_behind_on_replay_only_is_no_candidate",
    ),
}

#: What holds when two controllers act at once, or one has died.
TOGETHER = {
    "the same herd, with the registry": (
        "integration/test_failover.py::test_two_operators_at_once",
        "integration/test_registry_operations.py::test_of_two_that_begin_at_once_one_wins",
        "unit/failover/test_conducting.py::test_a_run_that_was_overtaken_stops_nobody",
    ),
    "the same herd, without the registry": (
        "unit/failover/test_conducting.py::test_a_claim_of_another_run_on_any_host_ends_this_one",
        "unit/postgres/test_token.py::test_of_many_claims_with_one_token_one_plan_wins",
        "unit/decide/test_failover_plan.py::test_without_the_registry_a_live_claim_on_a_host_holds_the_herd",
    ),
    "different herds on the same hosts": (
        "unit/postgres/test_token.py::test_herds_on_one_host_do_not_stand_in_each_others_way",
    ),
    "a dead run's lease is taken over, a live one's is not": (
        "integration/test_registry_operations.py::test_a_lease_that_ended_is_taken_over_and_the_old_token_counts_no_more",
        "integration/test_registry_operations.py::test_a_holder_that_died_on_this_host_is_taken_over_at_once",
        "integration/test_registry_operations.py::test_a_live_lease_is_refused_by_name_and_time",
        "integration/test_failover_interrupted.py::test_the_same_command_ends_what_a_dead_controller_began",
        "unit/postgres/test_token.py::test_claims",
    ),
}

ALL = {**REPRODUCED, **OF_OTHERS, **TOGETHER}


@pytest.mark.parametrize("trap", ALL)
def test_it_is_shown_closed_by_tests_that_are_there(trap: str) -> None:
    for place in ALL[trap]:
        file, _colons, name = place.partition("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)], place
