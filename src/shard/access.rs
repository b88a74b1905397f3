//! What a caller says of itself, held against the configuration: where it comes from, what its Stream ID asks for, which passphrase it
//! must know. Nothing here blocks, so that a shard can turn strangers away without troubling the desk.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::config::{Config, CryptoMode, Takeover, admits, refusing_list, stream_key, user_key};
use crate::protocol::srt::encryption::Cipher;
use crate::protocol::srt::fec::configuration::FilterConfiguration;
use crate::protocol::srt::handshake::RejectReason;
use crate::protocol::srt::listener::AdmissionRequest;
use crate::protocol::srt::stream_id::{Mode, ResourceType, StreamId};

/// A running encoder is never silent for so long: keep-alives come each second, media much oftener.
pub const SILENT: Duration = Duration::from_secs(1);

/// Why an SRT caller is refused, for it and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// What it is told.
    pub reason: RejectReason,
    /// What that means here.
    pub why: String,
}

impl Denial {
    /// For this reason.
    pub fn new(reason: RejectReason, why: impl Into<String>) -> Self {
        Self { reason, why: why.into() }
    }
}

/// What keys a stream goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// What the caller must know.
    pub passphrase: Option<&'a str>,
    /// What its payloads may be under.
    pub crypto_mode: CryptoMode,
    /// Whether it is refused if it does not know it.
    pub enforced_encryption: bool,
}

impl Credentials<'_> {
    /// Whether payloads may be under this.
    pub fn takes(&self, cipher: Cipher) -> bool {
        match self.crypto_mode {
            CryptoMode::Auto => true,
            CryptoMode::Ctr => cipher == Cipher::AesCtr,
            CryptoMode::Gcm => cipher == Cipher::AesGcm,
        }
    }
}

/// The name in the Stream ID, or one made of the caller's address.
pub fn stream_name(request: &AdmissionRequest) -> String {
    match request.stream_id.resource() {
        Some(name) if !name.is_empty() => name.to_owned(),
        // What all legs of a group have in common.
        _ if let Some(group) = request.group => format!("srt-group-{:08x}", group.group_id),
        _ => format!("srt-{}-{}", request.key.peer.ip().to_canonical(), request.key.peer.port()),
    }
}

/// Whether a stream may be sent from an address.
pub fn may_come_from(config: &Config, stream: &str, address: IpAddr) -> bool {
    let settings = config.streams.get(stream);
    settings.is_none_or(|it| {
        it.source.is_none_or(|source| source == address.to_canonical()) && admits(&it.allow, &it.deny, address)
    })
}

/// Which key keeps an address from sending a stream, if one does; for people.
pub fn against_address(config: &Config, stream: &str, address: IpAddr) -> Option<String> {
    let settings = config.streams.get(stream)?;
    if let Some(source) = settings.source.filter(|source| *source != address.to_canonical()) {
        return Some(format!("{} is {source}, and it comes from another address", stream_key(stream, "source")));
    }
    let list = refusing_list(&settings.allow, &settings.deny, address)?;
    Some(format!("{} does not let its address in", stream_key(stream, list)))
}

/// Whether a session's peer may be at this address from now on.
pub fn may_move_to(config: &Config, stream: &str, address: IpAddr) -> bool {
    let access = &config.ingestion.srt.access;
    admits(&access.allow, &access.deny, address) && may_come_from(config, stream, address)
}

/// The passphrase that a stream goes by, for the user that the Stream ID names, and its key.
fn passphrase<'a>(config: &'a Config, stream: &str, stream_id: &StreamId) -> Option<(&'a str, String)> {
    let srt = &config.ingestion.srt;
    let user = stream_id.user().and_then(|name| srt.access.users.get(name)?.passphrase.as_deref().zip(Some(name)));
    if let Some((passphrase, name)) = user {
        return Some((passphrase, user_key(name, "passphrase")));
    }
    if let Some(passphrase) = config.streams.get(stream).and_then(|stream| stream.passphrase.as_deref()) {
        return Some((passphrase, stream_key(stream, "passphrase")));
    }
    Some((srt.passphrase.as_deref()?, "ingestion.srt.passphrase".to_owned()))
}

/// Where the passphrase stands that a caller must know, for people; where one could stand, if there is none.
pub fn passphrase_key(config: &Config, stream: &str, stream_id: &StreamId) -> String {
    let none = || format!("{} or ingestion.srt.passphrase", stream_key(stream, "passphrase"));
    passphrase(config, stream, stream_id).map_or_else(none, |(_, key)| key)
}

/// What a stream goes by, for the user that the Stream ID names.
pub fn credentials<'a>(config: &'a Config, stream: &str, stream_id: &StreamId) -> Credentials<'a> {
    let srt = &config.ingestion.srt;
    let settings = config.streams.get(stream);
    Credentials {
        passphrase: passphrase(config, stream, stream_id).map(|(passphrase, _)| passphrase),
        crypto_mode: settings.and_then(|stream| stream.crypto_mode).unwrap_or(srt.crypto_mode),
        enforced_encryption: settings.and_then(|stream| stream.enforced_encryption).unwrap_or(srt.enforced_encryption),
    }
}

/// Judges what needs no key and no place (libsrt's access control guide): address, mode, type, host, user, name.
///
/// # Errors
/// The first reason against the caller.
pub fn judge(config: &Config, request: &AdmissionRequest) -> Result<(), Denial> {
    let access = &config.ingestion.srt.access;
    let (address, stream_id) = (request.key.peer.ip(), &request.stream_id);
    let deny = |reason, why: &str| Err(Denial::new(reason, why));
    if let Some(list) = refusing_list(&access.allow, &access.deny, address) {
        return deny(RejectReason::Forbidden, &format!("ingestion.srt.access.{list} does not let its address in"));
    }
    if stream_id.mode() == Some(Mode::Request) {
        return deny(RejectReason::BadMode, "it asks to be sent a stream (m=request), and none is served over SRT");
    }
    match stream_id.resource_type() {
        ResourceType::Stream => {}
        ResourceType::File => return deny(RejectReason::UnsupportedMedia, "it brings a file (t=file)"),
        ResourceType::Auth => return deny(RejectReason::UnsupportedMedia, "it wants to sign in (t=auth)"),
    }
    if let Some(host) = stream_id.host()
        && !access.hosts.is_empty()
        && !access.hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
    {
        return deny(RejectReason::HostNotFound, "the host it means is none of ingestion.srt.access.hosts");
    }
    let name = stream_name(request);
    if !access.users.is_empty() {
        let Some(user_name) = stream_id.user() else {
            return deny(RejectReason::Unauthorized, "it names no user (u=), and there are ingestion.srt.access.users");
        };
        let Some(user) = access.users.get(user_name) else {
            return deny(RejectReason::Unauthorized, "its user is none of ingestion.srt.access.users");
        };
        if !user.may_send(&name) {
            return deny(
                RejectReason::Forbidden,
                &format!("{} does not name this stream", user_key(user_name, "streams")),
            );
        }
    }
    if access.configured_streams_only && !config.streams.contains_key(&name) {
        return deny(
            RejectReason::NotFound,
            "streams does not name it, and ingestion.srt.access.configured_streams_only is set",
        );
    }
    if config.streams.get(&name).is_some_and(|stream| stream.srt.is_some()) {
        return deny(RejectReason::Conflict, &format!("{} says that it is fetched", stream_key(&name, "srt")));
    }
    against_address(config, &name, address).map_or(Ok(()), |why| deny(RejectReason::Forbidden, &why))
}

/// Judges the packet filter that a caller asks for, where `ours` is insisted on, if any is.
///
/// # Errors
/// [`RejectReason::Filter`].
pub fn judge_filter(request: &AdmissionRequest, ours: Option<&FilterConfiguration>) -> Result<(), Denial> {
    if request.settle_filter(ours).is_ok() {
        return Ok(());
    }
    let why = match (ours, &request.packet_filter) {
        _ if request.group.is_some() => "it is a leg of a bonding group, which gets no packet filter".to_owned(),
        (Some(ours), Some(theirs)) => format!("packet_filter is {ours}, and it asks for {theirs}"),
        (Some(ours), None) => format!("packet_filter is {ours}, and it knows no packet filters"),
        (None, Some(theirs)) => format!("it asks for the packet filter {theirs}, which nobody can have"),
        (None, None) => "its packet filter is none".to_owned(),
    };
    Err(Denial::new(RejectReason::Filter, why))
}

/// What a listener's refusal hangs on in the configuration, if on anything; the listener itself knows nothing of that.
pub fn why_at_the_door(config: &Config, reason: RejectReason) -> Option<String> {
    let srt = &config.ingestion.srt;
    Some(match reason {
        RejectReason::Overload => {
            "its source has sent as many as ingestion.srt.access.conclusions_per_second allows".to_owned()
        }
        RejectReason::Version => {
            let version = srt.version_min?;
            format!("its SRT is older than ingestion.srt.version_min = {version}")
        }
        RejectReason::Group if !srt.bonding => {
            "it is a leg of a bonding group, and ingestion.srt.bonding is false".to_owned()
        }
        RejectReason::Group => "its bonding group is of a kind that is not known here".to_owned(),
        RejectReason::Filter => "the packet filter that it asks for is not known here".to_owned(),
        _ => return None,
    })
}

/// When somebody else gets the name of a stream that has a session.
pub fn takeover_of(config: &Config, stream: &str) -> Takeover {
    config.streams.get(stream).map_or_else(Takeover::default, |stream| stream.takeover)
}

/// What remains of a policy for one who has not shown the passphrase that there is: silence alone counts.
pub fn without_proof(policy: Takeover) -> Takeover {
    match policy {
        Takeover::Silent | Takeover::SilentOrSameSource | Takeover::Always => Takeover::Silent,
        Takeover::Never | Takeover::SameSource => Takeover::Never,
    }
}

/// Whether a session that was at `old_peer`, and silent for so long, may be taken over by a caller of the same name; as it has come
/// this far, it knows the passphrase.
pub fn may_take_over(policy: Takeover, silence: Duration, old_peer: Option<SocketAddr>, new_peer: SocketAddr) -> bool {
    let is_silent = silence >= SILENT;
    let is_same = old_peer.is_none_or(|old| old.ip().to_canonical() == new_peer.ip().to_canonical());
    match policy {
        Takeover::SilentOrSameSource => is_silent || is_same,
        Takeover::Silent => is_silent,
        Takeover::SameSource => is_same,
        Takeover::Never => false,
        Takeover::Always => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Instant;
    use crate::config::{Stream, User};
    use crate::protocol::srt::caller::{Caller, CallerSettings};
    use crate::protocol::srt::listener::{Event, Listener, ListenerSettings};
    use crate::protocol::srt::packet::SequenceNumber;

    /// What a listener makes of a caller with this Stream ID.
    fn request(from: &str, stream_id: &str) -> AdmissionRequest {
        let (now, from): (_, SocketAddr) = (Instant::from_millis(1), from.parse().unwrap());
        let to = "192.0.2.1:30000".parse().unwrap();
        let settings = CallerSettings {
            stream_id: StreamId::new(stream_id).unwrap(),
            ..CallerSettings::new(to, 7, SequenceNumber::new(0))
        };
        let mut caller = Caller::new(now, settings);
        let mut listener = Listener::new(ListenerSettings::default());
        let mut buffer = Vec::new();
        for _ in 0..2 {
            buffer.clear();
            caller.poll_transmit(now, &mut buffer).unwrap();
            listener.receive(now, from, None, 0, &buffer);
            buffer.clear();
            if listener.poll_transmit(now, &mut buffer).is_some() {
                caller.receive(now, to, &buffer);
            }
        }
        let Some(Event::Admission(request)) = listener.poll_event() else { panic!("an admission") };
        *request
    }

    fn code(config: &Config, from: &str, stream_id: &str) -> u32 {
        judge(config, &request(from, stream_id)).map_or_else(|denial| denial.reason.code(), |()| 0)
    }

    fn why(config: &Config, from: &str, stream_id: &str) -> String {
        judge(config, &request(from, stream_id)).unwrap_err().why
    }

    fn config(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        change(&mut config);
        config
    }

    #[test]
    fn what_a_listener_refuses_by_the_configuration_is_told_with_its_key() {
        let why = |config: &Config, reason| why_at_the_door(config, reason).unwrap_or_default();
        let open = Config::default();
        let strict = config(|it| {
            it.ingestion.srt.bonding = false;
            it.ingestion.srt.version_min = Some("1.5.4".parse().unwrap());
        });
        assert!(why(&open, RejectReason::Overload).ends_with("as ingestion.srt.access.conclusions_per_second allows"));
        assert_eq!(why(&open, RejectReason::Version), "");
        assert_eq!(why(&strict, RejectReason::Version), "its SRT is older than ingestion.srt.version_min = 1.5.4");
        assert!(why(&strict, RejectReason::Group).ends_with("and ingestion.srt.bonding is false"));
        assert!(!why(&open, RejectReason::Group).contains("ingestion.srt.bonding"));
        assert_eq!(
            why(&open, RejectReason::BadRequest),
            "",
            "the listener knows better what is wrong with a Stream ID"
        );
    }

    const HERE: &str = "10.0.0.1:4000";

    #[test]
    fn each_kind_of_wish_that_cannot_be_met_has_its_code() {
        let open = Config::default();
        for (stream_id, expected) in [
            ("", 0),
            ("cam1", 0),
            ("#!::r=cam1", 0),
            ("#!::r=cam1,m=publish,t=stream,u=anybody,h=anywhere,s=42,acme_zone=7", 0),
            ("#!::r=cam1,m=bidirectional", 0),
            ("#!:{r=cam1,m=publish,acme_site={zone=7}}", 0),
            ("#!::r=cam1,m=request", 1405),
            ("#!:{r=cam1,m=request}", 1405),
            ("#!::r=a.ts,m=publish,t=file", 1415),
            ("#!::r=key,t=auth", 1415),
        ] {
            assert_eq!(code(&open, HERE, stream_id), expected, "{stream_id}");
        }
    }

    #[test]
    fn a_host_that_is_none_of_ours_is_not_found() {
        let config = config(|it| it.ingestion.srt.access.hosts = vec!["studio.example".to_owned()]);
        assert_eq!(code(&config, HERE, "#!::r=a,h=Studio.Example"), 0);
        assert_eq!(code(&config, HERE, "#!::r=a,h=other.example"), 1003);
        assert_eq!(code(&config, HERE, "#!::r=a"), 0, "who names no host means this one");
    }

    #[test]
    fn a_user_must_be_known_and_sends_its_own_streams_under_its_own_passphrase() {
        let config = config(|it| {
            let user = User { passphrase: Some("of north alone".to_owned()), streams: vec!["north/*".to_owned()] };
            it.ingestion.srt.access.users.insert("north".to_owned(), user);
            it.ingestion.srt.access.users.insert("guest".to_owned(), User::default());
            it.ingestion.srt.passphrase = Some("of everybody".to_owned());
            let stream = Stream { passphrase: Some("of the stream".to_owned()), ..Stream::default() };
            it.streams.insert("north/1".to_owned(), stream);
        });
        assert_eq!(code(&config, HERE, "#!::r=north/1,u=north"), 0);
        assert_eq!(code(&config, HERE, "#!::r=south/1,u=north"), 1403);
        assert_eq!(code(&config, HERE, "#!::r=north/1,u=nobody"), 1401);
        assert_eq!(code(&config, HERE, "north/1"), 1401, "a plain name says no user");
        for (stream_id, expected) in [
            ("#!::r=south/1,u=north", "ingestion.srt.access.users.north.streams does not name this stream"),
            ("#!::r=north/1,u=nobody", "its user is none of ingestion.srt.access.users"),
            ("north/1", "it names no user (u=), and there are ingestion.srt.access.users"),
        ] {
            assert_eq!(why(&config, HERE, stream_id), expected);
        }
        for (stream, user, passphrase, key) in [
            ("north/1", "north", "of north alone", "ingestion.srt.access.users.north.passphrase"),
            ("north/1", "guest", "of the stream", "streams.north/1.passphrase"),
            ("south/1", "guest", "of everybody", "ingestion.srt.passphrase"),
        ] {
            let stream_id = StreamId::new(&format!("#!::r={stream},u={user}")).unwrap();
            assert_eq!(credentials(&config, stream, &stream_id).passphrase, Some(passphrase));
            assert_eq!(passphrase_key(&config, stream, &stream_id), key);
        }
        let none = passphrase_key(&Config::default(), "cam.1", &StreamId::default());
        assert_eq!(none, "streams.\"cam.1\".passphrase or ingestion.srt.passphrase");
    }

    #[test]
    fn lists_of_networks_hold_for_all_and_for_one_stream() {
        let config = config(|it| {
            it.ingestion.srt.access.allow = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
            it.ingestion.srt.access.deny = vec!["10.66.0.0/16".parse().unwrap()];
            let stream = Stream { deny: vec!["10.1.0.0/16".parse().unwrap()], ..Stream::default() };
            it.streams.insert("cam1".to_owned(), stream);
            let source = Some(IpAddr::from([10, 0, 0, 9]));
            it.streams.insert("cam2".to_owned(), Stream { source, ..Stream::default() });
            it.ingestion.srt.access.configured_streams_only = true;
        });
        assert_eq!(code(&config, HERE, "cam1"), 0);
        assert_eq!(code(&config, "[2001:db8::1]:4000", "cam1"), 0);
        assert_eq!(code(&config, "[::ffff:10.0.0.1]:4000", "cam1"), 0);
        for (from, stream) in
            [("192.0.2.9:1", "cam1"), ("[2001:db9::1]:1", "cam1"), ("10.66.0.1:1", "cam1"), ("10.1.0.1:1", "cam1")]
        {
            assert_eq!(code(&config, from, stream), 1403, "{from}");
        }
        assert_eq!((code(&config, HERE, "cam2"), code(&config, "10.0.0.9:1", "cam2")), (1403, 0));
        assert_eq!(code(&config, HERE, "cam3"), 1404, "not configured");
        for (from, stream, expected) in [
            ("192.0.2.9:1", "cam1", "ingestion.srt.access.allow does not let its address in"),
            ("10.66.0.1:1", "cam1", "ingestion.srt.access.deny does not let its address in"),
            ("10.1.0.1:1", "cam1", "streams.cam1.deny does not let its address in"),
            (HERE, "cam2", "streams.cam2.source is 10.0.0.9, and it comes from another address"),
            (HERE, "cam3", "streams does not name it, and ingestion.srt.access.configured_streams_only is set"),
        ] {
            assert_eq!(why(&config, from, stream), expected);
        }
    }

    #[test]
    fn whatever_the_caller_uses_is_taken_unless_one_cipher_is_insisted_on() {
        // The rows of libsrt's table (SRTO_CRYPTOMODE) with a listener; a caller that leaves it open says AES-CTR.
        for (crypto_mode, ctr, gcm) in
            [(CryptoMode::Auto, true, true), (CryptoMode::Ctr, true, false), (CryptoMode::Gcm, false, true)]
        {
            let of = Credentials { passphrase: None, crypto_mode, enforced_encryption: true };
            assert_eq!((of.takes(Cipher::AesCtr), of.takes(Cipher::AesGcm)), (ctr, gcm), "{crypto_mode:?}");
        }
    }

    #[test]
    fn a_name_is_taken_over_as_its_policy_says() {
        let old: SocketAddr = "10.0.0.1:4000".parse().unwrap();
        let same: SocketAddr = "[::ffff:10.0.0.1]:5000".parse().unwrap();
        let other: SocketAddr = "10.0.0.2:4000".parse().unwrap();
        let (talking, silent) = (Duration::from_millis(999), Duration::from_secs(1));
        // From the same host and from another one while the old session is heard, then the same when it is silent.
        for (policy, expected) in [
            (Takeover::SilentOrSameSource, [true, false, true, true]),
            (Takeover::Silent, [false, false, true, true]),
            (Takeover::SameSource, [true, false, true, false]),
            (Takeover::Never, [false; 4]),
            (Takeover::Always, [true; 4]),
        ] {
            let may = |silence, new| may_take_over(policy, silence, Some(old), new);
            let found = [may(talking, same), may(talking, other), may(silent, same), may(silent, other)];
            assert_eq!(found, expected, "{policy:?}");
            let unproven = without_proof(policy);
            assert!(!may_take_over(unproven, talking, Some(old), same), "{policy:?}: not without the passphrase");
        }
        assert!(may_take_over(Takeover::default(), Duration::ZERO, None, other));
    }
}
