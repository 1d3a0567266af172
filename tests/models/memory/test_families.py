"""What is tested of memories: fourteen families, where each is, and that no kind is left out."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest

from cupel.models.memory.points import POINTS
from cupel.models.memory.settings import CMSSettings, MemoryModelSettings
from memory_models import KINDS, MIXERS

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

# A test each, or more, of a family; docs/memory.md says what it holds.
FAMILIES: dict[str, tuple[str, ...]] = {
    "values": (
        "test_chunk::test_titans_memory",
        "test_hope::test_a_layer_is_its_equations",
        "test_loops::test_hope_attention_is_levels_behind_attention_token_by_token",
        "test_points::test_a_layer_is_its_rule_token_by_token",
        "test_points::test_a_matrix_behind_two_tokens_by_hand",
        "test_points::test_a_matrix_of_miras_behind_one_token_by_hand",
        "test_titans::test_memory_as_a_context",
        "test_titans::test_memory_as_a_gate",
        "test_titans::test_memory_as_a_layer",
    ),
    "inner gradients": (
        "test_bias::test_the_gradient_is_that_of_the_loss",
        "test_chunk::test_every_bias",
        "test_cms::test_an_update_is_the_sum_of_exactly_a_chunk_of_steps",
        "test_selfmod::test_every_switch",
    ),
    "chunks": (
        "test_cms::test_levels_learn_as_printed",
        "test_loops::test_a_model_is_the_rule_token_by_token",
        "test_points::test_a_layer_is_its_rule_token_by_token",
        "test_selfmod::test_chunks_of_any_two_lengths",
    ),
    "outer gradients": (
        "test_loops::test_a_model_is_the_rule_token_by_token",
        "test_loops::test_outer_gradients_are_slopes",
        "test_model::test_every_parameter_has_a_gradient",
    ),
    "state": (
        "test_any_shape::test_calls_of_any_lengths_give_what_one_gives",
        "test_model::test_a_sequence_has_a_memory_of_its_own",
        "test_model::test_a_state_saved_and_loaded_goes_on_as_it_was",
        "test_model::test_any_split_into_calls_gives_the_same",
        "test_model::test_documents_of_a_row_know_nothing_of_each_other",
    ),
    "causality": (
        "test_any_shape::test_no_token_of_any_shape_sees_a_later_one",
        "test_cms::test_no_token_sees_a_later_one_and_no_sequence_another",
        "test_model::test_no_token_sees_a_later_one",
        "test_model::test_the_literal_mask_leaks",
    ),
    "reductions": (
        "test_cms::test_without_learning_it_is_the_plain_mlps",
        "test_reductions::test_a_huber_memory_with_a_large_threshold_is_the_squared_error",
        "test_reductions::test_deltanet_and_gated_deltanet",
        "test_reductions::test_l2_of_moneta_is_plain_gradient_descent",
        "test_reductions::test_linear_attention_and_retnet",
        "test_retention::test_without_forgetting_the_softmax_step_is_multiplicative_weights",
        "test_titans::test_a_memory_of_no_persistent_tokens_begins_as_it_is",
    ),
    "minimisers": (
        "test_bias::test_a_chunk_of_linear_memory_has_the_gradient_that_closes",
        "test_dgd::test_the_minimiser_is_that_of_the_printed_loss",
        "test_retention::test_soft_thresholding_is_the_proximal_step_of_the_elastic_net",
        "test_retention::test_the_lq_mirror_map_is_the_argmin",
        "test_retention::test_the_printed_lq_map_is_not_the_argmin_but_for_two",
        "test_retention::test_the_softmax_step_is_the_argmin_on_the_simplex",
    ),
    "stability": (
        "test_ends_of_hope::test_gates_at_their_ends_over_8192_tokens",
        "test_ends_of_hope::test_levels_stay_finite_over_8192_tokens",
        "test_points::test_gates_at_their_ends_over_8192_tokens",
        "test_stability::test_memories_stay_in_float32_where_the_rest_has_fewer_bits",
        "test_stability::test_the_delta_rule_never_makes_a_memory_larger",
    ),
    "persistent tokens": (
        "test_persistent::test_attention_meets_them_at_no_place",
        "test_persistent::test_every_token_sees_them_behind_any_window",
        "test_persistent::test_reading_and_learning_leave_them_as_they_are",
    ),
    "any shape": (
        "test_any_shape::test_calls_of_any_lengths_give_what_one_gives",
        "test_any_shape::test_sequences_in_another_order_give_the_same_in_that_order",
        "test_points::test_a_linear_memory_reads_as_much_as_it_was_given",
    ),
    "learning": (
        "test_learning::test_a_delta_rule_recalls_every_pair_and_the_same_without_writes_guesses",
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.slow
def test_every_family_is_where_it_is_said_to_be(family: str) -> None:
    for where in FAMILIES[family]:
        file, _, name = where.partition("::")
        tree = ast.parse((HERE / f"{file}.py").read_text())
        found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in found, where


def test_the_page_names_every_family_and_its_files() -> None:
    page = (ROOT / "docs" / "memory.md").read_text()
    rows = dict(
        line.strip("| ").split(" | ", 1)
        for line in page.partition("## What is tested")[2].splitlines()
        if line.startswith("| ")
    )
    for family, tests in FAMILIES.items():
        assert family in rows, family
        for file in {where.partition("::")[0] for where in tests}:
            assert f"`{file}`" in rows[family], (family, file)
    assert "`make bench-memory`" in rows["performance"]
    assert "`cupel notes status`" in rows["mutations"]
    assert "\nbench-memory:" in (ROOT / "Makefile").read_text()


def test_kinds_leave_out_no_mixer_no_named_memory_and_no_variant_of_levels() -> None:
    mixers = get_args(MemoryModelSettings.model_fields["mixer"].annotation)
    variants = get_args(CMSSettings.model_fields["variant"].annotation)
    assert set(MIXERS) == {mixer for mixer, _ in KINDS} == set(mixers)
    named = {changes.get("memory", {}).get("kind") for _, changes in KINDS}
    assert named >= set(POINTS)
    for mixer in ("hope", "hope-attention"):
        of_mixer = [
            changes.get("hope", {}).get("cms", {}) for one, changes in KINDS if one == mixer
        ]
        assert {cms.get("variant", "sequential") for cms in of_mixer} == set(variants)
