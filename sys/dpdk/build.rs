//! Compiles the shim over DPDK's inline functions and links its shared libraries.

fn main() {
    println!("cargo::rerun-if-changed=src/shim.c");
    let found = pkg_config::Config::new().atleast_version("22.11").cargo_metadata(false).probe("libdpdk");
    let library = match found {
        Ok(library) => library,
        Err(error) => {
            eprintln!(
                "the feature `dpdk` needs DPDK 22.11 or later: install Debian's libdpdk-dev and pkg-config ({error})"
            );
            std::process::exit(1);
        }
    };
    let mut shim = cc::Build::new();
    shim.file("src/shim.c").includes(&library.include_paths).warnings_into_errors(true);
    // What DPDK's own headers were built with; `pkg_config` knows of include paths alone.
    shim.flag("-include").flag("rte_config.h").flag_if_supported("-Wno-unused-parameter");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|it| it == "x86_64") {
        shim.flag("-march=corei7");
    }
    // Inline functions of a debug build would be calls.
    shim.opt_level(2).compile("headworks_dpdk_shim");
    // Of the many libraries those that the shim calls; drivers are loaded by EAL.
    for name in ["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_eal"] {
        println!("cargo::rustc-link-lib={name}");
    }
    for path in &library.link_paths {
        println!("cargo::rustc-link-search={}", path.display());
    }
}
