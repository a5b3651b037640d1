//! Published ports beside Docker's userland proxy and bare DNAT, names, and changes of services: what it takes and whether the aims
//! are met.
//!
//! `cargo bench -p runtime --bench net` (root; `-- 5` for more rounds; `docker-proxy` of Debian's docker.io, and `nft`: what is not
//! there is left out). Everything happens in network namespaces of its own. CPU is all that the machine did meanwhile.

#[expect(dead_code, reason = "what the tests need beside")]
#[path = "../../tests/network/agent.rs"]
mod agent;
#[expect(dead_code, reason = "what the tests need beside")]
#[path = "../../tests/network/lab.rs"]
mod lab;
mod load;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use lab::{Agent, Lab, Switchboard};
use runtime::network;
use runtime::runtime::{DnsView, EndpointTable, HostPort, Listener, NetworkConfig, Service};

/// Where each kind of published port is.
const OURS: u16 = 8080;
const PROXY: u16 = 8081;
const DNAT: u16 = 8082;
const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest = || args[1..].iter().map(std::ffi::OsString::from);
    match args.first().map(String::as_str) {
        Some("agent") => return agent::obeying(load::order),
        Some("keeper") => return runtime::keeper::run(rest()).expect("the keeper runs"),
        Some("switchboard") => return runtime::switchboard::run(rest()).expect("the switchboard runs"),
        _ => {}
    }
    if let Err(why) = lab::enter_namespaces() {
        println!("skipped: {why}");
        return;
    }
    let rounds = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(3_usize);
    let lab = Lab::new();
    let shop = lab.network("shop", 1, false);
    let (web, outside) = (lab.container(&shop, 2), lab.outside());
    assert_eq!(web.ask("load-serve 80"), "ok");
    assert_eq!(outside.ask("load-ports"), "ok");
    let switchboard = Switchboard::start(&lab);
    switchboard.set(&table(&shop, &web));
    let others = Others::start(web.address);
    let mut aims = Aims::default();
    ports(&outside, &others, rounds, &mut aims);
    long(&outside, &mut aims);
    names(&lab, &web, &switchboard, &mut aims);
    changes(&lab, &mut aims);
    println!("\n{} of {} aims met", aims.met, aims.all);
}

fn table(shop: &NetworkConfig, web: &Agent) -> EndpointTable {
    let at = HostPort::tcp(IpAddr::V4(Ipv4Addr::UNSPECIFIED), OURS);
    let address = IpAddr::V4(web.address);
    let view = DnsView { networks: vec![shop.name.clone()], forward: false };
    EndpointTable {
        listeners: vec![Listener { at, backends: vec![(address, 80).into()], park_ms: 0 }],
        zones: [(shop.name.clone(), BTreeMap::from([("web".to_owned(), vec![address])]))].into(),
        views: [(web.id.clone(), view)].into(),
        services: Vec::new(),
    }
}

/// What is said at the end.
#[derive(Default)]
struct Aims {
    all: u32,
    met: u32,
}

impl Aims {
    fn see(&mut self, what: &str, is_met: bool) {
        self.all += 1;
        self.met += u32::from(is_met);
        println!("{}: {what}", if is_met { "met" } else { "MISSED" });
    }
}

/// The ways beside ours; gone with the value.
struct Others {
    proxy: Option<Child>,
    /// A host behind a link of its own, not behind our rules.
    bare: Option<Bare>,
}

struct Bare {
    _agent: Agent,
}

impl Others {
    fn start(container: Ipv4Addr) -> Self {
        let container = container.to_string();
        let host_port = PROXY.to_string();
        let args = ["-proto", "tcp", "-host-ip", "0.0.0.0", "-host-port", &host_port, "-container-ip", &container];
        // It tells by its descriptor 3 that it is ready.
        let script = "exec docker-proxy \"$@\" -container-port 80 3>/dev/null";
        let known = Command::new("sh").args(["-c", "command -v docker-proxy"]).stdout(Stdio::null()).status();
        let proxy = known.is_ok_and(|status| status.success()).then(|| {
            let proxy = Command::new("sh").args(["-c", script, "sh"]).args(args).spawn().expect("a shell");
            lab::wait_until("docker-proxy listens", || std::net::TcpStream::connect((HOST, PROXY)).is_ok());
            proxy
        });
        let agent = Agent::beside("bare0", Ipv4Addr::new(198, 51, 101, 1), Ipv4Addr::new(198, 51, 101, 2));
        assert_eq!(agent.ask("load-serve 80"), "ok");
        let rules = format!(
            "add table ip bench; add chain ip bench pre {{ type nat hook prerouting priority -100; }}; \
             add rule ip bench pre tcp dport {DNAT} dnat to 198.51.101.2:80"
        );
        let set = Command::new("nft").arg(rules).status().is_ok_and(|status| status.success());
        // Where our guard keeps the host from forwarding for others, it has to for once.
        let _ = Command::new("nft").arg("delete table inet boxship-forward").status();
        Self { proxy, bare: set.then_some(Bare { _agent: agent }) }
    }

    fn ways(&self) -> Vec<(&'static str, u16)> {
        let mut ways = vec![("boxship", OURS)];
        ways.extend(self.proxy.as_ref().map(|_| ("docker-proxy", PROXY)));
        ways.extend(self.bare.as_ref().map(|_| ("bare DNAT", DNAT)));
        ways
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        if let Some(proxy) = &mut self.proxy {
            let _ = proxy.kill();
            let _ = proxy.wait();
        }
    }
}

/// Medians of one way.
#[derive(Default, Clone)]
struct Figures {
    gigabytes_per_s: Vec<f64>,
    cpu_s_per_gigabyte: Vec<f64>,
    connections_per_s: Vec<f64>,
    p99_us: Vec<f64>,
}

fn ports(outside: &Agent, others: &Others, rounds: usize, aims: &mut Aims) {
    const SECONDS: f64 = 4.0;
    let mut figures: BTreeMap<&str, Figures> = BTreeMap::new();
    for _ in 0..rounds {
        for (way, port) in others.ways() {
            let of = figures.entry(way).or_default();
            let before = busy_s();
            let [bytes, ms] = numbers(&outside.ask(&format!("load-pull {HOST}:{port} {SECONDS}")));
            let gigabytes = bytes / 1e9;
            of.gigabytes_per_s.push(gigabytes / ms * 1e3);
            of.cpu_s_per_gigabyte.push((busy_s() - before) / gigabytes);
            let [count, failed, _, p99, _] = numbers(&outside.ask(&format!("load-rate {HOST}:{port} {SECONDS} 0")));
            assert!(failed < count / 100.0, "{way}: {failed} of {count} connections failed");
            of.connections_per_s.push(count / SECONDS);
            of.p99_us.push(p99);
        }
    }
    println!("| way | GB/s | CPU s/GB | connections/s | p99 us |\n|---|---|---|---|---|");
    let medians: BTreeMap<&str, [f64; 4]> = figures
        .into_iter()
        .map(|(way, of)| {
            let all = [of.gigabytes_per_s, of.cpu_s_per_gigabyte, of.connections_per_s, of.p99_us].map(median);
            println!("| {way} | {:.2} | {:.2} | {:.0} | {:.0} |", all[0], all[1], all[2], all[3]);
            (way, all)
        })
        .collect();
    let ours = medians["boxship"];
    if let Some(proxy) = medians.get("docker-proxy") {
        aims.see("throughput at least 0.95 of docker-proxy's", ours[0] >= 0.95 * proxy[0]);
        aims.see("CPU for a gigabyte no more than docker-proxy's", ours[1] <= proxy[1]);
        aims.see("new connections at least 1.2 of docker-proxy's", ours[2] >= 1.2 * proxy[2]);
        aims.see("p99 no worse than docker-proxy's", ours[3] <= proxy[3]);
    }
}

/// A minute at 2,000 new connections a second.
fn long(outside: &Agent, aims: &mut Aims) {
    let [count, failed, p50, p99, first] = numbers(&outside.ask(&format!("load-rate {HOST}:{OURS} 60 2000")));
    println!("\n60 s at 2,000/s: {count} connections, {failed} failed, p50 {p50} us, p99 {p99} us, {first} in 30 s");
    let held = count >= 0.98 * 120_000.0 && failed == 0.0 && count - first >= 0.98 * first;
    aims.see("2,000 new connections a second for a minute without slowing", held);
}

fn names(lab: &Lab, web: &Agent, switchboard: &Switchboard, aims: &mut Aims) {
    const SECONDS: u32 = 5;
    assert_eq!(web.ask(&format!("dns {} {}", lab.layout.run_dir.display(), web.id)), "ok");
    let pid = switchboard.pid().expect("it runs");
    let before = process_s(pid);
    let [answers] = numbers(&web.ask(&format!("load-names web {SECONDS}")));
    let per_core = answers / (process_s(pid) - before).max(0.01);
    println!(
        "\nnames: {:.0} answers/s, {per_core:.0} for a second of the switchboard's CPU",
        answers / f64::from(SECONDS)
    );
    aims.see("20,000 answers a second on a core", per_core >= 20_000.0);
}

/// Five hundred endpoints of services change at once.
fn changes(lab: &Lab, aims: &mut Aims) {
    let name = "big".parse().expect("a legal name");
    let big = NetworkConfig { name, gateway: Ipv4Addr::new(10, 77, 16, 1), prefix_len: 20, internal: false };
    network::ensure(&lab.layout, &big, &[]).expect("a network can be made");
    let services = |round: u32| -> Vec<Service> {
        let of = |n: u32| Service {
            network: big.name.clone(),
            address: Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 77, 31, 250)) - n),
            names: Vec::new(),
            ports: Vec::new(),
            backends: (0..2).map(|k| Ipv4Addr::from(0x0a4d_1100 + n * 2 + k + round % 2 * 600)).collect(),
        };
        (0..250).map(of).collect()
    };
    let publish = |round| network::services::publish(&lab.layout, &services(round)).expect("services can be published");
    publish(0);
    let change = |round| {
        let begin = Instant::now();
        publish(round);
        begin.elapsed().as_secs_f64() * 1e3
    };
    let ms = median((1..=21).map(change).collect());
    println!("\n500 endpoints changed in {ms:.1} ms (median of 21)");
    aims.see("500 endpoints changed in 20 ms", ms <= 20.0);
    network::services::publish(&lab.layout, &[]).expect("services can be taken away");
    network::remove(&lab.layout, &big.name).expect("nothing is attached");
}

fn numbers<const N: usize>(said: &str) -> [f64; N] {
    let all: Vec<f64> = said.split(' ').map(|text| text.parse().unwrap_or_else(|_| panic!("{said}"))).collect();
    all.try_into().unwrap_or_else(|_| panic!("{said}"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Seconds that all processors have worked.
fn busy_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").expect("the kernel counts");
    let line = stat.lines().next().expect("a line of sums");
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|text| text.parse().ok()).collect();
    // user nice system idle iowait irq softirq
    [0, 1, 2, 5, 6].iter().map(|n| ticks[*n]).sum::<f64>() / 100.0
}

/// Seconds that a process has worked.
fn process_s(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    fields[11..13].iter().filter_map(|text| text.parse::<f64>().ok()).sum::<f64>() / 100.0
}
