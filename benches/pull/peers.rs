//! Who pulls: boxship, the peers as Debian packages them, and the plain tools as the floor. Each has its store on the
//! journaled disk and forgets the image between two rounds.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Ground;
use crate::image::Pack;

/// A way to get an image, and to forget it.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Both as `sh -c` takes them.
    pub(crate) pull: String,
    pub(crate) forget: String,
    /// Packages it reads.
    pub(crate) reads: &'static [Pack],
    _daemon: Option<Daemon>,
}

/// A process of ours, ended with its value.
pub(crate) struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

const BOTH: &[Pack] = &[Pack::Gzip, Pack::Zstd];

/// Those that are installed here.
pub(crate) fn all(ground: &Ground) -> Vec<Peer> {
    let mut found = vec![boxship(ground), tools(ground, 2), tools(ground, 1)];
    let (containerd, socket) = containerd(ground);
    // the same containerd serves dockerd, which would start one of its own and give it little time
    found.extend(
        [containerd.is_some().then(|| docker(ground, &socket)).flatten(), containerd, podman(ground)]
            .into_iter()
            .flatten(),
    );
    found
}

fn boxship(ground: &Ground) -> Peer {
    let at = format!("--data-root {0}/boxship/data --run-dir {0}/boxship/run", ground.disk.display());
    let program = std::env::var("BOXSHIP_BENCH").unwrap_or_else(|_| env!("CARGO_BIN_EXE_boxship").to_owned());
    let pull = format!("{program} image pull {}/bench:$PACK {at}", ground.registry);
    let forget = format!("rm -rf {}/boxship", ground.disk.display());
    Peer { name: "boxship", pull, forget, reads: BOTH, _daemon: None }
}

/// `gzip -dc | tar -x` from files that are here already, a directory a layer; with the sync every store owes.
fn tools(ground: &Ground, jobs: usize) -> Peer {
    let to = ground.disk.join("tools");
    let unpack = format!("mkdir -p {0}/{{}} && $UNPACK < $LAYERS/{{}} | tar -xC {0}/{{}}", to.display());
    let pull = format!("ls $LAYERS | xargs -P{jobs} -I{{}} sh -c '{unpack}' && sync -f {}", to.display());
    let name = if jobs == 1 { "plain tools, one by one" } else { "plain tools, two at a time" };
    Peer { name, pull, forget: format!("rm -rf {}", to.display()), reads: BOTH, _daemon: None }
}

fn docker(ground: &Ground, containerd: &Path) -> Option<Peer> {
    let (root, run) = (ground.disk.join("docker"), ground.dir.join("docker"));
    std::fs::create_dir_all(&run).expect("make a directory");
    let socket = run.join("docker.sock");
    let mut command = Command::new("dockerd");
    command.arg("--data-root").arg(&root).arg("--exec-root").arg(run.join("exec"));
    command.arg("--pidfile").arg(run.join("pid")).arg("-H").arg(format!("unix://{}", socket.display()));
    command.args(["--iptables=false", "--bridge=none", "--storage-driver=overlay2", "--insecure-registry"]);
    command.arg(&ground.registry).arg("--containerd").arg(containerd);
    let daemon = start(command, &run, &socket)?;
    let client = format!("docker -H unix://{}", socket.display());
    Some(Peer {
        name: "docker",
        pull: format!("{client} pull -q {}/bench:$PACK", ground.registry),
        forget: format!("{client} rmi -f {}/bench:$PACK", ground.registry),
        // 20.10 knows no zstd
        reads: &[Pack::Gzip],
        _daemon: Some(daemon),
    })
}

fn containerd(ground: &Ground) -> (Option<Peer>, PathBuf) {
    let (root, run) = (ground.disk.join("containerd"), ground.dir.join("containerd"));
    std::fs::create_dir_all(&run).expect("make a directory");
    let (config, socket) = (run.join("config.toml"), run.join("socket"));
    let text = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
        root,
        run.join("state"),
        socket
    );
    std::fs::write(&config, text).expect("write a file");
    let mut command = Command::new("containerd");
    command.arg("--config").arg(&config);
    let daemon = start(command, &run, &socket);
    let client = format!("ctr -a {}", socket.display());
    let name = format!("{}/bench:$PACK", ground.registry);
    let peer = daemon.map(|daemon| Peer {
        name: "containerd",
        pull: format!("{client} images pull --plain-http {name}"),
        forget: format!("{client} images rm --sync {name}; {client} content prune references"),
        reads: BOTH,
        _daemon: Some(daemon),
    });
    (peer, socket)
}

fn podman(ground: &Ground) -> Option<Peer> {
    Command::new("podman").arg("--version").stdout(Stdio::null()).status().ok()?;
    // podman takes no longer path than 50 bytes for its sockets
    let run = std::env::temp_dir().join(format!("boxship-bench-{}", std::process::id()));
    let (root, run) = (ground.disk.join("podman"), run.display());
    let at = format!("--root {} --runroot {run} --storage-driver overlay --events-backend none", root.display());
    Some(Peer {
        name: "podman",
        pull: format!("podman {at} pull -q --tls-verify=false {}/bench:$PACK", ground.registry),
        forget: format!("podman {at} rmi -af"),
        reads: BOTH,
        _daemon: None,
    })
}

/// Starts a daemon and waits for its socket. `None` when it is not installed or does not come up.
fn start(mut command: Command, run: &Path, socket: &Path) -> Option<Daemon> {
    let log = std::fs::File::create(run.join("log")).expect("create a log");
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("duplicate")).stderr(log);
    let mut daemon = Daemon(command.spawn().ok()?);
    if wait_for(&mut daemon, socket) {
        return Some(daemon);
    }
    println!("{:?} did not start: {}", command.get_program(), run.join("log").display());
    None
}

fn wait_for(daemon: &mut Daemon, socket: &Path) -> bool {
    for _ in 0..600 {
        if std::os::unix::net::UnixStream::connect(socket).is_ok() {
            return true;
        }
        if daemon.0.try_wait().ok().flatten().is_some() {
            return false;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    false
}
