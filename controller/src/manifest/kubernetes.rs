//! The Kubernetes dialect: one object becomes what does the same on one host. A namespace is a stack.
//!
//! `keys` says which keys there are and what becomes of each; `workload` lowers what runs pods, `pod` the pod, `volumes`
//! what it mounts, `service` and `data` the rest. Kinds that mean nothing on one host are accepted and told. References
//! between objects stay names until `model::resolve`, so objects of one stack may lie in several files and dialects.

mod data;
pub(crate) mod keys;
mod members;
mod names;
mod pod;
mod probe;
mod security;
mod service;
mod volumes;
mod workload;

use super::keys::{Entries, Reader, object_name};
use super::tree::{Extent, Node, Value};
use crate::model::{Diagnostic, Kind, Object, ObjectKey, ObjectSpec, codes};

/// Deepest nesting of Lists.
const LISTS_MAX: usize = 8;

/// The kinds that do something here.
pub(crate) fn kinds() -> impl Iterator<Item = &'static str> {
    let roots = keys::TABLES.all.iter().map(|(path, _)| *path);
    roots.filter(|path| path.starts_with(char::is_uppercase) && !path.contains('.'))
}

/// What a document says.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) objects: Vec<Object>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Lowers one document of a file.
pub(crate) fn lower(root: &Node, file: &str, stack: &str) -> Output {
    let reader = Reader::of(file);
    let mut lower = Lower { reader, stack: stack.to_owned(), root_stack: stack.to_owned(), objects: Vec::new() };
    lower.document(root, 0);
    Output { objects: lower.objects, diagnostics: lower.reader.out }
}

/// The lowering of one document.
struct Lower {
    reader: Reader,
    /// The stack of the object that is read.
    stack: String,
    /// The stack of objects without a namespace.
    root_stack: String,
    objects: Vec<Object>,
}

/// What `metadata` says.
struct Metadata<'n> {
    name: String,
    extent: Extent,
    labels: Option<&'n Node>,
}

impl Lower {
    fn document(&mut self, root: &Node, depth: usize) {
        let kind = root.text("kind").unwrap_or("");
        let extent = root.get("kind").map_or(root.extent, |entry| entry.value.extent);
        if kind == "List" || (kind.ends_with("List") && root.get("items").is_some()) {
            let items = root.get("items").map(|entry| &entry.value);
            let Some(Value::List(items)) = items.map(|node| &node.value) else { return };
            if depth >= LISTS_MAX {
                return self.reader.error(codes::LIMIT, extent, format!("Lists within Lists, more than {LISTS_MAX}"));
            }
            return items.iter().for_each(|item| self.document(item, depth + 1));
        }
        self.reader.object = None;
        let version = root.text("apiVersion").unwrap_or("");
        let group = version.rsplit_once('/').map_or("", |(group, _)| group);
        let before = self.reader.errors();
        match (group, kind) {
            ("apps" | "extensions", "Deployment" | "ReplicaSet" | "DaemonSet") | ("apps", "StatefulSet") => {
                self.object(root, |lower, root, metadata| workload::app(lower, root, metadata, kind));
            }
            ("", "ReplicationController") => {
                self.object(root, |lower, root, metadata| workload::app(lower, root, metadata, kind));
            }
            ("", "Pod") => self.object(root, workload::pod),
            ("batch", "Job") => self.object(root, workload::job),
            ("batch", "CronJob") => self.object(root, workload::cron_job),
            ("", "Service") => self.object(root, service::lower),
            ("", "ConfigMap") => self.object(root, data::config_map),
            ("", "Secret") => self.object(root, data::secret),
            ("", "PersistentVolumeClaim") => self.object(root, data::claim),
            // The stack is there as soon as something is in it.
            ("", "Namespace") => {}
            _ => self.no_effect(kind, version, extent),
        }
        debug_assert!(self.reader.errors() >= before);
    }

    /// One object, if it is whole.
    fn object(
        &mut self,
        root: &Node,
        lower: impl FnOnce(&mut Self, &Node, &Metadata<'_>) -> Option<(Kind, String, ObjectSpec)>,
    ) {
        let before = self.reader.errors();
        let Some(metadata) = self.metadata(root) else { return };
        let lowered = lower(self, root, &metadata);
        if let Some((kind, name, spec)) = lowered.filter(|_| self.reader.errors() == before) {
            let key = ObjectKey { stack: self.stack.clone(), kind, name };
            let span = self.reader.span(metadata.extent);
            self.objects.push(Object { key, span, spec });
        }
    }

    fn metadata<'n>(&mut self, root: &'n Node) -> Option<Metadata<'n>> {
        let Some(entry) = root.get("metadata") else {
            self.reader.error(codes::MISSING_FIELD, root.extent, "this object needs a key `metadata` with a `name`");
            return None;
        };
        let found = self.reader.keys(&entry.value, &keys::METADATA);
        let Some(name) = found.get("name") else {
            self.reader.error(codes::MISSING_FIELD, entry.key_extent, "`metadata` needs a key `name`");
            return None;
        };
        let text = self.reader.text("name", name)?;
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        if !text.chars().all(is_name) || runtime::id::check_name(&object_name(&text)).is_err() {
            let what = format!("{text:?} is not a name: a-z, 0-9, `-` and `.`");
            let near = Some(object_name(&text)).filter(|name| runtime::id::check_name(name).is_ok());
            let diagnostic = Diagnostic::error(codes::NAME, what).at(self.reader.span(name.extent)).suggest(near);
            self.reader.push(diagnostic);
            return None;
        }
        self.stack.clone_from(&self.root_stack);
        let mut stack_extent = entry.key_extent;
        if let Some(namespace) = found.get("namespace") {
            stack_extent = namespace.extent;
            self.stack = self.reader.text("namespace", namespace)?;
        }
        if let Err(error) = runtime::id::check_name(&self.stack) {
            let what = format!("{:?} cannot be a stack: {}", self.stack, error.why);
            self.reader.error(codes::STACK, stack_extent, what);
            return None;
        }
        Some(Metadata { name: text, extent: name.extent, labels: found.get("labels") })
    }

    /// Names the object whose problems come next, so that an error keeps its last good version.
    fn reading(&mut self, kind: Kind, name: &str) -> ObjectKey {
        let key = ObjectKey { stack: self.stack.clone(), kind, name: object_name(name) };
        self.reader.object = Some(key.clone());
        key
    }

    /// `spec`, checked against its table.
    fn spec<'n>(&mut self, root: &'n Node, section: &super::keys::Section) -> Option<Entries<'n>> {
        let found = self.reader.keys(root, &keys::OBJECT);
        let Some(spec) = found.get("spec") else {
            self.reader.error(codes::MISSING_FIELD, root.extent, "this object needs a key `spec`");
            return None;
        };
        Some(self.reader.keys(spec, section))
    }

    fn no_effect(&mut self, kind: &str, version: &str, extent: Extent) {
        let effect = match kind {
            "Ingress" | "Gateway" | "HTTPRoute" => {
                "no requests are routed by it; publish a port with a Service of type LoadBalancer"
            }
            "NetworkPolicy" => "objects of one stack reach each other, other stacks do not",
            "HorizontalPodAutoscaler" | "VerticalPodAutoscaler" => "the number of replicas is what the workload says",
            "PodDisruptionBudget" => "replicas are replaced as the workload says",
            "PersistentVolume" | "StorageClass" => "volumes are directories of this host",
            "ServiceAccount" | "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding" => {
                "there is no API server to reach"
            }
            "Kustomization" if version.starts_with("kustomize") => {
                "the files it names are read by themselves, without its changes"
            }
            _ => "nothing of it is applied",
        };
        let what = format!("a Kubernetes {kind} ({version}) has no effect here: {effect}");
        self.reader.warn(codes::KUBERNETES, extent, what);
    }
}

#[cfg(test)]
mod tests;
