//! A bridge made by the test in its own network namespace, and containers on it.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;

use runtime::network::link::Netlink;
use runtime::process::ExecConfig;
use runtime::runtime::{ContainerConfig, NetworkMode};
use runtime::spec::Bridge;

use super::Case;
use super::lab::{Lab, shell};

pub(crate) const CASES: &[Case] = &[
    ("containers_reach_each_other_over_a_bridge", containers_reach_each_other_over_a_bridge),
    ("the_resolvers_sockets_are_handed_out", the_resolvers_sockets_are_handed_out),
    ("port_53_is_left_to_the_program", port_53_is_left_to_the_program),
    ("without_a_network_there_is_only_loopback", without_a_network_there_is_only_loopback),
    ("the_hosts_network_is_the_hosts", the_hosts_network_is_the_hosts),
    ("a_missing_bridge_is_named", a_missing_bridge_is_named),
    ("the_pair_goes_with_the_container", the_pair_goes_with_the_container),
];

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 1);

/// The bridge, made on first use.
fn bridge() -> Bridge {
    let mut netlink = Netlink::open().unwrap();
    if netlink.link("bx-test").unwrap().is_none() {
        netlink.set_up(1).unwrap();
        netlink.add_bridge("bx-test", None).unwrap();
        let index = netlink.link("bx-test").unwrap().unwrap().index;
        netlink.add_address(index, GATEWAY, 24).unwrap();
    }
    Bridge { interface: "bx-test".into(), gateway: GATEWAY, prefix_len: 24 }
}

fn on_bridge(lab: &Lab, script: &str, host: u8) -> ContainerConfig {
    let network = NetworkMode::on("test".parse().unwrap(), [10, 201, 0, host].into());
    ContainerConfig { network, ..lab.script(script) }
}

fn containers_reach_each_other_over_a_bridge(lab: &Lab) {
    let server = on_bridge(lab, "echo hello from two | nc -l -p 80", 2);
    let server = lab.start_on(&server, Some(bridge())).unwrap();
    let script = "for i in $(seq 50); do nc 10.201.0.2 80 < /dev/null && break; sleep 0.05; done
        ip addr show eth0 | grep -o 'inet [0-9./]*'; ip route | head -1
        ping -c 1 -W 2 10.201.0.1 | grep -o '1 packets received'";
    let client = on_bridge(lab, script, 3);
    let outcome = lab.start_on(&client, Some(bridge())).unwrap().finish();
    assert_eq!(
        outcome.output,
        "hello from two\ninet 10.201.0.3/24\ndefault via 10.201.0.1 dev eth0 \n1 packets received\n"
    );
    assert_eq!(server.finish().code, 0);
}

fn the_resolvers_sockets_are_handed_out(lab: &Lab) {
    let config = on_bridge(lab, "exec sleep 1000", 4);
    let mut running = lab.start_on(&config, Some(bridge())).unwrap();
    let [udp, tcp] = running.dns.take().unwrap();
    let udp = UdpSocket::from(udp);
    let tcp = TcpListener::from(tcp);
    assert_eq!(udp.local_addr().unwrap().to_string(), "127.0.0.11:61053");
    assert_eq!(tcp.local_addr().unwrap().to_string(), "127.0.0.11:61053");
    let resolv = running.exec(&shell("cat /etc/resolv.conf")).unwrap().output;
    assert_eq!(resolv, "search stack\nnameserver 127.0.0.11\noptions ndots:0\n");
    // A question asked inside arrives at the descriptor outside.
    udp.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let ask = ExecConfig {
        args: ["sh", "-c", "nslookup web 127.0.0.11 >/dev/null 2>&1 &"].map(Into::into).to_vec(),
        ..shell("")
    };
    running.exec(&ask).unwrap();
    let mut question = [0; 512];
    let (count, _) = udp.recv_from(&mut question).unwrap();
    assert!(String::from_utf8_lossy(&question[..count]).contains("web"));
    drop(tcp.as_fd().try_clone_to_owned());
    running.kill();
}

/// A program may listen on port 53 of every address, as dnsmasq does, while 127.0.0.11 is asked by UDP and TCP.
fn port_53_is_left_to_the_program(lab: &Lab) {
    let script = "echo own | nc -l -p 53 &
        for i in $(seq 100); do grep -q ':0035 00000000:0000 0A' /proc/net/tcp && break; sleep 0.05; done
        grep -c ':0035 ' /proc/net/udp
        nc 10.201.0.7 53 < /dev/null; echo asked | nc 127.0.0.11 53; exec sleep 1000";
    let config = on_bridge(lab, script, 7);
    let mut running = lab.start_on(&config, Some(bridge())).unwrap();
    let [udp, tcp] = running.dns.take().unwrap();
    let tcp = TcpListener::from(tcp);
    let (mut peer, _) = tcp.accept().unwrap();
    let mut heard = [0; 6];
    std::io::Read::read_exact(&mut peer, &mut heard).unwrap();
    assert_eq!(&heard, b"asked\n");
    // The answer comes from the port that was asked.
    let udp = UdpSocket::from(udp);
    udp.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let ask = ExecConfig {
        args: ["sh", "-c", "nslookup -type=a web 127.0.0.11 > /tmp/answer 2>&1 &"].map(Into::into).to_vec(),
        ..shell("")
    };
    running.exec(&ask).unwrap();
    let mut question = [0; 512];
    let (count, from) = udp.recv_from(&mut question).unwrap();
    // An answer without a record: the same question, marked as an answer with "no such name".
    question[2] |= 0x80;
    question[3] = 0x83;
    udp.send_to(&question[..count], from).unwrap();
    super::lab::wait_until("nslookup takes the answer", || {
        running.exec(&shell("cat /tmp/answer")).is_ok_and(|heard| heard.output.contains("NXDOMAIN"))
    });
    drop(peer);
    let outcome = running.kill();
    assert!(outcome.output.starts_with("0\nown\n"), "{outcome:?}");
}

fn without_a_network_there_is_only_loopback(lab: &Lab) {
    assert_eq!(
        lab.output("ip -o link | grep -v -c sit0; ip addr show lo | grep -c 127.0.0.1; cat /etc/resolv.conf"),
        "1\n1\n"
    );
    assert_eq!(lab.output("cd /proc/sys/net/ipv4; cat ip_unprivileged_port_start ping_group_range"), "0\n0\t65535\n");
}

fn the_hosts_network_is_the_hosts(lab: &Lab) {
    bridge();
    let config =
        ContainerConfig { network: NetworkMode::Host, ..lab.script("ip -o link | grep -c '^[0-9]*: bx-test'") };
    assert_eq!(lab.run(&config).output, "1\n");
}

fn a_missing_bridge_is_named(lab: &Lab) {
    let config = on_bridge(lab, "true", 5);
    let nowhere = Bridge { interface: "bx-nowhere".into(), ..bridge() };
    match lab.create(&config, Some(nowhere)) {
        Ok(running) => panic!("it started: {:?}", running.kill()),
        Err(error) => assert_eq!(error.to_string(), "network `bx-nowhere` does not exist"),
    }
}

fn the_pair_goes_with_the_container(lab: &Lab) {
    let config = on_bridge(lab, "exec sleep 1000", 6);
    let running = lab.start_on(&config, Some(bridge())).unwrap();
    let name = runtime::network::veth_name(&lab.layout, &config.id);
    let mut netlink = Netlink::open().unwrap();
    let link = netlink.link(&name).unwrap().unwrap();
    assert!(link.up && link.kind.as_deref() == Some("veth") && link.master.is_some(), "{link:?}");
    running.kill();
    super::lab::wait_until("the end of the pair", || netlink.link(&name).unwrap().is_none());
}
