use headworks_frame_ring::bell::{BellReader, BellWriter};
use headworks_frame_ring::broker::Broker as Client;

use super::*;

/// A broker of a root with the stream `cam1`.
fn broker(max_connections: usize) -> (tempfile::TempDir, BellWriter, Broker) {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::create_dir(root.path().join("cam1")).unwrap();
    let bell = BellWriter::create(&root.path().join("cam1")).unwrap();
    let options = BrokerOptions {
        socket: root.path().join(".broker"),
        root: root.path().to_owned(),
        max_connections,
        readers: Readers::default(),
        by_stream: BTreeMap::new(),
    };
    let broker = Broker::start(options).unwrap();
    (root, bell, broker)
}

fn connection(path: &Path) -> OwnedFd {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    socket
}

fn wait_until(mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_stream_has_its_own_readers_or_those_of_all() {
    let readers = |uids: &[u32], gids: &[u32]| Readers { uids: uids.to_vec(), gids: gids.to_vec() };
    let options = BrokerOptions {
        socket: PathBuf::new(),
        root: PathBuf::new(),
        max_connections: 1,
        readers: readers(&[1_001], &[50]),
        by_stream: BTreeMap::from([
            ("cam2".to_owned(), readers(&[1_002], &[])),
            ("secret".to_owned(), Readers::default()),
        ]),
    };
    let own = rustix::process::geteuid().as_raw();
    let peer = |uid, gid| Peer { uid, gid, groups: vec![4, 1_001] };
    let allowed = |uid, gid| ["cam1", "cam2", "secret"].map(|stream| options.allows(&peer(uid, gid), stream));
    let known = |uid, gid| options.knows(&peer(uid, gid));
    assert_eq!(allowed(1_001, 1), [true, false, false]);
    assert_eq!(allowed(1_003, 50), [true, false, false]);
    assert_eq!(allowed(1_002, 1), [false, true, false]);
    assert_eq!(allowed(1_004, 1_001), [false; 3]);
    assert_eq!((allowed(own, 1), allowed(0, 1)), ([true; 3], [true; 3]));
    assert_eq!([known(1_001, 1), known(1_003, 50), known(1_002, 1), known(own, 1), known(0, 1)], [true; 5]);
    assert_eq!([known(1_004, 1_001), known(50, 1_002)], [false; 2]);
    let supplementary = Peer { uid: 1_004, gid: 1, groups: vec![4, 50] };
    assert!(options.knows(&supplementary) && options.allows(&supplementary, "cam1"));
    assert!(!options.allows(&supplementary, "secret"));
}

#[test]
fn the_configuration_says_who_reads() {
    assert_eq!(BrokerOptions::from_config(&Config::default()), None);
    let mut config = Config::default();
    config.output.broker.socket = Some("/run/broker".into());
    config.output.broker.readers.uids = vec![7];
    let readers = Readers { uids: vec![], gids: vec![8] };
    config.streams.entry("cam1".to_owned()).or_default().readers = Some(readers.clone());
    config.streams.entry("cam2".to_owned()).or_default();
    let options = BrokerOptions::from_config(&config).unwrap();
    assert_eq!((options.readers.uids, options.by_stream), (vec![7], BTreeMap::from([("cam1".to_owned(), readers)])));
}

#[test]
fn descriptors_are_handed_out_for_reading_alone() {
    let (root, _bell, _broker) = broker(8);
    let client = Client::new(&root.path().join(".broker"), "cam1");
    let bell = client.bell().unwrap();
    assert_eq!(io::Write::write(&mut &bell, b"x").unwrap_err().raw_os_error(), Some(9), "EBADF");
    let uuid = BellReader::from_file(&bell).unwrap().stream_uuid();
    assert_eq!(client.tracks(uuid).unwrap(), Vec::<String>::new());
    assert_eq!(client.ring("video0", uuid).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(client.tracks([0; 16]).unwrap_err().kind(), io::ErrorKind::NotFound);
    let absent = Client::new(&root.path().join(".broker"), "cam2").bell().unwrap_err();
    assert_eq!(absent.to_string(), "the broker says that there is no such stream or track");
}

#[test]
fn who_takes_more_than_a_share_is_told_to_come_later() {
    let (root, _bell, _broker) = broker(8);
    let path = root.path().join(".broker");
    let client = Client::new(&path, "cam1");
    // Two of eight, and neither says what it wants.
    let idle = [connection(&path), connection(&path)];
    let busy = client.bell().unwrap_err();
    assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
    drop(idle);
    // They are gone when the thread has looked.
    wait_until(|| client.bell().is_ok());
}

#[test]
fn who_lets_answers_lie_gets_no_more_of_them() {
    let (root, _bell, _broker) = broker(8);
    let path = root.path().join(".broker");
    let client = Client::new(&path, "cam1");
    // Two of eight.
    let lazy = [connection(&path), connection(&path)];
    for socket in &lazy {
        rustix::net::send(socket, b"bell cam1", rustix::net::SendFlags::empty()).unwrap();
    }
    let answers = || lazy.iter().filter(|socket| rustix::io::ioctl_fionread(socket).unwrap() > 0).count();
    wait_until(|| answers() == 2);
    // That is no answer taken.
    for socket in &lazy {
        rustix::net::shutdown(socket, rustix::net::Shutdown::Both).unwrap();
    }
    std::thread::sleep(PATIENCE + Duration::from_millis(200));
    assert_eq!(client.bell().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    drop(lazy);
    wait_until(|| client.bell().is_ok());
}

#[test]
fn what_makes_no_sense_is_answered_and_what_is_sent_along_is_dropped() {
    use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};

    let (root, _bell, _broker) = broker(8);
    let path = root.path().join(".broker");
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let socket = connection(&path);
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let sent = [writer.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&sent)));
    sendmsg(&socket, &[io::IoSlice::new(&[b' '; 60_000])], &mut ancillary, SendFlags::empty()).unwrap();
    drop(writer);
    let mut said = [0; 64];
    let (_, length) = recv(&socket, &mut said, RecvFlags::empty()).unwrap();
    assert_eq!(&said[..length], b"malformed");
    // Nobody has the other end any more.
    assert_eq!(rustix::io::read(&reader, &mut said).unwrap(), 0);
}

#[test]
fn a_broker_that_ends_leaves_the_socket_of_another_alone() {
    let (root, _bell, broker) = broker(8);
    let path = root.path().join(".broker");
    std::fs::remove_file(&path).unwrap();
    let _other = Broker::start(BrokerOptions {
        socket: path.clone(),
        root: root.path().to_owned(),
        max_connections: 8,
        readers: Readers::default(),
        by_stream: BTreeMap::new(),
    })
    .unwrap();
    drop(broker);
    Client::new(&path, "cam1").bell().unwrap();
}

#[test]
fn a_socket_left_behind_is_replaced_and_one_that_is_listened_on_is_not() {
    let (root, _bell, broker) = broker(8);
    let path = root.path().join(".broker");
    let options = BrokerOptions {
        socket: path.clone(),
        root: root.path().to_owned(),
        max_connections: 8,
        readers: Readers::default(),
        by_stream: BTreeMap::new(),
    };
    let error = Broker::start(options.clone()).unwrap_err();
    assert!(error.to_string().ends_with(".broker: another process listens there"), "{error}");
    drop(broker);
    assert!(!path.exists());
    let left = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    bind(&left, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    drop(left);
    let _broker = Broker::start(options.clone()).unwrap();
    Client::new(&path, "cam1").bell().unwrap();
    std::fs::write(root.path().join("file"), b"x").unwrap();
    let error = Broker::start(BrokerOptions { socket: root.path().join("file"), ..options }).unwrap_err();
    assert!(error.to_string().ends_with("file: what is there is no socket of this user's"), "{error}");
    assert_eq!(std::fs::read(root.path().join("file")).unwrap(), b"x");
}
