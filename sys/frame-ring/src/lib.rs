//! The frame ring: coded frames in shared memory, one writer, any number of untrusted read-only readers.
//!
//! One ring per track: a `ctl` file (header, hot words, configuration blocks, descriptor slots) and a `data` file (payload
//! bytes, mapped twice back to back so that every frame is one slice). Read in this order:
//!
//! - [`layout`]: every offset, and the header judged once;
//! - [`writer`]: append, commit; the four steps that make a frame visible;
//! - [`reader`]: the checks that make a frame believable;
//! - [`builder`]: making a ring, taking up a ring that a dead process left, putting one in another's place;
//! - [`bell`], [`stream_reader`]: what holds the tracks of one stream together, and who reads them in commit order;
//! - [`broker`]: reading by descriptors that another process hands out;
//! - [`wake`]: the futex, and the handle a waker thread needs;
//! - [`notifier`]: a ring or stream in an event loop;
//! - [`descriptor`], [`stream_descriptor`]: what is said about a frame and a stream (`schema/headworks.capnp`);
//! - [`directory`]: names on disk;
//! - [`memory`], [`placement`], [`copy`]: mappings, what lies under them, and the racing copy;
//! - [`crash`]: where a writer can be made to die, for the tests.
//!
//! The crate knows nothing of media beyond the words of the descriptor.
//!
//! # Promises, and what would fail without them
//!
//! | a reader may rely on | tests |
//! |---|---|
//! | No reader can slow, block or corrupt the writer or another reader's data | `a_reader_can_write_cut_or_remove_nothing`, `locks_of_a_reader_stop_neither_a_writer_nor_its_successor_nor_what_takes_its_place`, `a_reader_whose_wait_was_taken_away_goes_on_by_itself`, `a_reader_that_is_stopped_while_it_reads_holds_nobody_up_and_knows_what_it_missed`, `two_hundred_waiting_readers_all_see_what_one_would`, `what_stands_in_shared_words_leads_no_writer_astray`, `a_commit_wakes_nobody_by_itself`, `a_reader_cannot_open_for_writing_what_it_maps`; `benches/hostile_reader` |
//! | A frame is delivered whole or not at all | `eight_readers_of_a_writer_that_waits_for_nobody_accept_no_torn_frame`, `a_racing_reader_accepts_no_torn_frame_and_counts_every_lost_one`, `each_step_that_is_left_out_is_missed`, `a_borrowed_frame_says_when_it_has_been_overtaken`, `frames_of_a_stream_are_borrowed_in_their_order_and_say_when_they_have_been_overtaken`, `a_flipped_payload_bit_is_found_when_asked_for`, `an_abandoned_frame_leaves_nothing_behind` |
//! | A reader that is overtaken learns exactly how many frames it lost | `a_lapped_reader_learns_its_loss_and_goes_on_at_a_key`, `eight_readers_of_a_writer_that_waits_for_nobody_accept_no_torn_frame`, `frames_passed_over_for_a_key_that_never_came_are_told_before_the_end_of_the_track` |
//! | Frames of several tracks come in the order they were committed | `frames_of_all_tracks_come_in_the_order_they_were_committed`, `a_merge_of_any_interleaving_loses_and_reorders_nothing`, `every_frame_below_stream_head_is_visible`, `no_number_is_given_twice_after_a_crash_before_the_bell` |
//! | A late joiner starts where it wants: live, at a random access point, at the oldest frame, at a number; with its parameter sets | `a_reader_starts_where_it_is_told`, `no_reader_passes_over_a_key_that_its_writer_has_not_told_of`, `no_key_is_passed_over`, `a_key_is_preferred_to_recovery_points_as_long_as_the_ring_holds_one`, `a_stream_with_gradual_refresh_is_begun_and_gone_on_with_at_recovery_points`, `sound_begins_where_the_video_key_does`, `sound_that_comes_before_the_first_picture_is_read_whole_from_its_empty_ring`, `eight_configurations_are_kept_and_the_ninth_is_gone` |
//! | A crash or restart of the writer loses no published frame, wedges no reader, rewinds nothing, shows nothing stale, and is one discontinuity | `a_writer_that_dies_at_any_step_costs_no_reader_a_frame`, `a_reader_that_waits_through_a_restart_goes_on_with_one_discontinuity`, `the_next_writer_goes_on_where_the_last_one_died`, `the_last_key_is_found_again_after_a_restart`, `a_bell_is_taken_up_where_it_was_left`, `a_reader_believes_no_frame_that_a_dead_writer_did_not_publish`, `what_a_writer_must_read_back_is_missed_when_it_is_forgotten` |
//! | A ring of another shape takes the old one's place; readers drain the old one, are told, and go on in the new one | `a_superseded_ring_says_so`, `a_replaced_stream_says_so_and_a_replaced_track_is_opened_again`, `a_new_bell_over_the_same_rings_is_found_and_no_frame_is_repeated_or_skipped`, `a_ring_that_is_cleared_away_before_it_ended_is_read_to_its_end_and_its_name_looked_for`, `a_ring_that_is_cleared_away_and_made_anew_between_two_looks_is_opened`, `a_track_that_another_stream_of_the_name_has_not_is_told_to_have_ended_once`, `tracks_of_a_stream_that_is_gone_with_its_dead_writer_go_on_in_the_one_that_takes_its_name` |
//! | Silence, the end and a dead writer are told apart, after the last frame | `states_are_values_and_come_after_the_last_frame`, `a_silent_writer_is_told_from_a_dead_one`, `a_ring_that_ended_and_is_taken_up_again_is_read_again`, `an_end_is_said_once_and_a_source_that_returns_is_found` |
//! | Damage, lapping, discontinuities and new configurations are values | `damaged_frames_and_changes_of_configuration_are_values`, `a_lapped_reader_learns_its_loss_and_goes_on_at_a_key`, `a_frame_comes_out_as_it_went_in` |
//! | No wait is without end, and no wake is lost | `no_wake_is_lost`, `a_reader_whose_wait_was_taken_away_goes_on_by_itself`, `who_only_looks_when_told_finds_the_writer_dead` |
//! | A ring can be waited for in an event loop | `a_descriptor_is_readable_when_there_is_something_to_look_at`, `a_task_is_woken_for_every_frame_across_a_restart_and_to_the_end` |
//! | What a dead process was building does not stay | `what_a_dead_process_was_building_is_swept` |
//! | A new minor version of the layout does not break an old reader, and no old writer takes it up | `a_ring_of_a_later_minor_version_is_read_and_one_that_needs_more_is_refused`, `a_newer_minor_version_is_read`, `a_ring_of_another_boot_or_with_wild_counters_is_not_taken_up` |
//! | The layout stays as it is, for readers in other languages | `the_header_is_the_golden_one`, `a_slot_is_the_golden_one`, `the_bell_is_the_golden_one`, `a_ring_of_golden_bytes_is_read` |
//! | No bytes of a ring or bell crash a reader, hold it for ever or lead it out of bounds | `any_corruption_of_ctl_is_survived`, `every_impossible_field_is_named_and_the_next_frame_is_read`, `a_head_that_went_back_is_an_error`; fuzz targets `ring_reader`, `stream_reader` |
//!
//! `tests/promises.rs` sees to it that these tests are there. The memory model is explored by loom in `tests/protocol_model.rs`, with the
//! tests of every day. Miri knows no shared mappings of files; what needs none (the racing copy by words, the header, the descriptors)
//! passes `cargo +nightly miri test -p headworks-frame-ring --lib -- copy:: layout:: descriptor:: --skip stream_`,
//! which `tests/run` runs where a nightly toolchain has Miri. The description of a stream is left out: capnp's own pointers into lists
//! do not pass.

#[cfg(not(target_endian = "little"))]
compile_error!("the layout of the ring is little-endian");

pub mod bell;
pub mod broker;
pub mod builder;
pub mod copy;
pub mod crash;
pub mod descriptor;
pub mod directory;
#[doc(hidden)]
pub mod fuzzing;
pub mod layout;
pub mod memory;
pub mod notifier;
pub mod placement;
pub mod reader;
pub mod stream_descriptor;
pub mod stream_reader;
pub mod wake;
pub mod writer;

#[allow(missing_docs, clippy::all, clippy::undocumented_unsafe_blocks, unused_qualifications)]
#[rustfmt::skip]
pub mod headworks_capnp;
