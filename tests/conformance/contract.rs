//! The contract of `Runtime`: each case is true of every implementation.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::Duration;

use runtime::Error;
use runtime::runtime::{
    ContainerState, EndpointTable, ExecConfig, ExitStatus, HostPort, Listener, MountConfig, MountSource, NetworkMode,
    Resources, RuntimeEvent, VolumeConfig,
};

use crate::Case;
use crate::lab::{Lab, exec_stdio, ok};

pub(crate) const CASES: &[Case] = &[
    ("a_life", a_life),
    ("exit_codes_are_true", exit_codes_are_true),
    ("what_is_missing_is_named", what_is_missing_is_named),
    ("steps_out_of_order_are_conflicts", steps_out_of_order_are_conflicts),
    ("a_program_that_is_not_there", a_program_that_is_not_there),
    ("a_created_container_can_go", a_created_container_can_go),
    ("what_is_used_stays", what_is_used_stays),
    ("ensure_is_idempotent", ensure_is_idempotent),
    ("one_address_one_container", one_address_one_container),
    ("exec_tells_its_own_end", exec_tells_its_own_end),
    ("exec_can_be_killed_while_waited_for", exec_can_be_killed_while_waited_for),
    ("limits_change_in_place", limits_change_in_place),
    ("watches_hear_of_ends", watches_hear_of_ends),
    ("a_taken_port_is_named_and_the_others_work", a_taken_port_is_named_and_the_others_work),
];

fn a_life(lab: &Lab) {
    let runtime = lab.runtime();
    let config = lab.config("life", &["/bin/graceful"]);
    ok("create", runtime.create_container(&config));
    let created = lab.find(&config.id).unwrap();
    assert_eq!((created.state, created.exit), (ContainerState::Created, None));
    assert_eq!(created.config, config);
    assert!(created.pid.is_some());
    ok("start", runtime.start_container(&config.id));
    let running = lab.find(&config.id).unwrap();
    assert_eq!((running.state, running.exit), (ContainerState::Running, None));
    assert!(running.pid.is_some());
    ok("stop", runtime.stop_container(&config.id, Duration::from_secs(5)));
    let stopped = lab.find(&config.id).unwrap();
    assert_eq!((stopped.state, stopped.pid), (ContainerState::Stopped, None));
    assert!(!matches!(stopped.exit, None | Some(ExitStatus::Unknown)), "{:?}", stopped.exit);
    ok("a second stop", runtime.stop_container(&config.id, Duration::ZERO));
    ok("remove", runtime.remove_container(&config.id));
    assert_eq!(lab.find(&config.id), None);
    assert!(runtime.remove_container(&config.id).is_err_and(|error| error.is_not_found()));
}

fn exit_codes_are_true(lab: &Lab) {
    for code in [0, 3, 255] {
        let id = lab.run(&lab.config(&format!("exit-{code}"), &["/bin/sh", "-c", &format!("exit {code}")]));
        assert_eq!(lab.reaches(&id, ContainerState::Stopped).exit, Some(ExitStatus::Code(code)));
    }
    let id = lab.run(&lab.config("killed", &["/bin/sleep"]));
    ok("stop", lab.runtime().stop_container(&id, Duration::ZERO));
    assert_eq!(lab.find(&id).unwrap().exit, Some(ExitStatus::Signal(9)));
}

fn what_is_missing_is_named(lab: &Lab) {
    let runtime = lab.runtime();
    let nobody = lab.id("nobody");
    let missing = |result: runtime::Result<()>, what: &str| match result {
        Err(Error::NotFound { what: found, .. }) => assert_eq!(found, what),
        other => panic!("expected a missing {what}: {other:?}"),
    };
    missing(runtime.start_container(&nobody), "container");
    missing(runtime.stop_container(&nobody, Duration::ZERO), "container");
    missing(runtime.remove_container(&nobody), "container");
    missing(runtime.update_resources(&nobody, &Resources::default()), "container");
    missing(runtime.remove_volume(&"nothing".parse().unwrap()), "volume");
    missing(runtime.remove_network(&"nothing".parse().unwrap()), "network");
    missing(runtime.remove_image(&"registry.test/nothing:1".parse().unwrap()), "image");
    let mut config = lab.config("no-image", &["/bin/sleep"]);
    config.image = runtime::image::Digest::of(b"no such image");
    missing(runtime.create_container(&config), "image");
    let mut config = lab.config("no-volume", &["/bin/sleep"]);
    let source = MountSource::Volume { name: "nothing".parse().unwrap() };
    config.mounts.push(MountConfig { target: "/data".into(), source, read_only: false });
    missing(runtime.create_container(&config), "volume");
    let mut config = lab.config("no-network", &["/bin/sleep"]);
    config.network = NetworkMode::on("nothing".parse().unwrap(), Ipv4Addr::new(10, 79, 0, 9));
    missing(runtime.create_container(&config), "network");
    assert_eq!(ok("list", runtime.list_containers()), [], "a refused creation leaves nothing");
}

fn steps_out_of_order_are_conflicts(lab: &Lab) {
    let runtime = lab.runtime();
    let conflict = |what: &str, result: runtime::Result<()>| match result {
        Err(Error::Conflict(_)) => {}
        other => panic!("{what}: {other:?}"),
    };
    let config = lab.config("order", &["/bin/sleep"]);
    let id = lab.run(&config);
    conflict("create twice", runtime.create_container(&config));
    conflict("start twice", runtime.start_container(&id));
    conflict("remove a running one", runtime.remove_container(&id));
    ok("stop", runtime.stop_container(&id, Duration::ZERO));
    conflict("start a stopped one", runtime.start_container(&id));
    conflict("create a stopped one", runtime.create_container(&config));
    let exec = runtime.exec(&id, &exec_config(&["/bin/true"]), exec_stdio().0).map(drop);
    conflict("exec in a stopped one", exec);
}

fn a_program_that_is_not_there(lab: &Lab) {
    let config = lab.config("absent", &["/no/such/program"]);
    // told as early as it is known
    match lab.runtime().create_container(&config) {
        Err(Error::BadContainer(text)) => {
            assert!(text.contains("/no/such/program"), "{text}");
            return assert_eq!(lab.find(&config.id), None);
        }
        other => ok("create", other),
    }
    let start = lab.runtime().start_container(&config.id);
    assert!(matches!(start, Err(Error::BadContainer(_))), "{start:?}");
    let stopped = lab.reaches(&config.id, ContainerState::Stopped);
    assert!(stopped.exit.is_some());
    ok("remove", lab.runtime().remove_container(&config.id));
}

fn a_created_container_can_go(lab: &Lab) {
    let runtime = lab.runtime();
    let config = lab.config("created", &["/bin/sleep"]);
    ok("create", runtime.create_container(&config));
    ok("remove", runtime.remove_container(&config.id));
    assert_eq!(lab.find(&config.id), None);
    let config = lab.config("created-2", &["/bin/sleep"]);
    ok("create", runtime.create_container(&config));
    ok("stop", runtime.stop_container(&config.id, Duration::from_secs(30)));
    assert_eq!(lab.find(&config.id).unwrap().state, ContainerState::Stopped);
}

fn what_is_used_stays(lab: &Lab) {
    let runtime = lab.runtime();
    let mut config = lab.config("user", &["/bin/sleep"]);
    let source = MountSource::Volume { name: lab.volume.clone() };
    config.mounts.push(MountConfig { target: "/data".into(), source, read_only: false });
    config.network = NetworkMode::on(lab.network.name.clone(), Ipv4Addr::new(10, 79, 0, 2));
    ok("create", runtime.create_container(&config));
    let refused = [
        runtime.remove_volume(&lab.volume),
        runtime.remove_network(&lab.network.name),
        runtime.remove_image(&"registry.test/guest:1".parse().unwrap()),
    ];
    for result in refused {
        match result {
            Err(Error::Conflict(text)) => assert!(text.contains("user"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    ok("remove", runtime.remove_container(&config.id));
    ok("remove volume", runtime.remove_volume(&lab.volume));
    assert_eq!(ok("list", runtime.list_volumes()), []);
}

fn ensure_is_idempotent(lab: &Lab) {
    let runtime = lab.runtime();
    let before = ok("list", runtime.list_volumes());
    ok("ensure", runtime.ensure_volume(&before[0].config));
    ok("ensure", runtime.ensure_network(&lab.network));
    assert_eq!(ok("list", runtime.list_volumes()), before);
    let networks = ok("list", runtime.list_networks());
    assert_eq!(networks.len(), 1);
    assert!(networks[0].intact && networks[0].config == lab.network);
    let relabelled = VolumeConfig { labels: [("a".to_owned(), "c".to_owned())].into(), ..before[0].config.clone() };
    ok("ensure", runtime.ensure_volume(&relabelled));
    assert_eq!(ok("list", runtime.list_volumes())[0].config, relabelled);
    let image = ok("list", runtime.list_images());
    assert_eq!(image.iter().map(|image| &image.digest).collect::<Vec<_>>(), [&lab.image.digest]);
}

fn one_address_one_container(lab: &Lab) {
    let runtime = lab.runtime();
    let bridged = |id: &str, address: Ipv4Addr| {
        let mut config = lab.config(id, &["/bin/sleep"]);
        config.network = NetworkMode::on(lab.network.name.clone(), address);
        config
    };
    let address = Ipv4Addr::new(10, 79, 0, 7);
    let first = lab.run(&bridged("first", address));
    let second = runtime.create_container(&bridged("second", address));
    assert!(matches!(&second, Err(Error::Conflict(text)) if text.contains("first")), "{second:?}");
    for outside in [Ipv4Addr::new(10, 80, 0, 7), lab.network.gateway] {
        let third = runtime.create_container(&bridged("third", outside));
        assert!(matches!(third, Err(Error::BadContainer(_))), "{third:?}");
    }
    ok("stop", runtime.stop_container(&first, Duration::ZERO));
    lab.run(&bridged("second", address));
}

fn exec_config(args: &[&str]) -> ExecConfig {
    ExecConfig {
        args: args.iter().map(ToString::to_string).collect(),
        env: std::collections::BTreeMap::new(),
        working_dir: None,
        user: None,
        tty: false,
    }
}

fn exec_tells_its_own_end(lab: &Lab) {
    let id = lab.run(&lab.config("exec", &["/bin/sleep"]));
    for code in [0, 7] {
        let config = exec_config(&["/bin/sh", "-c", &format!("exit {code}")]);
        let mut session = ok("exec", lab.runtime().exec(&id, &config, exec_stdio().0));
        assert_eq!(ok("wait", session.wait()), ExitStatus::Code(code));
    }
    let missing = lab.runtime().exec(&id, &exec_config(&["/no/such/program"]), exec_stdio().0);
    assert!(matches!(missing.map(drop), Err(Error::BadContainer(_))));
    assert_eq!(lab.find(&id).unwrap().state, ContainerState::Running);
}

fn exec_can_be_killed_while_waited_for(lab: &Lab) {
    let id = lab.run(&lab.config("exec-kill", &["/bin/sleep"]));
    let mut session = ok("exec", lab.runtime().exec(&id, &exec_config(&["/bin/sleep"]), exec_stdio().0));
    let killer = session.killer();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || session.wait());
        killer();
        assert_eq!(ok("wait", waiting.join().unwrap()), ExitStatus::Signal(9));
    });
    // the end of the container ends its execs
    let mut session = ok("exec", lab.runtime().exec(&id, &exec_config(&["/bin/sleep"]), exec_stdio().0));
    ok("stop", lab.runtime().stop_container(&id, Duration::ZERO));
    assert_eq!(ok("wait", session.wait()), ExitStatus::Signal(9));
}

fn limits_change_in_place(lab: &Lab) {
    let id = lab.run(&lab.config("limits", &["/bin/sleep"]));
    let limits =
        Resources { memory_bytes: Some(256 << 20), cpu_millis: Some(500), pids_max: Some(64), ..Resources::default() };
    ok("update", lab.runtime().update_resources(&id, &limits));
    let info = lab.find(&id).unwrap();
    assert_eq!((info.config.resources, info.state), (limits, ContainerState::Running));
}

fn watches_hear_of_ends(lab: &Lab) {
    let mut watch = ok("watch", lab.runtime().watch());
    let id = lab.run(&lab.config("watched", &["/bin/sh", "-c", "exit 5"]));
    loop {
        match ok("next", watch.next()) {
            RuntimeEvent::Changed => {}
            RuntimeEvent::Exited { id: ended, exit } => {
                assert_eq!((ended, exit), (id, ExitStatus::Code(5)));
                return;
            }
        }
    }
}

fn a_taken_port_is_named_and_the_others_work(lab: &Lab) {
    if lab.linux.is_none() {
        return taken_port_on_the_fake();
    }
    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = foreign.local_addr().unwrap().port();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    crate::lab::wait_for("the switchboard", || match lab.runtime().publish_endpoints(&table(&[taken, free])) {
        Err(Error::PortInUse { at, .. }) => (at.port == taken).then_some(()),
        Err(Error::Unreachable { .. }) => None,
        other => panic!("{other:?}"),
    });
    assert!(std::net::TcpStream::connect(("127.0.0.1", free)).is_ok());
    ok("publish", lab.runtime().publish_endpoints(&table(&[])));
    assert!(std::net::TcpStream::connect(("127.0.0.1", free)).is_err());
}

fn taken_port_on_the_fake() {
    use runtime::{FakeRuntime, Runtime as _};
    let fake = FakeRuntime::new();
    fake.take_port(IpAddr::V4(Ipv4Addr::LOCALHOST), 80);
    let refused = fake.publish_endpoints(&table(&[80, 81]));
    assert!(matches!(refused, Err(Error::PortInUse { at: HostPort { port: 80, .. }, .. })), "{refused:?}");
    assert_eq!(fake.endpoints(), table(&[81]));
}

fn table(ports: &[u16]) -> EndpointTable {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let listener = |port: &u16| Listener { at: HostPort::tcp(address, *port), backends: Vec::new(), park_ms: 1_000 };
    EndpointTable { listeners: ports.iter().map(listener).collect(), ..EndpointTable::default() }
}
