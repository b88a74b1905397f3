//! Who gets memory, and what is cleared away for it.

use headworks_frame_ring::memory::HugePages;
use headworks_frame_ring::placement::Placement;

use super::super::ended::TAKE_UP_WITHIN;
use super::*;
use crate::media::Codec;

/// A directory in which rings of `streams` planned streams have room.
fn directory(root: &Path, streams: u64) -> RingDirectory {
    let mut config = Config::default();
    config.output.root = root.to_owned();
    config.ingestion.frame.max_frame_size = 65_536;
    config.ingestion.srt.max_bandwidth = 1_000_000;
    let mut options = OutputOptions { pool_size: 0, ended_max: 3, ..OutputOptions::from_config(&config) };
    options.memory_limit = streams * options.planned_stream_size();
    RingDirectory::prepare(options, vec![Waker::start("test-waker").0]).unwrap()
}

fn root() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn video() -> TrackDescription {
    TrackDescription { programme: 1, id: 256, codec: Codec::H264, clock_rate: 90_000, language: None }
}

/// A stream with a video ring, which has ended.
fn ended(directory: &RingDirectory, name: &str) {
    let _stream = directory.open_stream(name, 0).unwrap();
    directory.open_track(name, "video0", &video(), None).unwrap();
    directory.stream_ended(name);
}

#[test]
fn a_stream_is_refused_before_it_could_pass_the_limit_and_the_key_is_named() {
    let root = root();
    let directory = directory(root.path(), 2);
    let planned = directory.options().planned_stream_size();
    let _streams = ["a", "b"].map(|name| directory.open_stream(name, 0).unwrap());
    assert_eq!(directory.memory_used(), 0, "promised is as good as taken");
    let error = directory.open_stream("c", 0).map(|_| ()).unwrap_err();
    assert_eq!(error.missing(), Some(planned));
    assert_eq!(
        error.to_string(),
        format!(
            "ingestion.memory.global_limit leaves {} bytes for rings, {} are taken or promised, and a stream is planned to take {planned}",
            2 * planned,
            2 * planned
        )
    );
    assert!(!root.path().join("c").exists());
    assert_eq!(directory.held_by(["a", "b"].into_iter()), 2 * planned);
    directory.stream_ended("a");
    directory.open_stream("c", 0).unwrap();
}

#[test]
fn a_stream_that_could_never_have_its_rings_is_refused() {
    let root = root();
    let mut directory = directory(root.path(), 2);
    let planned = directory.options.planned_stream_size();
    directory.options.stream_memory_limit = planned - 1;
    let error = directory.open_stream("a", 0).map(|_| ()).unwrap_err();
    let expected =
        format!("ingestion.memory.per_stream_limit = {}, and a stream is planned to take {planned} bytes", planned - 1);
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert_eq!((error.missing(), directory.memory_used()), (None, 0));
}

#[test]
fn what_has_ended_goes_before_its_time_when_its_memory_is_needed_and_the_oldest_goes_first() {
    let root = root();
    let directory = directory(root.path(), 2);
    ended(&directory, "old");
    ended(&directory, "new");
    let first = directory.open_stream("a", 0).unwrap();
    assert!(!root.path().join("old").exists() && root.path().join("new").exists());
    // One that comes back takes its own rings up.
    let _again = directory.open_stream("new", 0).unwrap();
    assert!(root.path().join("new/video0").exists());
    drop(first);
    assert!(directory.open_stream("b", 0).is_err());
}

#[test]
fn rings_of_an_earlier_run_count_and_go_when_their_memory_is_needed() {
    let root = root();
    let earlier = directory(root.path(), 1);
    ended(&earlier, "left");
    let used = earlier.memory_used();
    drop(earlier);
    let directory = directory(root.path(), 1);
    assert_eq!(directory.memory_used(), used);
    let _stream = directory.open_stream("a", 0).unwrap();
    assert!(!root.path().join("left").exists());
    assert_eq!(directory.memory_used(), 0);
}

#[test]
fn the_readers_of_a_ring_that_no_source_came_back_for_are_told_that_it_has_ended() {
    use headworks_frame_ring::layout::State;
    use headworks_frame_ring::reader::{Reader, Start};

    let root = root();
    let earlier = directory(root.path(), 2);
    let audio = TrackDescription { codec: Codec::Mp2, ..video() };
    let stream = earlier.open_stream("cam1", 0).unwrap();
    for (track, description) in [("audio0", &audio), ("audio1", &audio), ("video0", &video())] {
        earlier.open_track("cam1", track, description, None).unwrap();
    }
    drop((stream, earlier));
    let states = |readers: &[Reader]| readers.iter().map(Reader::state).collect::<Vec<_>>();
    let readers = ["audio0", "audio1", "video0"]
        .map(|track| Reader::open(&root.path().join("cam1").join(track), Start::Live).unwrap());
    let mut directory = directory(root.path(), 2);
    directory.options.retention = Duration::ZERO;
    let stream = directory.open_stream("cam1", 0).unwrap();
    let _written = directory.open_track("cam1", "audio0", &audio, None).unwrap();
    directory.tick();
    assert_eq!(states(&readers), [State::Live, State::Ended, State::Ended]);
    assert_eq!(names::list_tracks(&root.path().join("cam1")).unwrap(), ["audio0"]);
    // A ring that is written is not ended, even when its whole stream goes.
    directory.stream_ended("cam1");
    directory.tick();
    assert_eq!(states(&readers)[0], State::Live);
    drop(stream);
}

#[test]
fn more_has_never_ended_than_may_stand() {
    let root = root();
    let directory = directory(root.path(), 100);
    for name in ["a", "b", "c", "d", "e"] {
        ended(&directory, name);
        directory.stream_ended(name);
    }
    let left: Vec<String> = names::list_streams(root.path()).unwrap().into_iter().map(|it| it.name).collect();
    assert_eq!(left, ["c", "d", "e"]);
}

#[test]
fn what_a_ring_lies_on_is_said_and_so_is_what_it_should_lie_on() {
    let good = Placement { pages: HugePages::Reserved, hugetlbfs_refused: None, node_refused: None };
    assert_eq!(describe_placement(&good, Some(1)), [(false, "rings lie on hugetlbfs".to_owned())]);
    let small = Placement { pages: HugePages::TooSmall, ..good };
    assert_eq!(describe_placement(&small, None), []);
    // EINVAL, ENOMEM, EPERM.
    let bad = Placement { pages: HugePages::Refused(22), hugetlbfs_refused: Some(12), node_refused: Some(1) };
    let texts: Vec<String> = describe_placement(&bad, Some(1)).into_iter().map(|(_, text)| text).collect();
    assert_eq!(
        texts,
        [
            "rings lie in small pages: the kernel makes no huge ones of them (Invalid argument (os error 22))",
            "rings do not fit on output.hugetlbfs (Cannot allocate memory (os error 12)): set more pages aside, \
             sysctl vm.nr_hugepages",
            "rings are not bound to NUMA node 1 of their shard: Operation not permitted (os error 1)",
        ]
    );
}

#[test]
fn a_place_that_is_no_hugetlbfs_is_not_used_and_rings_made_ahead_are_shared_out_to_the_nodes() {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut config = Config::default();
    config.output.root = root.path().join("rings");
    config.output.hugetlbfs = Some(root.path().to_owned());
    config.ingestion.frame.max_frame_size = 65_536;
    config.ingestion.srt.max_bandwidth = 1_000_000;
    let mut options = OutputOptions::from_config(&config);
    options.group = "no-such-group".to_owned();
    options.shard_nodes = vec![None, Some(0)];
    let (waker, _) = Waker::start("test-waker");
    let directory = RingDirectory::prepare(options, vec![waker]).unwrap();
    for _ in 0..4 {
        directory.make_spare();
    }
    let nodes: Vec<Option<u32>> = directory.spare().iter().map(|(_, writer)| node_of(writer)).collect();
    // A kernel without NUMA binds nothing.
    if Path::new("/sys/devices/system/node/node0").exists() {
        assert_eq!(nodes, [None, Some(0), None, Some(0)]);
        let spec = RingSpec { numa_node: Some(0), ..directory.spare_spec() };
        let (_, writer) = directory.take_spare(&spec).unwrap();
        assert_eq!(node_of(&writer), Some(0));
    }
    assert_eq!(directory.hugetlbfs, None);
    assert_eq!(judge_hugetlbfs(root.path()), Err(format!("{} is on another file system", root.path().display())));
}

#[test]
fn a_stream_whose_tracks_come_and_go_costs_no_other_stream_its_rings() {
    let root = root();
    let directory = directory(root.path(), 3);
    ended(&directory, "cam1");
    let _stream = directory.open_stream("cam2", 0).unwrap();
    for n in 0..10 {
        let track = format!("audio{n}");
        directory.open_track("cam2", &track, &TrackDescription { codec: Codec::Mp2, ..video() }, None).unwrap();
        directory.track_ended("cam2", &track);
    }
    assert!(root.path().join("cam1/video0").exists());
    let left = names::list_tracks(&root.path().join("cam2")).unwrap();
    assert_eq!(left, ["audio8", "audio9"]);
}

#[test]
fn a_stream_whose_tracks_come_and_go_always_has_room_for_the_one_that_comes() {
    let root = root();
    let mut directory = directory(root.path(), 3);
    directory.options.ended_max = 100;
    directory.options.stream_memory_limit = directory.options.planned_stream_size();
    let _stream = directory.open_stream("cam1", 0).unwrap();
    let audio = TrackDescription { codec: Codec::Mp2, ..video() };
    for n in 0..10 {
        let (picture, sound) = (format!("video{n}"), format!("audio{n}"));
        directory.open_track("cam1", &picture, &video(), None).unwrap();
        directory.open_track("cam1", &sound, &audio, None).unwrap();
        let left = names::list_tracks(&root.path().join("cam1")).unwrap();
        assert!(left.contains(&picture) && left.contains(&sound), "{left:?}");
        for track in [picture, sound] {
            directory.track_ended("cam1", &track);
        }
    }
    // Of tracks that are written none goes.
    directory.open_track("cam1", "video10", &video(), None).unwrap();
    let refused = directory.open_track("cam1", "video11", &video(), None).unwrap_err();
    assert!(refused.to_string().starts_with("ingestion.memory.per_stream_limit leaves"), "{refused}");
    assert!(root.path().join("cam1/video10").exists());
}

/// What a run left: the rings of `cam1`, made by options that `differ`.
fn left_by_an_earlier_run(root: &Path, tracks: &[(&str, Codec)], differ: impl Fn(&mut OutputOptions)) {
    let mut earlier = directory(root, 3);
    differ(&mut earlier.options);
    let _stream = earlier.open_stream("cam1", 0).unwrap();
    for &(track, codec) in tracks {
        earlier.open_track("cam1", track, &TrackDescription { codec, ..video() }, None).unwrap();
    }
}

#[test]
fn rings_that_wait_to_be_taken_up_do_not_make_way_for_one_that_comes_before_them() {
    let root = root();
    let audio = TrackDescription { codec: Codec::Mp2, ..video() };
    left_by_an_earlier_run(root.path(), &[("audio0", Codec::Mp2), ("video0", Codec::H264)], |_| {});
    let mut directory = directory(root.path(), 3);
    directory.options.ended_max = 0;
    directory.options.stream_memory_limit = directory.options.planned_stream_size();
    let _stream = directory.open_stream("cam1", 0).unwrap();
    let _second = directory.open_track("cam1", "audio1", &audio, None).unwrap();
    directory.open_track("cam1", "video1", &video(), None).unwrap_err();
    directory.track_ended("cam1", "audio1");
    let reader = |track: &str| names::list_tracks(&root.path().join("cam1")).unwrap().contains(&track.to_owned());
    assert!(reader("video0") && reader("audio0"));
    // The source does not have them this time.
    std::thread::sleep(TAKE_UP_WITHIN);
    directory.open_track("cam1", "video1", &video(), None).unwrap();
    assert!(!reader("video0") && reader("video1"));
}

#[test]
fn a_ring_of_another_shape_counts_once_with_the_one_that_it_replaces() {
    let root = root();
    left_by_an_earlier_run(root.path(), &[("video0", Codec::H264)], |options| options.crc = !options.crc);
    let mut directory = directory(root.path(), 1);
    directory.options.stream_memory_limit = directory.options.planned_stream_size();
    let _stream = directory.open_stream("cam1", 0).unwrap();
    let used = directory.memory_used();
    assert!(2 * used > directory.options.stream_memory_limit);
    let writer = directory.open_track("cam1", "video0", &video(), None).unwrap();
    assert_eq!((writer.epoch(), directory.memory_used()), (1, used));
}

#[test]
fn what_cannot_be_removed_counts_and_is_tried_again() {
    let root = root();
    let mut directory = directory(root.path(), 1);
    directory.options.retention = Duration::ZERO;
    let _stream = directory.open_stream("cam1", 0).unwrap();
    drop(directory.open_track("cam1", "video0", &video(), None).unwrap());
    let (ring, aside) = (root.path().join("cam1/video0"), root.path().join("aside"));
    // What is no directory is not removed as one.
    fs::rename(&ring, &aside).unwrap();
    fs::write(&ring, b"x").unwrap();
    directory.track_ended("cam1", "video0");
    directory.tick();
    assert!(directory.memory_used() > 0);
    assert!(!directory.clear_oldest(|_| true), "nothing is won by it");
    fs::remove_file(&ring).unwrap();
    fs::rename(&aside, &ring).unwrap();
    directory.tick();
    assert_eq!((directory.memory_used(), ring.exists()), (0, false));
}

#[test]
fn no_number_in_the_order_of_commits_is_given_twice_even_if_the_ring_that_had_it_is_not_taken_up() {
    use headworks_frame_ring::descriptor::FrameDescriptor;

    let root = root();
    let earlier = directory(root.path(), 1);
    let mut stream = earlier.open_stream("cam1", 0).unwrap();
    let mut writer = earlier.open_track("cam1", "video0", &video(), None).unwrap();
    for segment in 0..5 {
        writer.commit(&FrameDescriptor { segment, ..FrameDescriptor::default() }, &mut stream.bell);
    }
    drop((earlier, stream, writer));
    // The bell that stood over it is gone.
    fs::remove_file(root.path().join("cam1/bell")).unwrap();
    let stream = directory(root.path(), 1).open_stream("cam1", 0).unwrap();
    assert_eq!((stream.bell.stream_head(), stream.segment_base), (5, 5));
}

#[test]
fn a_stream_whose_rings_would_not_fit_into_the_memory_cgroup_is_refused_and_the_file_is_named() {
    let (root, host) = (root(), tempfile::tempdir().unwrap());
    let mut directory = directory(root.path(), 4);
    directory.options.pool_size = 3;
    let planned = directory.options.planned_stream_size();
    let service = host.path().join("sys/fs/cgroup/system.slice/headworks.service");
    fs::create_dir_all(&service).unwrap();
    fs::create_dir_all(host.path().join("proc/self")).unwrap();
    fs::write(host.path().join("proc/self/cgroup"), "0::/system.slice/headworks.service\n").unwrap();
    let write = |file: &str, bytes: u64| fs::write(service.join(file), format!("{bytes}\n")).unwrap();
    write("memory.max", 10 * planned);
    write("memory.current", 8 * planned - 1);
    directory.host = host.path().to_owned();
    directory.make_spare();
    assert!(directory.spare().is_empty(), "half of it would not stay free");
    let _streams = ["a", "b"].map(|name| directory.open_stream(name, 0).unwrap());
    let error = directory.open_stream("c", 0).map(|_| ()).unwrap_err();
    assert_eq!(error.missing(), Some(planned - 1));
    assert_eq!(
        error.to_string(),
        format!(
            "{} = {}: {} bytes of shared memory are needed, streams included that still wait for their rings, {} are left",
            service.join("memory.max").display(),
            10 * planned,
            3 * planned,
            2 * planned + 1
        )
    );
    write("memory.current", 4 * planned);
    directory.open_stream("c", 0).unwrap();
    directory.make_spare();
    assert_eq!(directory.spare().len(), 1);
}

#[test]
fn a_streams_directory_is_for_the_group_whatever_the_umask_and_whoever_left_it() {
    use std::os::unix::fs::MetadataExt;

    let root = root();
    let directory = directory(root.path(), 2);
    let mode = |name: &str| fs::metadata(root.path().join(name)).unwrap().mode() & 0o7777;
    // As a umask of 077 makes it, and one of 000.
    for (name, left) in [("cam1", 0o700), ("cam2", 0o777)] {
        fs::create_dir(root.path().join(name)).unwrap();
        fs::set_permissions(root.path().join(name), Permissions::from_mode(left)).unwrap();
        directory.open_stream(name, 0).unwrap();
        assert_eq!(mode(name), 0o2750, "{name}");
    }
}

#[test]
fn what_cannot_be_taken_up_for_want_of_descriptors_stays_with_its_frames() {
    use headworks_frame_ring::descriptor::FrameDescriptor;

    const ALONE: &str = "HEADWORKS_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        // In a process of its own: the other tests of this one need descriptors.
        let name = "output::directory::tests::what_cannot_be_taken_up_for_want_of_descriptors_stays_with_its_frames";
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let output = alone.args([name, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    let root = root();
    let directory = directory(root.path(), 2);
    let mut stream = directory.open_stream("cam1", 0).unwrap();
    let mut writer = directory.open_track("cam1", "video0", &video(), None).unwrap();
    writer.append(b"a picture").unwrap();
    writer.commit(&FrameDescriptor { key: true, ..FrameDescriptor::default() }, &mut stream.bell);
    drop((writer, stream));

    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let few = rustix::process::Rlimit { current: Some(64), ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
    let mut taken: Vec<fs::File> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
    // Enough for the lock, not for what it locks.
    taken.pop();
    let error = directory.open_track("cam1", "video0", &video(), None).unwrap_err();
    assert!(matches!(&error, TrackError::Attach(error) if error.is_shortage()), "{error}");
    drop(taken);
    let writer = directory.open_track("cam1", "video0", &video(), None).unwrap();
    assert_eq!((writer.head_seq(), writer.epoch()), (1, 2));
}

#[test]
fn of_a_ring_that_was_taken_up_it_is_said_where_it_stays() {
    let root = root();
    let directory = directory(root.path(), 2);
    let _stream = directory.open_stream("cam1", 0).unwrap();
    let writer = directory.open_track("cam1", "video0", &video(), None).unwrap();
    let spec = directory.spare_spec();
    let header = headworks_frame_ring::layout::Header { numa_node: 1, ..writer.header().clone() };
    assert_eq!(describe_taken_up(&header, &RingSpec { numa_node: Some(1), ..spec }, None), [""; 0]);
    let told = describe_taken_up(&header, &RingSpec { numa_node: Some(0), ..spec }, Some(header.data_capacity));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("stay on NUMA node 1, not their shard's 0"), "{told:?}");
    assert!(told[1].contains("stay on tmpfs, not on output.hugetlbfs"), "{told:?}");
    // Rings that fill no whole page were never meant for it.
    assert_eq!(describe_taken_up(&header, &spec, Some(header.data_capacity * 2)), [""; 0]);
}
