//! The environment: one in a process, and one try at it.

use std::ffi::{CString, c_char, c_int};
use std::sync::Mutex;

use crate::ffi;
use crate::options::DpdkError;

/// Without any of these arguments from elsewhere: no files that other processes of DPDK would look for, one core that is not used, and
/// warnings alone.
const ALWAYS: &[&str] = &["headworks", "--no-telemetry", "--log-level=*:warning"];

/// What came of the try, once there has been one.
static STARTED: Mutex<Option<Result<(), i32>>> = Mutex::new(None);

/// Starts the environment with what is needed for `device` and `more` arguments; what was started before stays as it is.
pub(crate) fn start(device: &str, more: &[String]) -> Result<(), DpdkError> {
    let arguments = arguments(device, more);
    let mut started = STARTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let outcome = match *started {
        Some(outcome) => outcome,
        None => {
            let text = arguments.iter().map(|it| CString::new(it.as_str()).map_err(|_| DpdkError::Text(it.clone())));
            let text = text.collect::<Result<Vec<_>, _>>()?;
            // It pins the thread that it is started in, which is therefore one of its own.
            let outcome = std::thread::scope(|scope| {
                let thread = std::thread::Builder::new().name("hw-dpdk".to_owned());
                let started = thread.spawn_scoped(scope, move || init(text));
                started.map_or(Err(0), |thread| thread.join().unwrap_or(Err(0)))
            });
            *started.insert(outcome)
        }
    };
    outcome.map_err(|errno| DpdkError::Start {
        errno: std::io::Error::from_raw_os_error(errno),
        arguments: arguments[1..].join(" "),
    })
}

fn arguments(device: &str, more: &[String]) -> Vec<String> {
    let mut arguments: Vec<String> = ALWAYS.iter().map(|it| (*it).to_owned()).collect();
    let core = headworks_host::available_cores().first().copied().unwrap_or(0);
    arguments.push(format!("--lcores=0@{core}"));
    // Without huge pages it does not know how to be without files.
    let has_no_pages = more.iter().any(|it| it == "--no-huge");
    arguments.push(if has_no_pages { "--no-shconf" } else { "--in-memory" }.to_owned());
    // Other cards that are bound for DPDK are left alone.
    arguments.push(if is_pci(device) { format!("--allow={device}") } else { "--no-pci".to_owned() });
    arguments.extend_from_slice(more);
    arguments
}

/// Whether a device is named by a PCI address, such as `0000:01:00.0`.
fn is_pci(device: &str) -> bool {
    let address = device.split(',').next().unwrap_or_default();
    address.contains(':') && address.chars().all(|it| it.is_ascii_hexdigit() || matches!(it, ':' | '.'))
}

fn init(text: Vec<CString>) -> Result<(), i32> {
    // DPDK keeps pointers to some of them.
    let text: &'static [CString] = text.leak();
    let mut pointers: Vec<*mut c_char> = text.iter().map(|it| it.as_ptr().cast_mut()).collect();
    let count = pointers.len() as c_int;
    pointers.push(std::ptr::null_mut());
    let pointers: &'static mut [*mut c_char] = pointers.leak();
    // SAFETY: `count` pointers to texts that end in a zero and are never freed, and a null pointer behind them. The lock of
    // `STARTED` is held by who waits for this thread, so there is one call in a process.
    match unsafe { ffi::headworks_dpdk_start(count, pointers.as_mut_ptr()) } {
        0.. => Ok(()),
        errno => Err(-errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_allowed_alone_and_a_virtual_device_needs_none() {
        let with = |device: &str, more: &[&str]| {
            arguments(device, &more.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()).join(" ")
        };
        let card = with("0000:01:00.0,dv_flow_en=0", &[]);
        assert!(card.contains("--in-memory") && card.ends_with("--allow=0000:01:00.0,dv_flow_en=0"), "{card}");
        let other = with("net_af_packet0,iface=eth1", &["--no-huge", "-m", "64"]);
        assert!(other.contains("--no-shconf --no-pci --no-huge -m 64") && !other.contains("--in-memory"), "{other}");
    }
}
