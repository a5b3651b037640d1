//! What the cases share: namespaces, containers made of a veth pair and an agent, and waiting with a deadline.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use runtime::id::ContainerId;
use runtime::layout::Layout;
use runtime::network::link::{Netlink, Veth};
use runtime::network::{bridge_name, veth_name};
use runtime::runtime::{EndpointTable, NetworkConfig};
use runtime::switchboard::SwitchboardClient;

/// Longest wait for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Enters own network and mount namespaces; the reason when that is impossible. Panics if it only seemed to work.
pub(crate) fn enter_namespaces() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root".into());
    }
    let netns = || std::fs::read_link("/proc/thread-self/ns/net").expect("procfs shows namespaces");
    let threads = std::fs::read_dir("/proc/self/task").expect("procfs lists threads").count();
    assert_eq!(threads, 1, "namespaces must be entered while single-threaded");
    let before = netns();
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(|e| format!("cannot unshare: {e}"))?;
    assert_ne!(before, netns(), "these tests must not run in the host's network namespace");
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(|e| e.to_string())?;
    // A new namespace begins with the host's value, which may be anything.
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").map_err(|e| e.to_string())?;
    Netlink::open().and_then(|mut n| n.set_up(1)).map_err(|e| e.to_string())
}

/// What a case must leave as it found it.
pub(crate) fn leftovers() -> String {
    let mut netlink = Netlink::open().expect("rtnetlink opens");
    let links: Vec<String> = netlink.links().expect("links are listed").into_iter().map(|l| l.name).collect();
    let forward = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("ip_forward is readable");
    let fds = std::fs::read_dir("/proc/self/fd").expect("procfs lists descriptors").count();
    format!("links {links:?}, ip_forward {}, {fds} descriptors", forward.trim())
}

/// After a failed case: takes away what would make the next ones fail as well. We are in namespaces of our own.
pub(crate) fn clear() {
    let mut netlink = Netlink::open().expect("rtnetlink opens");
    let links = netlink.links().expect("links are listed");
    for link in links.iter().filter(|l| l.name.starts_with("bx-") || l.name.starts_with("bv-")) {
        let _ = netlink.delete_link(&link.name);
    }
}

/// A data root and a run directory that go with the value.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
    /// Of the directories.
    pub(crate) layout: Layout,
}

impl Lab {
    /// Fresh directories.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let layout = Layout::new(dir.path().join("data"), dir.path().join("run"));
        std::fs::create_dir_all(&layout.data_root).expect("directories can be made");
        std::fs::create_dir_all(&layout.run_dir).expect("directories can be made");
        Self { dir, layout }
    }

    /// Where a case may put files.
    pub(crate) fn path(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Makes a network 10.77.`third`.0/24.
    pub(crate) fn network(&self, name: &str, third: u8, internal: bool) -> NetworkConfig {
        let name = name.parse().expect("cases use legal names");
        let config = NetworkConfig { name, gateway: Ipv4Addr::new(10, 77, third, 1), prefix_len: 24, internal };
        runtime::network::ensure(&self.layout, &config, &[])
            .unwrap_or_else(|e| panic!("{}", runtime::error::chain(&e)));
        config
    }

    /// A container on a network, with this last number in its address.
    pub(crate) fn container(&self, network: &NetworkConfig, last: u8) -> Agent {
        let [a, b, c, _] = network.gateway.octets();
        let address = Ipv4Addr::new(a, b, c, last);
        let id: ContainerId = format!("c-{c}-{last}").parse().expect("a legal name");
        let bridge = bridge_name(&self.layout, &network.name);
        let master = Netlink::open().and_then(|mut n| n.link(&bridge)).expect("links are listed").expect("it exists");
        let port = Some((master.index, runtime::network::mac_of(address)));
        let agent = Agent::attach(&veth_name(&self.layout, &id), port, id);
        agent.up(address, network.prefix_len, network.gateway)
    }

    /// A host behind a veth pair of its own: "the internet". It has 198.51.100.2, we have 198.51.100.1.
    pub(crate) fn outside(&self) -> Agent {
        let agent = Agent::beside("outside0", Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2));
        let mut netlink = Netlink::open().expect("rtnetlink opens");
        netlink.add_default_route(Ipv4Addr::new(198, 51, 100, 2)).expect("a route can be added");
        agent
    }
}

/// A keeper with its switchboard, killed and reaped with the value.
pub(crate) struct Switchboard {
    keeper: Child,
    /// Talks to it.
    pub(crate) client: SwitchboardClient,
}

impl Switchboard {
    /// Starts both and waits until the switchboard serves.
    pub(crate) fn start(lab: &Lab) -> Self {
        let keeper = Command::new("/proc/self/exe")
            .arg("keeper")
            .args(lab.layout.to_args())
            .args(["--with", "switchboard"])
            .spawn()
            .expect("the test program can be run again");
        let client = SwitchboardClient::new(&lab.layout);
        let switchboard = Self { keeper, client };
        wait_until("the switchboard serves", || switchboard.client.set_table(&EndpointTable::default()).is_ok());
        switchboard
    }

    /// Puts a table in force.
    pub(crate) fn set(&self, table: &EndpointTable) {
        self.client.set_table(table).unwrap_or_else(|e| panic!("{}", runtime::error::chain(&e)));
    }

    /// The switchboard's pid; `None` between two lives.
    pub(crate) fn pid(&self) -> Option<u32> {
        let keeper = self.keeper.id();
        let path = format!("/proc/{keeper}/task/{keeper}/children");
        std::fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
    }

    /// Kills the switchboard and waits until the keeper started its successor.
    pub(crate) fn kill(&self) {
        let pid = self.pid().expect("it runs");
        signal(pid, Signal::SIGKILL);
        wait_until("the switchboard is restarted", || self.pid().is_some_and(|now| now != pid));
    }

    /// Upgrades it in place: the keeper ends it in order and starts its successor.
    pub(crate) fn upgrade(&self) {
        let pid = self.pid().expect("it runs");
        signal(self.keeper.id(), Signal::SIGHUP);
        wait_until("the switchboard is replaced", || self.pid().is_some_and(|now| now != pid));
    }
}

impl Drop for Switchboard {
    fn drop(&mut self) {
        signal(self.keeper.id(), Signal::SIGTERM);
        let _ = self.keeper.wait();
    }
}

fn signal(pid: u32, signal: Signal) {
    let raw = i32::try_from(pid).expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(raw), signal).expect("it is ours");
}

/// A process in a network namespace of its own that does what it is told, see `agent`.
pub(crate) struct Agent {
    child: Child,
    stdin: ChildStdin,
    stdout: std::cell::RefCell<BufReader<ChildStdout>>,
    veth: String,
    /// As if it were a container.
    pub(crate) id: ContainerId,
    /// Its address once it is up.
    pub(crate) address: Ipv4Addr,
}

impl Agent {
    /// `port`: the bridge it is attached to, and the one hardware address that may come in there.
    fn attach(veth: &str, port: Option<(u32, [u8; 6])>, id: ContainerId) -> Self {
        let mut child = Command::new("/proc/self/exe")
            .arg("agent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test program can be run again");
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped")).into();
        let agent = Self { child, stdin, stdout, veth: veth.into(), id, address: Ipv4Addr::UNSPECIFIED };
        agent.answer();
        let netns = std::fs::File::open(format!("/proc/{}/ns/net", agent.child.id())).expect("its namespace is there");
        let (master, peer_mac) = port.unzip();
        let pair = Veth { name: veth, master, peer_name: "eth0", peer_netns: netns.as_fd(), peer_mac };
        let mut netlink = Netlink::open().expect("rtnetlink opens");
        netlink.add_veth(&pair).expect("a veth pair can be made");
        if let Some(mac) = peer_mac {
            let link = netlink.link(veth).expect("links are listed").expect("it was just made");
            netlink.lock_port(link.index, mac).expect("a port can be locked");
        }
        agent
    }

    fn up(mut self, address: Ipv4Addr, prefix_len: u8, gateway: Ipv4Addr) -> Self {
        self.address = address;
        assert_eq!(self.ask(&format!("up {address} {prefix_len} {gateway}")), "ok");
        // A new link loses packets until the kernel's linkwatch has run, which takes long on a busy machine.
        let nobody = std::net::SocketAddr::new(address.into(), 9);
        wait_until("packets get through", || {
            let attempt = std::net::TcpStream::connect_timeout(&nobody, Duration::from_millis(100));
            attempt.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
        });
        self
    }

    /// A host behind a veth pair of its own, with our end at `own`.
    pub(crate) fn beside(veth: &str, own: Ipv4Addr, address: Ipv4Addr) -> Self {
        let agent = Self::attach(veth, None, veth.parse().expect("a legal name"));
        let mut netlink = Netlink::open().expect("rtnetlink opens");
        let link = netlink.link(veth).expect("links are listed").expect("it was just made");
        netlink.add_address(link.index, own, 24).expect("an address can be added");
        netlink.set_up(link.index).expect("it can be set up");
        agent.up(address, 24, own)
    }

    /// Tells it something and returns its answer, one line.
    pub(crate) fn ask(&self, line: &str) -> String {
        self.tell(line);
        self.answer()
    }

    /// Tells it something; [`Self::answer`] waits for what it answers.
    pub(crate) fn tell(&self, line: &str) {
        writeln!(&self.stdin, "{line}").expect("the agent listens");
    }

    /// Its next answer.
    pub(crate) fn answer(&self) -> String {
        let mut line = String::new();
        self.stdout.borrow_mut().read_line(&mut line).expect("the agent answers");
        assert!(!line.is_empty(), "the agent of {} died", self.id);
        line.trim_end().to_owned()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The pair would go with its namespace, but a moment later.
        let _ = Netlink::open().and_then(|mut n| n.delete_link(&self.veth));
    }
}

/// Waits until something holds; panics with `what` after the deadline.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        let moment = nix::poll::PollTimeout::from(2_u8);
        let _ = nix::poll::poll(&mut [], moment);
    }
}
