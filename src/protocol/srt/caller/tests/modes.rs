//! Live, message and buffer mode: agreed on, or refused with the reason that libsrt gives.

use super::super::super::fec::configuration::FilterConfiguration;
use super::super::super::handshake::Extensions;
use super::super::super::snapshot::RestoreError;
use super::*;

fn calling(ours: TransmissionMode, theirs: TransmissionMode) -> Conversation {
    let mut conversation = Conversation::new(CallerSettings { mode: ours, ..settings() }, None);
    conversation.listener =
        Listener::new(ListenerSettings { cookie_secret: [1; 16], mode: theirs, ..ListenerSettings::default() });
    conversation
}

#[test]
fn in_file_modes_nothing_has_a_time_and_nothing_is_dropped() {
    for (mode, flags) in [(TransmissionMode::Buffer, 0x64), (TransmissionMode::Message, 0x24)] {
        let (caller, listener) = calling(mode, mode).run().connected();
        for side in [caller, listener] {
            assert_eq!((side.mode, side.peer_flags), (mode, flags));
            assert_eq!((side.receive_latency_ms, side.send_latency_ms), (0, 0));
            let features = side.features;
            assert!(!features.receive_by_timestamp && !features.send_by_timestamp && !features.peer_drops_too_late);
            assert!(features.retransmission_flag && !features.peer_repeats_loss_reports);
            assert_eq!(side.stream_id.resource(), Some("cam1"));
        }
    }
}

#[test]
fn each_side_that_means_another_mode_is_told_so() {
    use TransmissionMode::{Buffer, Live, Message};
    for (ours, theirs, reason) in [
        (Buffer, Live, RejectReason::MessageApi),
        (Live, Buffer, RejectReason::MessageApi),
        (Message, Buffer, RejectReason::MessageApi),
        (Message, Live, RejectReason::Congestion),
        (Live, Message, RejectReason::Congestion),
    ] {
        let mut conversation = calling(ours, theirs).run();
        assert_eq!(conversation.failed(), CallError::Rejected(reason), "{ours:?} calls {theirs:?}");
        let refusal = conversation.listener.poll_refusal().expect("told");
        assert_eq!((refusal.reason, refusal.why.as_str()), (reason, theirs.expectation()));
        assert_eq!(refusal.stream_id, "#!::r=cam1,m=publish");
    }
}

#[test]
fn a_conclusion_names_the_congestion_control_of_files() {
    let call = |mode| {
        let mut caller = Caller::new(Instant::ZERO, CallerSettings { mode, ..settings() });
        caller.stage = Stage::Conclusion { cookie: 5, is_version4: false };
        let mut buffer = Vec::new();
        caller.poll_transmit(Instant::ZERO, &mut buffer).expect("a conclusion");
        let Extensions { congestion, handshake, .. } =
            Handshake::parse(&buffer[HEADER_LEN..]).expect("well formed").extensions;
        (congestion.map(<[u8]>::to_vec), handshake.expect("there is one").flags)
    };
    assert_eq!(call(TransmissionMode::Live), (None, 0xbf));
    assert_eq!(call(TransmissionMode::Buffer), (Some(b"elif".to_vec()), 0x64));
    assert_eq!(call(TransmissionMode::Message), (Some(b"elif".to_vec()), 0x24));
}

#[test]
fn a_file_gets_no_packet_filter() {
    let mode = TransmissionMode::Buffer;
    let filter: FilterConfiguration = "fec,cols:10,rows:5".parse().expect("a configuration");
    let mut conversation = calling(mode, mode);
    conversation.packet_filter = Some(filter);
    assert_eq!(conversation.run().failed(), CallError::Rejected(RejectReason::Filter));
}

#[test]
fn a_file_may_be_encrypted() {
    let call = CallerSettings { mode: TransmissionMode::Buffer, ..encrypted(b"correct horse", KeyLength::Aes256) };
    let mut conversation = Conversation::new(call, Some(b"correct horse"));
    conversation.listener = Listener::new(ListenerSettings {
        cookie_secret: [1; 16],
        mode: TransmissionMode::Buffer,
        ..ListenerSettings::default()
    });
    let (caller, listener) = conversation.run().connected();
    assert!(caller.encryption.is_some() && listener.encryption.is_some());
}

#[test]
fn what_no_call_for_a_file_has_is_refused_in_a_snapshot_of_one() {
    let restore = |change: fn(&mut CallerSettings)| {
        let mode = TransmissionMode::Buffer;
        let mut caller = Caller::new(Instant::ZERO, CallerSettings { mode, ..settings() });
        change(&mut caller.settings);
        let mut bytes = Vec::new();
        caller.snapshot(&mut bytes);
        Caller::restore(&bytes).map(drop)
    };
    assert_eq!(restore(|_| ()), Ok(()));
    let group: fn(&mut CallerSettings) = |settings| {
        settings.group = Some(Membership { group_id: 0x4000_0001, group_type: GroupType::Backup, weight: 1 });
    };
    let filter: fn(&mut CallerSettings) = |settings| settings.packet_filter = "fec,cols:10,rows:5".parse().ok();
    let latencies: [fn(&mut CallerSettings); 2] =
        [|settings| settings.receive_latency_ms = 120, |settings| settings.send_latency_ms = 120];
    for change in [group, filter].into_iter().chain(latencies) {
        assert_eq!(restore(change), Err(RestoreError::Invalid));
    }
}
