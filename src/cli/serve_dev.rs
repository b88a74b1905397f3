//! dev
/// dev
pub fn run(set: &[String]) {
    tracing_subscriber::fmt().init();
    let loaded = crate::config::load(None, std::iter::empty(), set).unwrap();
    let signals = crate::shard::appliance::Signals::new().unwrap();
    let appliance = match crate::shard::appliance::Appliance::start(loaded.config) {
        Ok(a) => a,
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(1)
        }
    };
    println!("{:?}\n{}", appliance.started().listening, appliance.started().plan);
    while !signals.wait(std::time::Duration::from_secs(1)) {}
    for report in appliance.shards().reports(std::time::Duration::from_secs(1)) {
        println!("{report:#?}");
    }
    appliance.stop();
}
