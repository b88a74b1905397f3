//! `headworks check`: is this host ready? Every finding with what mends it.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use super::arguments::{ConfigArguments, Exit};
use super::table::Table;
use crate::config::ConfigError;
use crate::shard::host::{self, Finding, Severity};

const HELP: &str = "\
Needs no privileges and changes nothing: cures are commands to be typed. Severities: ok; advice (it could be better); degraded \
(feeds may suffer under load); prevents (serve would not start). Ports that a running headworks holds are found taken.

Examples:
  headworks check
  headworks check --config /etc/headworks.yaml
  headworks check --json | jq '.findings[] | select(.cure != null)'

Exit codes: 0 this host can serve, 1 something prevents it or the configuration is refused, 2 usage";

/// Check whether this host is ready, and show the cure for what it lacks
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub struct CheckArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Why nothing can be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The answer cannot be written.
    #[error("writing: {0}")]
    Write(#[from] io::Error),
}

#[derive(Serialize)]
struct Report<'a> {
    ready: bool,
    findings: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    what: &'a str,
    severity: &'static str,
    found: &'a str,
    wanted: &'a str,
    cure: Option<&'a str>,
}

/// Prints the findings.
///
/// # Errors
/// [`CheckError`].
pub fn run(arguments: &CheckArguments) -> Result<Exit, CheckError> {
    let config = arguments.config.load()?.config;
    let mut findings = host::judge_host(&config);
    findings.extend(host::judge_cards(&config));
    findings.extend(host::judge_descriptions(&config));
    findings.extend(host::judge_packet_filters(&config));
    findings.extend(host::judge_ports(&config));
    let ready = findings.iter().all(|finding| finding.severity < Severity::Prevents);
    let text = if arguments.json { as_json(&findings, ready)? } else { for_people(&findings, ready) };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ if ready => Ok(Exit::Done),
        _ => Ok(Exit::Failed),
    }
}

fn as_json(findings: &[Finding], ready: bool) -> io::Result<String> {
    let findings = findings
        .iter()
        .map(|finding| Line {
            what: finding.what,
            severity: finding.severity.name(),
            found: &finding.found,
            wanted: &finding.wanted,
            cure: finding.cure.as_deref(),
        })
        .collect();
    Ok(serde_json::to_string(&Report { ready, findings })? + "\n")
}

fn for_people(findings: &[Finding], ready: bool) -> String {
    let mut table = Table::new(&["", "what", "found", "wanted"]);
    for finding in findings {
        let mark = match finding.severity {
            Severity::Good => "ok",
            other => other.name(),
        };
        table.row(vec![mark.into(), finding.what.into(), finding.found.clone(), finding.wanted.clone()]);
    }
    let mut text = table.render();
    let mut faults: Vec<&Finding> = findings.iter().filter(|finding| finding.cure.is_some()).collect();
    faults.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    if !faults.is_empty() {
        text.push_str("\ncures, the most important first\n");
    }
    for finding in faults {
        let cure = finding.cure.as_deref().unwrap_or_default();
        text.push_str(&format!("  {} ({}): {cure}\n", finding.what, finding.severity.name()));
    }
    text.push_str(if ready { "\nthis host can serve\n" } else { "\nthis host cannot serve\n" });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity, cure: Option<&str>) -> Finding {
        let cure = cure.map(str::to_owned);
        Finding { what: "socket buffers", found: "208 KiB".into(), wanted: "32 MiB".into(), severity, cure }
    }

    #[test]
    fn cures_are_listed_below_the_table() {
        let findings = [finding(Severity::Good, None), finding(Severity::Degraded, Some("sysctl -w x=1"))];
        assert_eq!(
            for_people(&findings, true),
            "          what            found    wanted\n\
             ok        socket buffers  208 KiB  32 MiB\n\
             degraded  socket buffers  208 KiB  32 MiB\n\n\
             cures, the most important first\n  socket buffers (degraded): sysctl -w x=1\n\n\
             this host can serve\n"
        );
    }

    #[test]
    fn programs_get_the_same_as_people() {
        let text = as_json(&[finding(Severity::Prevents, Some("mend it"))], false).unwrap();
        assert_eq!(
            text,
            "{\"ready\":false,\"findings\":[{\"what\":\"socket buffers\",\"severity\":\"prevents\",\"found\":\"208 KiB\",\
             \"wanted\":\"32 MiB\",\"cure\":\"mend it\"}]}\n"
        );
    }
}
