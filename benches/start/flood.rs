//! How fast containers may write to their logs: what a host's supervisor takes from their pipes and writes as records, and
//! whether a lossy log lets a program run faster.

use std::path::Path;
use std::time::Instant;

use runtime::Runtime as _;
use runtime::image::{BuildEntry, BuildLayer, Content, ImageBuild};
use runtime::runtime::{ContainerConfig, ImageConfig, RuntimeEvent};

use super::supervised::Supervised;

/// Bytes of one line with its end.
const LINE_BYTES: usize = 100;
const FILE_BYTES: usize = 16 << 20;
/// How often each container writes the file.
const TIMES: usize = 16;

pub(super) fn measure(dir: &Path, run: &Path) {
    let supervised = Supervised::new(dir, run);
    let (linux, config) = supervised.parts();
    let line = format!("{}\n", "x".repeat(LINE_BYTES - 1));
    let entries = vec![
        BuildEntry { path: "bin/busybox".into(), mode: 0o755, content: Content::HostFile("/bin/busybox".into()) },
        BuildEntry {
            path: "lines".into(),
            mode: 0o644,
            content: Content::Bytes(line.repeat(FILE_BYTES / LINE_BYTES).into_bytes()),
        },
    ];
    let cat: Vec<String> = ["/bin/busybox", "cat"].map(str::to_owned).into();
    let cmd = cat.into_iter().chain(std::iter::repeat_n("/lines".to_owned(), TIMES)).collect();
    let build =
        ImageBuild { layers: vec![BuildLayer { entries }], config: ImageConfig { cmd, ..ImageConfig::default() } };
    let image = linux.images().build(&"bench.test/flood:1".parse().expect("a legal reference"), &build);
    let config = ContainerConfig { image: image.expect("build").digest, ..config };
    println!("lines of {LINE_BYTES} bytes; supervisor's CPU with its children's\n");
    for (count, lossy) in [(1, false), (4, false), (1, true), (4, true)] {
        flood(&supervised, &config, count, lossy);
    }
}

fn flood(supervised: &Supervised, config: &ContainerConfig, count: usize, lossy: bool) {
    let (linux, _) = supervised.parts();
    let mut watch = linux.watch().expect("the supervisor answers");
    let configs: Vec<ContainerConfig> = (0..count)
        .map(|number| {
            let mut config = config.clone();
            config.id = format!("flood-{number}").parse().expect("a legal name");
            config.log.lossy = lossy;
            linux.create_container(&config).expect("create");
            config
        })
        .collect();
    let (begin, before) = (Instant::now(), supervised.cpu());
    configs.iter().for_each(|config| linux.start_container(&config.id).expect("start"));
    let mut running = count;
    while running > 0 {
        running -= usize::from(matches!(watch.next().expect("the supervisor lives"), RuntimeEvent::Exited { .. }));
    }
    let (wall, cpu) = (begin.elapsed().as_secs_f64(), supervised.cpu() - before);
    configs.iter().for_each(|config| linux.remove_container(&config.id).expect("remove"));
    let bytes = (count * TIMES * (FILE_BYTES / LINE_BYTES) * LINE_BYTES) as f64 / 1e6;
    let kind = if lossy { "lossy" } else { "whole" };
    println!(
        "{count} containers, {kind}: {bytes:.0} MB in {wall:.2} s: {:.0} MB/s, {:.1} ms CPU a MB",
        bytes / wall,
        cpu * 1e3 / bytes
    );
}
