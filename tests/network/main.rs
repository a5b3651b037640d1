//! Networks, published ports and names in the kernel: real bridges, namespaces and sockets, none of them the host's.
//!
//! The runner enters its own network and mount namespaces while it is single-threaded and proves that it did. The same
//! program is also the switchboard (`switchboard DATA_ROOT RUN_DIR`) and the inside of a container (`agent`).

mod agent;
mod bridge;
mod datagrams;
mod dns;
mod lab;
mod matrix;
mod ports;
mod services;
mod spoof;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// A test: its name and what it does.
type Case = (&'static str, fn());

const CASES: &[Case] = &[
    ("bridge_comes_and_goes_whole", bridge::comes_and_goes_whole),
    ("rules_keep_networks_apart_and_let_them_out", bridge::rules_keep_networks_apart_and_let_them_out),
    ("forged_addresses_stop_at_the_port", spoof::forged_addresses_stop_at_the_port),
    ("internal_networks_send_nothing_out", spoof::internal_networks_send_nothing_out),
    ("drift_is_noticed_and_repaired", bridge::drift_is_noticed_and_repaired),
    ("sweep_takes_what_has_no_owner", bridge::sweep_takes_what_has_no_owner),
    ("every_foreign_firewall_is_endured_or_named", matrix::each_cell_works_or_names_its_cause),
    ("what_stands_in_the_way_is_named", bridge::what_stands_in_the_way_is_named),
    ("services_lead_to_what_is_ready_and_stay", services::lead_to_what_is_ready_and_stay),
    ("services_wait_for_somebody_and_refuse_in_the_end", services::wait_for_somebody_and_refuse_in_the_end),
    ("services_are_replaced_under_load", services::are_replaced_under_load),
    ("services_come_and_go_and_leave_nothing", services::cycles_leave_nothing),
    ("names_never_name_a_dead_address", services::no_answer_names_a_dead_address),
    ("services_have_names", services::have_names),
    ("services_change_by_hundreds_and_lose_nothing", services::change_by_hundreds_and_lose_nothing),
    ("port_relays_both_ways_and_half_closes", ports::relays_both_ways_and_half_closes),
    ("port_passes_resets_on", ports::passes_resets_on),
    ("port_swaps_backends_without_refusing", ports::swaps_backends_without_refusing),
    ("port_goes_round_and_past_dead_backends", ports::goes_round_and_past_dead_backends),
    ("port_parks_until_there_is_a_backend", ports::parks_until_there_is_a_backend),
    ("port_survives_kills_of_the_switchboard", ports::survives_kills_of_the_switchboard),
    ("port_loses_nothing_in_an_upgrade", ports::loses_nothing_in_an_upgrade),
    ("port_shows_containers_the_clients_own_address", ports::shows_containers_the_clients_own_address),
    ("port_in_use_names_the_process", ports::in_use_names_the_process),
    ("udp_answers_come_from_where_was_asked", datagrams::answers_come_from_where_was_asked),
    ("udp_swaps_backends_and_loses_nothing", datagrams::swaps_backends_and_loses_nothing),
    ("udp_waits_for_a_backend", datagrams::waits_for_a_backend),
    ("udp_survives_upgrades_and_kills", datagrams::survives_upgrades_and_kills),
    ("udp_in_use_names_the_process", datagrams::in_use_names_the_process),
    ("names_by_udp_and_tcp_for_each_view", dns::names_by_udp_and_tcp_for_each_view),
    ("names_unknown_go_to_the_hosts_resolver", dns::unknown_names_go_to_the_hosts_resolver),
    ("names_survive_kills_of_the_switchboard", dns::survive_kills_of_the_switchboard),
    ("names_survive_upgrades_of_the_switchboard", dns::survive_upgrades_of_the_switchboard),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest = || args[1..].iter().map(std::ffi::OsString::from);
    match args.first().map(String::as_str) {
        Some("agent") => return agent::run(),
        Some("keeper") => return runtime::keeper::run(rest()).expect("the keeper runs"),
        Some("switchboard") => return runtime::switchboard::run(rest()).expect("the switchboard runs"),
        // As runners ask: none of them is ever ignored.
        Some("--list") if args.iter().any(|a| a == "--ignored") => return,
        Some("--list") => return CASES.iter().for_each(|(name, _)| println!("{name}: test")),
        _ => {}
    }
    let wanted: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let chosen = CASES.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str())));
    if let Err(why) = lab::enter_namespaces() {
        let skipped = chosen.map(|(name, _)| println!("test {name} ... skipped: {why}")).count();
        println!("0 passed, 0 failed, {skipped} skipped");
        return;
    }
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in chosen {
        let before = lab::leftovers();
        let outcome = catch_unwind(AssertUnwindSafe(case)).is_ok();
        let after = lab::leftovers();
        if outcome && before == after {
            passed += 1;
            println!("test {name} ... ok");
        } else {
            failed += 1;
            println!("test {name} ... FAILED");
            if before != after {
                println!("  left behind:\n{after}\n  instead of:\n{before}");
                lab::clear();
            }
        }
    }
    println!("{passed} passed, {failed} failed, 0 skipped");
    if failed > 0 {
        std::process::exit(1);
    }
}
