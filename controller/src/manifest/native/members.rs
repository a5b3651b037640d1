//! `initContainers` and `containers`: what runs in a replica beside its main container.

use std::collections::BTreeMap;

use super::{Lower, template, wire};
use crate::manifest::tree::Path;
use crate::model::object::{EnvSpec, ImageChoice, MountSpec, NetworkUseSpec};
use crate::model::{Member, Pod, Role, codes};

type PodSpec = Pod<ImageChoice, EnvSpec, MountSpec, NetworkUseSpec>;

/// `None` when something in them is wrong; `Some(None)`: there is nothing beside it.
pub(super) fn lower(lower: &mut Lower<'_>, wire: &mut wire::Template) -> Option<Option<Box<PodSpec>>> {
    let before = std::mem::take(&mut wire.init_containers).into_iter().map(|one| {
        let role = if one.restart.is_some() { Role::Sidecar } else { Role::Init };
        (role, one.template())
    });
    let beside = std::mem::take(&mut wire.containers).into_iter().map(|one| (Role::Beside, one.template()));
    let path = |key: &str, at: usize| Path::default().key(key).index(at);
    let before = before.enumerate().map(|(at, one)| (path("initContainers", at), one));
    let beside = beside.enumerate().map(|(at, one)| (path("containers", at), one));
    let all: Vec<_> = before.chain(beside).collect();
    if all.is_empty() {
        if wire.share_process_namespace.is_some() {
            let what = "`shareProcessNamespace` says nothing without `containers` or `initContainers`";
            let diagnostic = lower.error(codes::CONFLICT, &Path::default().key("shareProcessNamespace"), what);
            lower.push(diagnostic);
        }
        return Some(None);
    }
    let main = lower.key.name.clone();
    let mut names: BTreeMap<String, Path> = BTreeMap::from([(main.clone(), Path::default().key("name"))]);
    let mut members = Vec::new();
    let mut whole = true;
    for (path, (role, (name, wire))) in all {
        if let Some(first) = names.insert(name.clone(), path.key("name")) {
            let what = format!("two containers of a replica are called `{name}`");
            let diagnostic = lower.error(codes::CONFLICT, &path.key("name"), what);
            let diagnostic = diagnostic.also_at("the first one is here", lower.span(&first));
            lower.push(diagnostic.help("the main one is called by the name of its App or Job"));
        }
        let lowered = lower.within(&path, |inner| {
            let (mut template, _) = template::lower(inner, wire)?;
            template::default_http_port(inner, &mut template);
            Some(template)
        });
        match lowered {
            Some(template) => members.push(Member { name, role, template, env_from: Vec::new() }),
            None => whole = false,
        }
    }
    let share_pids = wire.share_process_namespace == Some(true);
    whole.then(|| Some(Box::new(Pod { main, share_pids, members })))
}
