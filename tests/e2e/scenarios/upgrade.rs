//! Another version in place: the keeper starts the three from the new file, and nothing is lost on the way.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use super::converge::{EXTRA_CONF, web};
use super::{alone, on_images};
use crate::http::{Connection, Load};
use crate::lab::Lab;
use crate::lines::{self, Reader};
use crate::names::{Asking, Way};
use crate::wait::wait_for;
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] =
    &[alone(on_images("an_upgrade_of_all_three_loses_nothing", 120, an_upgrade_loses_nothing))];

const DAEMONS: [&str; 3] = ["controller", "supervisor", "switchboard"];
const UPGRADES: usize = 3;

/// Clients on new and on open connections, a slow download, names by every way, and a counter that ends in the last upgrade.
fn an_upgrade_loses_nothing(lab: &mut Lab) -> Result {
    let failed = |error: std::io::Error| error.to_string();
    let binary = lab.dir.join("boxship");
    std::fs::copy(&lab.binary, &binary).map_err(failed)?;
    lab.binary.clone_from(&binary);
    lab.write("extra.conf", EXTRA_CONF)?;
    lab.write("web.yaml", &web(lab, "1", 2, ""))?;
    lab.write("count.yaml", &lines::counter(lab, 42)?)?;
    lab.start_controller()?;
    lab.ready("app/web", 2, Duration::from_secs(60))?;
    let web = lab.pids("app/web")?;
    let (container, _) = lab.started("job/count")?;
    let reader = Reader::start(lab.logs_of(&container));
    lines::go(lab, "start")?;

    let mut download = Connection::open(8080)?;
    download.ask("/slow")?;
    let (anew, kept) = (Load::start(3, 8080, "/"), Load::start_kept(3, 8080, "/"));
    let names = [Way::Udp, Way::Tcp, Way::TcpKept].map(|way| Asking::start(web[0].1, way, "web", 1));
    for round in 0..UPGRADES {
        let before = reader.lines();
        upgrade(lab, &binary, || if round + 1 == UPGRADES { lines::go(lab, "stop") } else { Ok(()) })?;
        let what = format!("the counter goes on after upgrade {round}");
        wait_for(&what, Duration::from_secs(10), || {
            ensure!(round + 1 == UPGRADES || reader.lines() > before + 100, "{} lines", reader.lines());
            Ok(())
        })?;
    }
    lab.failed_with("job/count", 42)?;

    for (how, load) in [("new", anew), ("open", kept)] {
        let seen = load.stop();
        println!("measured: {} requests on {how} connections, slowest {:?}", seen.requests, seen.slowest);
        ensure!(seen.failed() == 0, "{how} connections: {:?} of {} requests", seen.failures, seen.requests);
        ensure!(seen.requests > 100, "only {} requests on {how} connections", seen.requests);
    }
    for asking in names {
        let asked = asking.stop()?;
        ensure!(asked > 100, "only {asked} questions");
    }
    // more than any buffer on its way could have held before the first upgrade
    let body = download.body(128 << 10)?;
    ensure!(body.bytes().all(|byte| byte == b's'), "the download goes on with other bytes");
    let (read, written) = (reader.stop()?, lines::counted(lab)?);
    println!("measured: {} lines", read.lines);
    ensure!(read.missing.is_empty(), "missing: {:?}", read.missing);
    ensure!(read.repeats == 0, "{} repeats", read.repeats);
    ensure!(read.next == written, "{written} lines were written, {} read", read.next);
    ensure!(lab.pids("app/web")? == web, "containers were touched");
    Ok(())
}

/// Puts another file in the place of the binary and tells the keeper; `meanwhile` happens right after. Returns when all three
/// are other processes that run the new file.
fn upgrade(lab: &Lab, binary: &Path, meanwhile: impl FnOnce() -> Result) -> Result {
    let failed = |error: std::io::Error| format!("{}: {error}", binary.display());
    let next = binary.with_extension("next");
    // bytes after the end of an ELF file are nothing to the kernel, and tell this version from the last
    let mut bytes = std::fs::read(binary).map_err(failed)?;
    bytes.push(0);
    std::fs::write(&next, &bytes).map_err(failed)?;
    std::fs::set_permissions(&next, std::os::unix::fs::PermissionsExt::from_mode(0o755)).map_err(failed)?;
    std::fs::rename(&next, binary).map_err(failed)?;
    let keeper = lab.daemon("keeper")?;
    let before = DAEMONS.map(|role| lab.daemon(role));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(keeper), nix::sys::signal::Signal::SIGHUP)
        .map_err(|error| format!("tell the keeper: {error}"))?;
    meanwhile()?;
    wait_for("all three run the new file", Duration::from_secs(20), || {
        for (role, before) in DAEMONS.iter().zip(&before) {
            let now = lab.daemon(role)?;
            let size = std::fs::metadata(format!("/proc/{now}/exe")).map_err(failed)?.size();
            ensure!(Ok(now) != *before && size == bytes.len() as u64, "{role} {now} still runs the old one");
        }
        // and the controller has had its first look
        ensure!(lab.object("app/web")?["ready"] == 2, "not ready yet");
        Ok(())
    })?;
    ensure!(lab.daemon("keeper")? == keeper, "the keeper is another one");
    Ok(())
}
