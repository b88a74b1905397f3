//! A bad network: `headworks relay` between a sender and the appliance.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::appliance::signal;

/// A running relay.
pub struct Relay {
    child: Child,
    /// Where senders send to.
    pub port: u16,
}

impl Relay {
    /// Relays to a port of this host, through what `arguments` say.
    pub fn start(to: u16, arguments: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_headworks"))
            .args(["relay", "--listen", "127.0.0.1:0", "--to", &format!("127.0.0.1:{to}"), "--json"])
            .args(arguments.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the relay starts");
        let mut line = String::new();
        BufReader::new(child.stderr.take().expect("piped")).read_line(&mut line).expect("text");
        let port = line.split_whitespace().nth(1).and_then(|address| address.rsplit(':').next()?.parse().ok());
        Self { port: port.unwrap_or_else(|| panic!("the relay says {line:?}")), child }
    }

    /// Ends it; gives its report, which must not speak of losses of its own making.
    pub fn finish(self) -> Value {
        let report = self.end();
        assert_lost_nothing_itself(&report);
        report
    }

    /// Ends it; gives its report.
    pub fn end(mut self) -> Value {
        signal(&self.child, "TERM");
        let mut report = String::new();
        self.child.stdout.take().expect("piped").read_to_string(&mut report).expect("text");
        serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {report:?}"))
    }
}

/// Panics if a report speaks of losses of the relay's own making.
pub fn assert_lost_nothing_itself(report: &Value) {
    for own in ["/forward/no_room", "/back/no_room", "/not_taken", "/overflowed", "/ignored"] {
        assert_eq!(report.pointer(own), Some(&Value::from(0)), "{own}: {report}");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
