//! Starts the processes of one measurement, bounds their time, and takes their figures in.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use crate::load::Load;

/// For starting, and for five hundred rings to be made.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who carries the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Readers are woken by the appliance's waker thread.
    FrameRing,
    /// Readers are woken by the writer itself.
    FrameRingDirect,
    Iceoryx2,
    Shmsink,
}

impl Exchange {
    pub fn name(self) -> &'static str {
        match self {
            Self::FrameRing => "frame ring",
            Self::FrameRingDirect => "  direct",
            Self::Iceoryx2 => "iceoryx2",
            Self::Shmsink => "shmsink",
        }
    }
}

/// The programs that there are.
pub struct Programs {
    ours: PathBuf,
    iceoryx2: Option<PathBuf>,
    shmsink: Option<PathBuf>,
}

impl Programs {
    /// Builds the rivals that are wanted; of one that cannot be built a line is printed.
    pub fn build(rivals: &[String]) -> io::Result<Self> {
        let wanted = |name: &str| rivals.iter().any(|rival| rival == name);
        Ok(Self {
            ours: env::current_exe()?,
            iceoryx2: if wanted("iceoryx2") { build_iceoryx2() } else { None },
            shmsink: if wanted("shmsink") { build_shmsink() } else { None },
        })
    }

    pub fn of(&self, exchange: Exchange) -> Option<&Path> {
        match exchange {
            Exchange::FrameRing | Exchange::FrameRingDirect => Some(&self.ours),
            Exchange::Iceoryx2 => self.iceoryx2.as_deref(),
            Exchange::Shmsink => self.shmsink.as_deref(),
        }
    }
}

fn build_iceoryx2() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/rivals");
    eprintln!("building iceoryx2 (minutes, the first time)");
    let built = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--locked", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/rivals/iceoryx2/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status();
    if built.is_ok_and(|status| status.success()) {
        return Some(target.join("release/headworks-rival-iceoryx2"));
    }
    println!("iceoryx2 is left out: benches/rivals/iceoryx2 could not be built");
    None
}

fn build_shmsink() -> Option<PathBuf> {
    let flags = Command::new("pkg-config").args(["--cflags", "--libs", "gstreamer-app-1.0"]).output().ok();
    let flags = flags.filter(|output| output.status.success()).map(|output| output.stdout);
    let has_element = || Command::new("gst-inspect-1.0").arg("shmsink").stdout(Stdio::null()).status();
    let program = env::temp_dir().join(format!("headworks-gst-shm-{}", std::process::id()));
    let built = flags.is_some_and(|flags| {
        Command::new("cc")
            .args(["-O2", "-o"])
            .arg(&program)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/rivals/gst_shm.c"))
            .args(String::from_utf8_lossy(&flags).split_whitespace())
            .status()
            .is_ok_and(|status| status.success())
    });
    if built && has_element().is_ok_and(|status| status.success()) {
        return Some(program);
    }
    println!("shmsink is left out: it takes libgstreamer-plugins-base1.0-dev and gstreamer1.0-plugins-bad");
    None
}

/// What the processes of one measurement found; times in ns.
#[derive(Debug, Default)]
pub struct Figures {
    /// From the payload in place to the frame visible and its readers' wake asked for.
    pub commits: Vec<u64>,
    /// The payload copied in.
    pub puts: Vec<u64>,
    /// From the stamp to the reader that knows.
    pub latencies: Vec<u64>,
    pub frames: u64,
    pub read: u64,
    /// Frames begun more than an interval after their time.
    pub late: u64,
    pub lost: u64,
    pub wrong: u64,
    /// Readers that never saw the last frame.
    pub silent: u64,
    /// The longest any reader took for what it read.
    pub elapsed_ns: u64,
}

impl Figures {
    fn take_in(&mut self, text: &str) {
        for line in text.lines() {
            let Some((key, value)) = line.split_once(' ') else { continue };
            let Ok(value) = value.parse::<u64>() else { continue };
            match key {
                "c" => self.commits.push(value),
                "p" => self.puts.push(value),
                "l" => self.latencies.push(value),
                "frames" => self.frames += value,
                "read" => self.read += value,
                "late" => self.late += value,
                "lost" => self.lost += value,
                "wrong" => self.wrong += value,
                "silent" => self.silent += value,
                "elapsed_ns" => self.elapsed_ns = self.elapsed_ns.max(value),
                _ => {}
            }
        }
    }

    /// What keeps these figures from being compared.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.late * 100 > self.frames {
            faults.push(format!("the writer was late for {} of {} frames", self.late, self.frames));
        }
        for (count, what) in [
            (self.wrong, "payloads were wrong"),
            (self.lost, "frames were lost by readers"),
            (self.silent, "readers missed the end"),
        ] {
            if count > 0 {
                faults.push(format!("{count} {what}"));
            }
        }
        faults
    }
}

/// One measurement: a writer on the first core, its readers on the second.
pub fn measure(program: &Path, load: &Load, root: &Path) -> Result<Figures, Box<dyn Error>> {
    fs::create_dir_all(root)?;
    let limit = Instant::now() + PATIENCE + Duration::from_nanos(load.duration_ns);
    let mut children = Vec::new();
    let outcome = start(program, load, root, limit, &mut children).and_then(|()| wait(&mut children, limit));
    for child in &mut children {
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome?;
    let mut figures = Figures::default();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.is_file() {
            figures.take_in(&fs::read_to_string(path)?);
        }
    }
    Ok(figures)
}

/// The readers' standard output is the writer's input.
fn start(
    program: &Path,
    load: &Load,
    root: &Path,
    limit: Instant,
    children: &mut Vec<Child>,
) -> Result<(), Box<dyn Error>> {
    let (credits, answers) = io::pipe()?;
    let role = |role: &str, result: &str| {
        let mut command = Command::new(program);
        command.arg(role).args(arguments(load, &root.join(result))).env("RUST_BACKTRACE", "0");
        command
    };
    children.push(role("writer", "writer").stdin(credits).spawn()?);
    // It makes its rings first: what a reader opens must be there.
    while !root.join("writer.ready").exists() {
        if children[0].try_wait()?.is_some() || Instant::now() > limit {
            return Err("the writer did not begin".into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    for i in 0..load.readers {
        let mut reader = role("reader", &format!("reader{i}"));
        children.push(reader.stdin(Stdio::null()).stdout(answers.try_clone()?).spawn()?);
    }
    Ok(())
}

fn arguments(load: &Load, result: &Path) -> Vec<String> {
    vec![
        format!("place={}", load.place),
        format!("result={}", result.display()),
        format!("size={}", load.size),
        format!("duration_ns={}", load.duration_ns),
        format!("interval_ns={}", load.interval_ns),
        format!("spinning={}", u8::from(load.spinning)),
        format!("rings={}", load.rings),
        format!("readers={}", load.readers),
        format!("window={}", load.window),
        format!("direct={}", u8::from(load.direct)),
    ]
}

fn wait(children: &mut [Child], limit: Instant) -> Result<(), Box<dyn Error>> {
    for child in children {
        loop {
            if let Some(status) = child.try_wait()? {
                if !status.success() {
                    return Err(format!("a process ended with {status}").into());
                }
                break;
            }
            if Instant::now() > limit {
                return Err("it took too long".into());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}
