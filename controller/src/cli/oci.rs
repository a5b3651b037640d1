//! `boxship oci`: the command line of an OCI runtime. Arguments, printing and exit codes; what happens is in
//! `runtime::oci`. Talks to no daemon and starts no thread: containers are cloned from this very process.

mod args;
mod print;
mod short;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use oci_spec::runtime::{Capabilities, Capability, LinuxResources, Process};
use runtime::error::{Doing as _, chain};
use runtime::oci::{self, Container, CreateOptions, ExecOptions, Runtime};
use runtime::{Error, Result};

use args::{Bundle, Exec, LogFormat, Oci, Update, Verb};

/// A program that could not be run at all, as runc says it; every other failure is 1.
const EXIT_EXEC_FAILED: u8 = 255;

/// Runs one verb.
pub(super) fn main(arguments: &[OsString]) -> ExitCode {
    let named = || std::iter::once(OsString::from("boxship oci")).chain(arguments.iter().cloned());
    let oci = match short::parse(arguments).map_or_else(|| Oci::try_parse_from(named()), Ok) {
        Ok(oci) => oci,
        Err(error) => {
            let asked = !error.use_stderr();
            let _ = error.print();
            return if asked { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    };
    let mut log = Log::open(&oci);
    match dispatch(&oci, &mut log) {
        Ok(code) => ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        Err(error) => {
            log.write("error", &chain(&error));
            ExitCode::from(if matches!(oci.verb, Verb::Exec(_)) { EXIT_EXEC_FAILED } else { 1 })
        }
    }
}

/// Where messages go: stderr always, and the file engines read them from.
struct Log {
    file: Option<File>,
    format: LogFormat,
}

impl Log {
    fn open(oci: &Oci) -> Self {
        let file = oci.log.as_ref().and_then(|path| File::options().create(true).append(true).open(path).ok());
        Self { file, format: oci.log_format }
    }

    fn write(&mut self, level: &str, message: &str) {
        let time = print::time(runtime::clock::unix_ms());
        let line = match self.format {
            LogFormat::Json => {
                serde_json::json!({"level": level, "msg": message, "time": time.to_string()}).to_string()
            }
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={message:?}"),
        };
        if let Some(file) = &mut self.file {
            let _ = writeln!(file, "{line}");
        }
        // What people see; an engine that reads the log shows stderr too when it has nothing else.
        let _ = writeln!(std::io::stderr(), "boxship oci: {level}: {message}");
    }

    fn warn(&mut self, warnings: Vec<String>) {
        warnings.iter().for_each(|warning| self.write("warning", warning));
    }
}

fn dispatch(oci: &Oci, log: &mut Log) -> Result<i32> {
    if oci.systemd_cgroup {
        return Err(Error::Unsupported(
            "--systemd-cgroup is not supported: use the cgroupfs manager of your engine".into(),
        ));
    }
    let runtime = Runtime { root: std::path::absolute(&oci.root).doing(|| "find the working directory")? };
    match &oci.verb {
        Verb::Create(create) => log.warn(runtime.create(&create.id, &create_options(&create.bundle))?),
        Verb::Start(id) => runtime.start(&id.id)?,
        Verb::State(id) => print::state(&runtime.container(&id.id)?)?,
        Verb::Kill(kill) => runtime.kill(&kill.id, &kill.signal, kill.all)?,
        Verb::Delete(delete) => log.warn(runtime.delete(&delete.id, delete.force)?),
        Verb::Run(run) => {
            let mut warn = |warning: String| log.write("warning", &warning);
            return runtime.run(&run.id, &create_options(&run.bundle), run.detach, run.keep, &mut warn);
        }
        Verb::Exec(exec) => {
            let options = exec_options(&runtime.container(&exec.id)?, exec)?;
            let affinity = options.process.exec_cpu_affinity().as_ref();
            if let (true, Some(cpus)) = (oci.debug, affinity.and_then(|affinity| affinity.initial().as_deref())) {
                log.write("debug", &format!("initial CPU affinity: {}", oci::affinity::shown(cpus)?));
            }
            return runtime.exec(&exec.id, &options);
        }
        Verb::Ps(ps) => print::processes(&runtime.pids(&ps.id)?, ps.format, &ps.args)?,
        Verb::List(list) => print::list(&runtime.list()?, list.format, list.quiet)?,
        Verb::Pause(id) => runtime.pause(&id.id)?,
        Verb::Resume(id) => runtime.resume(&id.id)?,
        Verb::Update(update) => runtime.update(&update.id, &resources(update)?)?,
        Verb::Events(events) => print::events(&runtime, &events.id, events.stats, events.interval)?,
        Verb::Features => print::json(&oci::features())?,
        Verb::Spec(spec) => write_template(&spec.bundle, spec.rootless)?,
    }
    Ok(0)
}

fn create_options(bundle: &Bundle) -> CreateOptions {
    CreateOptions {
        bundle: bundle.bundle.clone(),
        pid_file: bundle.pid_file.clone(),
        console_socket: bundle.console_socket.clone(),
        preserve_fds: bundle.preserve_fds + listen_fds(),
    }
}

/// Sockets handed on by systemd's protocol come first among the preserved ones (sd_listen_fds(3)).
fn listen_fds() -> u32 {
    std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0)
}

fn exec_options(container: &Container, exec: &Exec) -> Result<ExecOptions> {
    let process = match &exec.process {
        Some(file) => oci::read_process(file)?,
        None => process(container, exec)?,
    };
    Ok(ExecOptions {
        process,
        detach: exec.detach,
        pid_file: exec.pid_file.clone(),
        console_socket: exec.console_socket.clone(),
        preserve_fds: exec.preserve_fds,
        ignore_paused: exec.ignore_paused,
        cgroup: exec.cgroup.clone(),
    })
}

/// The container's own process with what the options change.
fn process(container: &Container, exec: &Exec) -> Result<Process> {
    let bad = |why: String| Error::BadContainer(why);
    let mut process =
        container.spec().process().clone().ok_or_else(|| bad("the container has no process to begin with".into()))?;
    if exec.args.is_empty() {
        return Err(bad("there is nothing to run: give a command or --process FILE".into()));
    }
    process.set_args(Some(exec.args.clone())).set_terminal(Some(exec.tty)).set_console_size(None);
    if let Some(cwd) = &exec.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut env = process.env().clone().unwrap_or_default();
    for line in &exec.env {
        let name = line.split('=').next().unwrap_or_default();
        env.retain(|known| known.split('=').next() != Some(name));
        env.push(line.clone());
    }
    process.set_env(Some(env));
    if let Some(text) = &exec.user {
        let number = |text: &str| text.parse().map_err(|_| bad(format!("--user: `{text}` is no number")));
        let (uid, gid) = text.split_once(':').map_or((text.as_str(), None), |(uid, gid)| (uid, Some(gid)));
        let user = process.user_mut();
        user.set_uid(number(uid)?);
        if let Some(gid) = gid {
            user.set_gid(number(gid)?);
        }
    }
    if !exec.additional_gids.is_empty() {
        process.user_mut().set_additional_gids(Some(exec.additional_gids.clone()));
    }
    if exec.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if !exec.cap.is_empty() {
        add_capabilities(&mut process, &exec.cap)?;
    }
    Ok(process)
}

fn add_capabilities(process: &mut Process, names: &[String]) -> Result<()> {
    let parse = |name: &String| {
        name.parse::<Capability>().map_err(|_| Error::BadContainer(format!("`{name}` is no capability")))
    };
    let more = names.iter().map(parse).collect::<Result<Capabilities>>()?;
    let mut sets = process.capabilities().clone().unwrap_or_default();
    let with = |set: &Option<Capabilities>| Some(set.iter().flatten().chain(&more).copied().collect::<Capabilities>());
    let (bounding, effective, permitted) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    process.set_capabilities(Some(sets));
    Ok(())
}

fn resources(update: &Update) -> Result<LinuxResources> {
    let bad = |error: &dyn std::fmt::Display| Error::BadContainer(format!("these are no limits: {error}"));
    if let Some(file) = &update.resources {
        let mut text = Vec::new();
        let doing = || format!("read {}", file.display());
        if file.as_os_str() == "-" {
            std::io::stdin().read_to_end(&mut text).doing(doing)?;
        } else {
            text = fs::read(file).doing(doing)?;
        }
        return serde_json::from_slice(&text).map_err(|error| bad(&error));
    }
    let mut limits = serde_json::json!({
        "memory": {
            "limit": update.memory,
            "reservation": update.memory_reservation,
            "swap": update.memory_swap,
            "kernelTCP": update.kernel_memory_tcp,
        },
        "cpu": {
            "shares": update.cpu_share,
            "quota": update.cpu_quota,
            "period": update.cpu_period,
            "cpus": update.cpuset_cpus,
            "mems": update.cpuset_mems,
            "burst": update.cpu_burst,
            "idle": update.cpu_idle,
            "realtimePeriod": update.cpu_rt_period,
            "realtimeRuntime": update.cpu_rt_runtime,
        },
    });
    if let Some(limit) = update.pids_limit {
        limits["pids"] = serde_json::json!({ "limit": limit });
    }
    if let Some(weight) = update.blkio_weight {
        limits["blockIO"] = serde_json::json!({ "weight": weight });
    }
    serde_json::from_value(limits).map_err(|error| bad(&error))
}

/// Writes the template; one that is there is left alone.
fn write_template(directory: &Path, rootless: bool) -> Result<()> {
    let path = directory.join("config.json");
    let doing = || format!("write {}", path.display());
    let mut file = File::create_new(&path).doing(doing)?;
    let text = serde_json::to_string_pretty(&oci::template(rootless)).map_err(std::io::Error::from).doing(doing)?;
    writeln!(file, "{text}").doing(doing)
}
