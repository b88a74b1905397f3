//! `headworks file`: files over SRT, in buffer mode, which loses nothing and goes as fast as the path bears.

mod endpoint;
mod location;
mod name;
mod passphrase;
mod reading;
mod receiving;
mod report;
mod sending;
mod storing;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use self::endpoint::EndpointError;
use self::location::LocationError;
use super::arguments::Exit;
use super::passphrase_file::PassphraseFile;
use super::values::{rate, size, time};
use crate::protocol::srt::caller::CallError;
use crate::protocol::srt::handshake::RejectReason;
use crate::shard::appliance::{Signals, StartError};

/// How soon a disk that is behind is asked again.
const DISK_EVERY: Duration = Duration::from_millis(1);
/// How long a disk is waited for, at least: when all is to end, and meanwhile if `--timeout` is no longer.
const DISK_PATIENCE: Duration = Duration::from_secs(30);
/// What a disk writes in a second, at least, of what it has taken and keeps back: syncing a large file takes long, and does not say how it goes.
const DISK_BYTES_PER_SECOND: u64 = 1 << 20;

/// Why a caller is refused: what it is told, and what that means here.
type Denial = (RejectReason, String);

const HELP: &str = "\
Examples:
  Take files from anybody into a directory, until Ctrl-C:
    headworks file receive /srv/in srt://:9000
  Send two files there, one after the other:
    headworks file send a.mxf b.mxf srt://receiver:9000
  Encrypted, AES-256; the passphrase is the first line of a file, or stands in the URL, which whoever lists processes can read:
    headworks file receive /srv/in srt://:9000 --passphrase-file secret
    headworks file send a.mxf 'srt://receiver:9000?pbkeylen=32' --passphrase-file secret
    headworks file send a.mxf 'srt://receiver:9000?pbkeylen=32&passphrase=correct%20horse'
  With libsrt's srt-file-transmit at the other end, which takes the whole Stream ID for the name:
    srt-file-transmit 'srt://:9000?mode=listener' file:///srv/in/x    headworks file send a.mxf 'srt://receiver:9000?streamid=a.mxf'
    srt-file-transmit file://./a.mxf srt://receiver:9000              headworks file receive /srv/in srt://:9000
  The one who has the file listens, the one who wants it calls:
    headworks file send a.mxf srt://:9000
    headworks file receive /srv/in 'srt://sender:9000?streamid=a.mxf'

srt://HOST:PORT calls, srt://:PORT listens (mode=listener with an address of this host); there is no rendezvous for files. Keys: streamid, passphrase, pbkeylen (16, 24, 32),
cryptomode (0 to 2; libsrt has AES-GCM, 2, in live mode only), messageapi=1 (messages instead of bytes, if the other end wants that), mode.

Exit codes: 0 every file went through, 1 not so, 2 usage";

const SEND_HELP: &str = "\
A call says with its Stream ID what it brings: #!::r=NAME,m=publish,t=file,size=BYTES, where NAME is the last part of the path. Say
streamid=… for a receiver that wants another one, such as srt-file-transmit (streamid=NAME).
A file that cannot be opened when its turn comes, or of which the disk gives nothing for --timeout (30 s at least), has failed, and
the next one is sent.
A file has gone through when everything of it has been acknowledged. That the receiver could also keep it is not said in SRT unless it
fails before the end: compare the SHA-256 sums that both ends report.

Examples:
  headworks file send a.mxf b.mxf srt://receiver:9000 --progress
  headworks file send a.mxf 'srt://receiver:9000?streamid=tonight.mxf' --rate 20M
  headworks file send a.mxf srt://:9000 --json | jq .sha256

Exit codes: 0 every file has been acknowledged, 1 not so, 2 usage";

const RECEIVE_HELP: &str = "\
A file is named by the Stream ID of the caller (r=NAME, or all of a plain one). It has to be a plain name: no path, not hidden, no control
characters. While it comes in it is called NAME.part; it is on the disk before it gets its name, and is never seen half. What does not
end well is removed: there is nothing to go on from, and the sender has to begin anew.
When a file ends is not said in SRT. If the Stream ID announces its size (size=BYTES, as headworks file send does), it is whole when that
many have come, also where its sender stays connected until --timeout. Otherwise it is taken for whole when its sender ends the connection and
nothing is missing, and that is also what a sender does that is stopped half-way; one that falls silent leaves no file.
A disk that takes nothing for --timeout (30 s at least) is not waited for any more; to sync a file that is whole it has a second more for each
MiB. The file has failed then, NAME.part may be left, and its place of --transfers is free again when the disk answers.
Ctrl-C ends what is coming in, and waits 30 s for a disk that does not answer, or until a second Ctrl-C; NAME.part may then be left, too.

Refused with a code that the caller is told: 1002 FILEPATH no plain name, 1409 CONFLICT there is such a file, 1423 LOCKED it is just coming in,
1406 UNACCEPTABLE more than --max-size, 1507 NOROOM no room for it, 1402 OVERLOAD more than --transfers, or passphrases tried too often,
1405 BAD_MODE it wants to receive. Whoever has not shown the passphrase is told that alone (10 BADSECRET, 11 UNSECURE, 1402 too often), and
nothing is made.

Examples:
  headworks file receive /srv/in srt://:9000 --max-size 50G --transfers 8
  headworks file receive /srv/in srt://:9000 --count 1 --overwrite
  headworks file receive /srv/in 'srt://sender:9000?streamid=a.mxf'

Exit codes: 0 every file was kept, 1 one was not, or it was interrupted before all of --count had come, 2 usage";

/// Send and receive files over SRT
///
/// Nothing is lost and nothing is in time: all bytes arrive, as fast as the path bears (libsrt's file mode, with its congestion control).
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub struct FileArguments {
    #[command(subcommand)]
    command: FileCommand,
}

#[derive(Subcommand, Debug)]
enum FileCommand {
    Send(SendArguments),
    Receive(ReceiveArguments),
}

/// What both have.
#[derive(Args, Debug)]
struct Common {
    #[command(flatten)]
    passphrase: PassphraseFile,
    /// Packets that may be under way, and wait for the disk, of one file: the faster and the longer the path, the more
    #[arg(long, value_name = "N", default_value_t = 8_192, value_parser = clap::value_parser!(u32).range(32..=131_072))]
    window: u32,
    /// How long to try to connect
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "3s")]
    connect_timeout: Duration,
    /// A transfer of which nothing goes through for so long has failed; for the disk it is 30 s at least
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "30s")]
    timeout: Duration,
    /// Print a line each second, on standard error
    #[arg(long)]
    progress: bool,
    /// Print the report of each file as a line of JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Send files
#[derive(Args, Debug)]
#[command(after_help = SEND_HELP)]
struct SendArguments {
    /// The files, and last where to: srt://HOST:PORT calls for each of them, srt://:PORT waits for a caller for each
    #[arg(value_name = "FILE… URL", required = true, num_args = 2..)]
    files_and_url: Vec<String>,
    /// At most so many bits per second, headers included; without it as many as the path bears
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<u64>,
    #[command(flatten)]
    common: Common,
}

/// Receive files into a directory
#[derive(Args, Debug)]
#[command(after_help = RECEIVE_HELP)]
struct ReceiveArguments {
    /// Where they go
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    /// srt://:PORT listens, srt://HOST:PORT?streamid=NAME calls for one file
    #[arg(value_name = "URL")]
    location: String,
    /// Call what comes so, whatever its Stream ID says
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Replace a file of the same name
    #[arg(long)]
    overwrite: bool,
    /// Refuse a file that is larger, such as 500M or 20G (bytes)
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,
    /// Files at a time; each takes 2 KiB of memory for each packet of --window
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    transfers: u32,
    /// End after so many files, kept or not; without it on SIGTERM or SIGINT (Ctrl-C)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    common: Common,
}

impl Common {
    /// How long a disk that gives or takes nothing is waited for.
    fn disk_timeout(&self) -> Duration {
        self.timeout.max(DISK_PATIENCE)
    }
}

impl SendArguments {
    fn files_and_location(&self) -> Result<(&[String], &str), FileError> {
        let (location, files) = self.files_and_url.split_last().expect("clap wants two");
        Ok((files, location))
    }
}

/// Why files did not go through.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The other end.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// Signals cannot be received.
    #[error(transparent)]
    Signals(#[from] StartError),
    /// No socket.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Not a directory.
    #[error("{0}: no such directory")]
    Directory(PathBuf),
    /// A file that cannot be sent.
    #[error("{path}: {error}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A name that no Stream ID can say.
    #[error(
        "{path}: its name cannot be said in a Stream ID (a comma, or more than 128 bytes): give another with streamid=NAME"
    )]
    Name {
        /// Which.
        path: PathBuf,
    },
    /// Several files and one Stream ID.
    #[error("streamid= names one file: send the others by themselves")]
    OneName,
    /// What is called for cannot be kept.
    #[error("{0}")]
    Refused(String),
    /// The call failed.
    #[error("{0}")]
    Call(CallError),
    /// Files did not go through; the first of them.
    #[error("{first}")]
    Transfers {
        /// The first of them and its reason.
        first: String,
    },
    /// Ctrl-C.
    #[error("interrupted, {left} file{} not {done}", if *left == 1 { " was" } else { "s were" })]
    Interrupted {
        /// How many did not go through.
        left: u64,
        /// Sent or received.
        done: &'static str,
    },
    /// The report could not be printed.
    #[error("cannot print the report: {0}")]
    Print(#[from] io::Error),
}

impl FileError {
    /// Whether what was typed makes no sense.
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Location(_) | Self::OneName | Self::Name { .. })
    }
}

/// Does one of the two.
///
/// # Errors
/// [`FileError`], one line for standard error.
pub fn run(arguments: &FileArguments) -> Result<Exit, FileError> {
    let signals = Signals::new()?;
    let mut interrupted = || signals.wait(Duration::ZERO);
    match &arguments.command {
        FileCommand::Send(arguments) => sending::run(arguments, &mut interrupted)?,
        FileCommand::Receive(arguments) => receiving::run(arguments, &mut interrupted)?,
    }
    Ok(Exit::Done)
}
