"""The fault matrix of audit.md section 4: for each row the faults or tests that show it."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        what: In short.
        faults: Names in FAULTS that the audit has to find.
        tests: "path::function" of tests that show what no audit of files can.
    """

    what: str
    faults: tuple[str, ...] = ()
    tests: tuple[str, ...] = field(default=())


EXTRACT = "tests/data/test_extract.py"
DOWNLOAD, RESUME = "tests/data/test_download.py", "tests/data/test_resume.py"
FILES, JOB = "tests/runtime/test_files.py", "tests/runtime/test_job.py"
LEDGER, PARAMS = "tests/runtime/test_ledger.py", "tests/config/test_params.py"
FOREIGN, INTERRUPT = "tests/imports/test_foreign.py", "tests/workflow/test_interrupt.py"
POLICY, RECOMPUTE = "tests/audit/test_policy.py", "tests/audit/test_recompute.py"
PRETRAIN, LIMITS = "tests/pretrain/test_run.py", "tests/pretrain/test_limits.py"
PLACES, RECORDS = "tests/audit/test_odd_places.py", "tests/contracts/test_records.py"

MATRIX: dict[int, Row] = {
    1: Row("bit flip in a shard, time kept", ("bit_flipped_in_shard", "bit_flipped_in_bank")),
    2: Row(
        "the same in DVC's cache",
        ("bit_flipped_in_bank",),
        (
            f"{PLACES}::test_a_bit_flipped_in_the_store_of_dvc_is_found_though_dvc_is_content",
            "tests/runtime/test_manifest.py::test_a_changed_byte_is_found_whatever_its_time_stamp",
        ),
    ),
    3: Row(
        "bit flip in weights and arrays",
        ("bit_flipped_in_encoder", "bit_flipped_in_logits"),
        (f"{JOB}::test_a_corrupt_input_stops_the_job_before_it_starts",),
    ),
    4: Row(
        "truncated archive",
        ("logits_truncated",),
        (f"{EXTRACT}::test_a_damaged_archive_is_named_and_leaves_nothing",),
    ),
    5: Row(
        "wrong md5 beside the right sha256",
        (),
        (f"{DOWNLOAD}::test_a_wrong_md5_beside_the_right_sha256_is_a_mistake_of_the_catalogue",),
    ),
    6: Row(
        "right md5, wrong sha256",
        ("other_archive_fetched",),
        (f"{DOWNLOAD}::test_each_digest_is_checked_and_wrong_bytes_are_not_kept",),
    ),
    7: Row(
        "labels swapped",
        (
            "labels_swapped_in_dataset",
            "labels_swapped_in_predictions",
            "dataset_is_not_what_its_source_gives",
        ),
        (
            "tests/replay/test_replay.py::test_a_dataset_comes_out_as_stored_and_a_forged_one_does_not",
        ),
    ),
    8: Row(
        "metric file edited, time kept",
        (
            "result_added_to_the_metric_file",
            "result_doubled",
            "metric_file_edited",
            "counts_edited",
        ),
    ),
    9: Row(
        "table edited",
        (
            "numbers_of_a_figure_edited",
            "caption_of_a_figure_edited",
            "page_in_a_frame_of_his_own",
            "published_numbers_lowered",
            "table_md_edited",
            "table_tex_edited",
            "table_csv_edited",
        ),
    ),
    10: Row(
        "MLflow edited", ("metric_added_to_mlflow", "mlflow_value_edited", "mlflow_point_edited")
    ),
    11: Row(
        "metric, MLflow and table edited alike",
        (
            "metric_without_predictions",
            "results_edited_everywhere",
        ),
    ),
    12: Row(
        "checkpoint of another configuration",
        (
            "features_of_another_encoder",
            "logits_of_transfer_from_another_run",
            "another_network_at_the_end",
            "encoder_exchanged",
            "checkpoint_of_other_settings",
            "encoder_of_another_run",
        ),
        ("tests/audit/test_published.py::test_one_checkpoint_under_two_rows_is_found",),
    ),
    13: Row(
        "raw instead of averaged denoiser",
        ("bank_drawn_with_raw_weights", "raw_weights_sampled_instead_of_average"),
    ),
    14: Row("seed missing", ("initial_weights_not_recorded",)),
    15: Row("seed doubled", ("same_initial_weights",)),
    16: Row("mixed code", ("code_stale",)),
    17: Row("lock file changed", ("other_packages",)),
    18: Row(
        "NaN loss",
        ("loss_of_denoiser_missing",),
        (
            f"{PRETRAIN}::test_a_run_that_is_not_finite_stops_before_the_update",
            f"{LEDGER}::test_every_end_is_recorded_with_its_reason",
        ),
    ),
    19: Row(
        "infinity in reduced precision alone",
        (),
        (f"{LIMITS}::test_infinity_in_reduced_precision_alone_stops_the_run",),
    ),
    20: Row(
        "collapse",
        ("features_of_a_collapsed_encoder",),
        ("tests/audit/test_relearn.py::test_collapsed_features_are_seen",),
    ),
    21: Row("features on one line", ("features_on_one_line",)),
    22: Row(
        "teacher frozen",
        (
            "average_not_kept",
            "queue_not_kept",
            "average_frozen",
            "average_updated_too_rarely",
            "average_is_the_online_network",
        ),
    ),
    23: Row(
        "candidate is its anchor",
        (
            "candidate_is_another_training_image",
            "candidates_of_one_anchor_under_another",
            "candidate_is_its_anchor",
            "candidate_of_one_colour",
        ),
    ),
    24: Row(
        "black image",
        (
            "index_of_other_shards",
            "bank_of_other_images_than_its_shards",
            "candidate_blank",
            "candidate_missing_in_index",
        ),
    ),
    25: Row(
        "class-conditional shards",
        (
            "labels_behind_denoiser_claimed",
            "network_with_labels_in_unconditional_denoiser",
            "rows_above_the_authors_curve",
        ),
    ),
    26: Row(
        "labels in the loss",
        ("labels_used_in_secret", "labels_denied"),
        (f"{PRETRAIN}::test_labels_reach_only_a_method_that_uses_them",),
    ),
    27: Row(
        "probe trained on test",
        (
            "candidate_is_a_test_image",
            "test_predictions_read_by_training",
            "probe_trained_on_test",
            "rows_above_the_authors_curve",
        ),
    ),
    28: Row(
        "best epoch reported",
        (
            "features_of_an_earlier_epoch",
            "earlier_epoch_reported",
        ),
    ),
    29: Row(
        "best k of the test set",
        (
            "neighbours_of_another_number",
            "lucky_draw_repeated",
            "best_k_as_headline",
        ),
    ),
    30: Row("another average presented", ("another_metric_reported",)),
    31: Row(
        "too few epochs",
        ("middle_checkpoint_is_the_first", "checkpoint_of_an_earlier_epoch", "step_missing"),
    ),
    32: Row(
        "resume skipped or repeated",
        (
            "epoch_copied",
            "log_of_another_seed",
            "step_missing",
        ),
        ("tests/pretrain/test_resume.py::test_resume_equals_the_straight_run",),
    ),
    33: Row(
        "ledger edited",
        (
            "ledger_written_twice",
            "ledger_line_edited",
            "ledger_line_dropped",
            "failed_attempt_dropped",
            "ledger_lacks_the_line_noted_earlier",
            "attempt_taken_out_of_the_ledger",
            "attempt_failed_without_reason",
            "manifest_of_a_failed_attempt",
        ),
    ),
    34: Row(
        "disk full",
        (),
        (
            f"{LIMITS}::test_a_disk_that_fills_up_while_saving_keeps_the_last_state_and_the_run_goes_on",
            f"{RECORDS}::test_a_manifest_that_cannot_be_written_fails_the_job",
            f"{FILES}::test_an_interrupted_write_keeps_the_old_file",
            f"{EXTRACT}::test_a_full_disk_is_not_the_archives_fault",
        ),
    ),
    35: Row(
        "SIGKILL while saving",
        (),
        (
            "tests/runtime/test_checkpoint.py::test_a_kill_between_the_files_leaves_the_previous_state",
            "tests/pretrain/test_resume.py::test_sigkill_and_a_new_process_equal_the_straight_run",
            f"{LEDGER}::test_a_killed_attempt_is_noted_by_the_next_one",
        ),
    ),
    36: Row(
        "SIGTERM",
        (),
        (
            f"{INTERRUPT}::test_a_terminated_job_sweeps_up_and_says_so",
            f"{LEDGER}::test_every_end_is_recorded_with_its_reason",
        ),
    ),
    37: Row(
        "Snakemake killed", (), (f"{INTERRUPT}::test_a_killed_snakemake_takes_its_jobs_along",)
    ),
    38: Row(
        "two writers",
        (),
        (
            f"{FILES}::test_a_second_writer_is_refused_and_a_killed_one_leaves_no_lock",
            f"{LEDGER}::test_processes_that_write_at_once_leave_one_chain",
        ),
    ),
    39: Row(
        "hostile tar",
        (),
        (
            f"{EXTRACT}::test_names_that_leave_the_folder",
            f"{EXTRACT}::test_links_and_devices",
            f"{EXTRACT}::test_two_members_of_one_name",
            f"{EXTRACT}::test_a_bomb_of_many_members",
        ),
    ),
    40: Row(
        "pickle payload",
        ("endless_device_linked", "pickle_among_results", "checkpoint_that_torch_would_unpickle"),
        (f"{FOREIGN}::test_a_hostile_pickle_does_not_run",),
    ),
    41: Row(
        "array of objects",
        ("labels_of_python_objects",),
        (f"{RECOMPUTE}::test_objects_are_not_unpickled",),
    ),
    42: Row(
        "zip bomb",
        (
            "bomb_under_the_name_of_predictions",
            "archive_with_a_member_twice",
            "bytes_behind_an_array",
            "bomb_instead_of_predictions",
        ),
        (f"{FOREIGN}::test_damaged_and_odd_zip_files_are_refused_unread",),
    ),
    43: Row(
        "huge safetensors header",
        ("header_of_an_enormous_tensor_file",),
        (f"{FOREIGN}::test_damaged_safetensors_are_refused",),
    ),
    44: Row(
        "misspelt setting",
        (),
        (f"{PARAMS}::test_a_mistake_is_named_with_its_place_and_the_remedy",),
    ),
    45: Row(
        "setting out of range",
        (),
        (f"{PARAMS}::test_a_mistake_is_named_with_its_place_and_the_remedy",),
    ),
    46: Row(
        "record of a newer version",
        (),
        ("tests/runtime/test_manifest.py::test_foreign_and_future_manifests_are_refused",),
    ),
    47: Row(
        "combination that does not work",
        (),
        (f"{PARAMS}::test_a_mistake_is_named_with_its_place_and_the_remedy",),
    ),
    48: Row("clock set back", ("clock_set_back", "duration_below_zero")),
    49: Row("read-only files", (), (f"{POLICY}::test_a_tree_that_cannot_be_written_is_audited",)),
    50: Row(
        "GPU out of memory",
        (),
        (f"{LIMITS}::test_out_of_memory_is_recorded_and_no_batch_is_cut",),
    ),
    51: Row(
        "no GPU where one is demanded",
        (),
        ("tests/runtime/test_device.py::test_a_demanded_gpu_that_is_not_there_stops_at_once",),
    ),
    52: Row(
        "network lost",
        (),
        (
            f"{RESUME}::test_an_interrupted_download_is_continued_by_the_next_run",
            f"{RESUME}::test_a_file_that_changes_between_the_parts",
        ),
    ),
    53: Row("web page for an archive", (), (f"{DOWNLOAD}::test_a_web_page_is_recognised",)),
    54: Row("redirect elsewhere", (), (f"{DOWNLOAD}::test_redirects_elsewhere_are_refused",)),
    55: Row(
        "odd names",
        ("name_that_steers_a_terminal", "name_that_is_no_text", "half_a_character_in_manifest"),
        (
            "tests/workflow/test_odd_names.py::test_a_folder_of_images",
            f"{PLACES}::test_a_tree_in_a_folder_with_an_odd_name",
            "tests/data/test_image_folder.py::test_names_that_are_no_utf8",
            "tests/data/test_extract_headers.py::test_names_that_are_not_utf8",
        ),
    ),
    56: Row("long names", (), (f"{PARAMS}::test_names_may_be_long_and_slugs_have_an_end",)),
    57: Row("locales", (), (f"{POLICY}::test_locale_and_hash_seed_change_no_byte",)),
    58: Row(
        "long parameters in MLflow",
        ("mlflow_setting_edited", "mlflow_setting_deleted"),
        ("tests/runtime/test_tracking.py::test_a_long_parameter_is_kept_whole_beside_its_hash",),
    ),
    59: Row(
        "empty metrics",
        ("metrics_empty",),
        (f"{FILES}::test_a_promised_output_that_is_missing_is_an_error",),
    ),
    60: Row(
        "worker dies",
        (),
        ("tests/diffusion/test_team.py::test_stopped_they_continue_bit_for_bit_until_one_dies",),
    ),
}


def injected() -> list[str]:
    """Every fault that some row names, once, in the order of the rows."""
    return list(dict.fromkeys(name for row in MATRIX.values() for name in row.faults))


def elsewhere() -> list[str]:
    """Lines about rows that no audit of files can show."""
    lines = []
    for number, row in MATRIX.items():
        if not row.faults:
            lines.append(f"row {number}, {row.what}: shown by {row.tests[0]}")
    return lines
