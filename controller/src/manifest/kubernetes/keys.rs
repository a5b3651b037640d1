//! Every key of the Kubernetes objects that are read, by mapping: honoured, or what it means that it is not. Parsing,
//! suggestions and the support matrix are made from these tables.

mod tables;
mod volumes;

pub(crate) use tables::TABLES;
pub(super) use volumes::*;

use crate::manifest::keys::{Key, Section, no, partly, unless, yes};

const ONE_HOST: &str = "there is one host, and no scheduler";
const NO_API: &str = "there is no API server to reach";
const INERT: &str = "nothing here reads it";
const SAFE: &str = "the safe defaults stay in force";
const LINUX: &str = "it exists on Windows only";

/// Of every object.
pub(super) const OBJECT: Section = Section {
    name: "the object",
    keys: &[yes("apiVersion"), yes("kind"), yes("metadata"), yes("spec"), unless("status", &[], "")],
};

/// `metadata`.
pub(super) const METADATA: Section = Section {
    name: "metadata",
    keys: &[
        yes("name"),
        yes("namespace"),
        yes("labels"),
        no("annotations", INERT),
        no("generateName", "an object needs a `name`"),
        no("finalizers", INERT),
        no("ownerReferences", INERT),
        unless("creationTimestamp", &["null"], INERT),
        unless("uid", &[], INERT),
        unless("resourceVersion", &[], INERT),
        unless("generation", &[], INERT),
        unless("selfLink", &[], INERT),
        no("managedFields", INERT),
        no("deletionTimestamp", INERT),
        no("deletionGracePeriodSeconds", INERT),
    ],
};

/// A Deployment.
pub(super) const DEPLOYMENT: Section = Section {
    name: "the Deployment's spec",
    keys: &[
        yes("replicas"),
        yes("selector"),
        yes("template"),
        yes("strategy"),
        yes("minReadySeconds"),
        yes("progressDeadlineSeconds"),
        no("revisionHistoryLimit", "old revisions are kept as long as they are needed to go back"),
        unless("paused", &["false"], "changes take effect at once"),
    ],
};

/// `strategy` and `updateStrategy`.
pub(super) const STRATEGY: Section = Section { name: "strategy", keys: &[yes("type"), yes("rollingUpdate")] };

/// `rollingUpdate`.
pub(super) const ROLLING_UPDATE: Section = Section {
    name: "rollingUpdate",
    keys: &[yes("maxSurge"), yes("maxUnavailable"), unless("partition", &["0"], "all replicas are replaced")],
};

/// A StatefulSet.
pub(super) const STATEFUL_SET: Section = Section {
    name: "the StatefulSet's spec",
    keys: &[
        yes("replicas"),
        yes("selector"),
        yes("template"),
        yes("updateStrategy"),
        yes("minReadySeconds"),
        yes("volumeClaimTemplates"),
        yes("serviceName"),
        no("revisionHistoryLimit", "old revisions are kept as long as they are needed to go back"),
        yes("podManagementPolicy"),
        no("ordinals", "replicas are numbered from 1"),
        no("persistentVolumeClaimRetentionPolicy", "named volumes are kept"),
    ],
};

/// A DaemonSet: one replica, since there is one host.
pub(super) const DAEMON_SET: Section = Section {
    name: "the DaemonSet's spec",
    keys: &[
        yes("selector"),
        yes("template"),
        yes("updateStrategy"),
        yes("minReadySeconds"),
        no("revisionHistoryLimit", "old revisions are kept as long as they are needed to go back"),
    ],
};

/// A ReplicaSet or ReplicationController.
pub(super) const REPLICA_SET: Section = Section {
    name: "the ReplicaSet's spec",
    keys: &[yes("replicas"), yes("selector"), yes("template"), yes("minReadySeconds")],
};

/// A label selector, but for that of a Service or a ReplicationController, which is a mapping of labels.
pub(super) const SELECTOR: Section =
    Section { name: "the selector", keys: &[yes("matchLabels"), yes("matchExpressions")] };

/// One of `matchExpressions`.
pub(super) const EXPRESSION: Section =
    Section { name: "the label expression", keys: &[yes("key"), yes("operator"), yes("values")] };

/// A Job.
pub(super) const JOB: Section = Section {
    name: "the Job's spec",
    keys: &[
        yes("template"),
        yes("backoffLimit"),
        unless("selector", &[], INERT),
        unless("manualSelector", &["false"], INERT),
        yes("completions"),
        yes("parallelism"),
        yes("completionMode"),
        yes("suspend"),
        yes("activeDeadlineSeconds"),
        yes("ttlSecondsAfterFinished"),
        no("backoffLimitPerIndex", "every failure counts against `backoffLimit`"),
        no("maxFailedIndexes", "every failure counts against `backoffLimit`"),
        no("podFailurePolicy", "every failure counts against `backoffLimit`"),
        no("podReplacementPolicy", "the next try begins when the last one has ended"),
        no("successPolicy", "it has succeeded with exit code 0"),
        no("managedBy", INERT),
    ],
};

/// A CronJob.
pub(super) const CRON_JOB: Section = Section {
    name: "the CronJob's spec",
    keys: &[
        yes("schedule"),
        yes("timeZone"),
        yes("concurrencyPolicy"),
        yes("jobTemplate"),
        yes("suspend"),
        yes("startingDeadlineSeconds"),
        yes("successfulJobsHistoryLimit"),
        yes("failedJobsHistoryLimit"),
    ],
};

/// `jobTemplate`.
pub(super) const JOB_TEMPLATE: Section = Section {
    name: "jobTemplate",
    keys: &[partly("metadata", "nothing here selects a Job by its labels"), yes("spec")],
};

/// A pod template.
pub(super) const TEMPLATE: Section = Section { name: "template", keys: &[yes("metadata"), yes("spec")] };

/// A pod.
pub(super) const POD: Section = Section { name: "the pod", keys: POD_KEYS };

const POD_KEYS: &[Key] = &[
    yes("containers"),
    yes("initContainers"),
    yes("volumes"),
    yes("restartPolicy"),
    yes("terminationGracePeriodSeconds"),
    yes("hostNetwork"),
    yes("hostname"),
    yes("securityContext"),
    partly("serviceAccountName", "a variable may have it as its value; there is no API server to reach"),
    partly("serviceAccount", NO_API),
    no("activeDeadlineSeconds", "it may run as long as it likes"),
    no("affinity", ONE_HOST),
    unless("automountServiceAccountToken", &["false"], NO_API),
    yes("dnsConfig"),
    unless("dnsPolicy", &["ClusterFirst", "ClusterFirstWithHostNet", "Default"], "names are answered by the stack"),
    unless("enableServiceLinks", &["false", "true"], ""),
    no("ephemeralContainers", "programs are run in a container with `boxship exec`"),
    yes("hostAliases"),
    unless("hostIPC", &["false"], "each container has its own IPC namespace"),
    unless("hostPID", &["false"], "each container has its own process ids"),
    unless("hostUsers", &["false"], "each workload has its own user namespace"),
    no("hostnameOverride", "the host name is what `hostname` says"),
    no("imagePullSecrets", "credentials for registries are the host's"),
    no("nodeName", ONE_HOST),
    no("nodeSelector", ONE_HOST),
    no("os", ONE_HOST),
    no("overhead", ONE_HOST),
    no("preemptionPolicy", ONE_HOST),
    no("priority", ONE_HOST),
    no("priorityClassName", ONE_HOST),
    no("readinessGates", "a pod is ready when its containers are"),
    no("resourceClaims", "the container sees no devices of the host"),
    no("resources", "limits are those of each container"),
    no("runtimeClassName", "containers run in the built-in runtime"),
    no("schedulerName", ONE_HOST),
    no("schedulingGates", ONE_HOST),
    unless("setHostnameAsFQDN", &["false"], "the host name is what `hostname` says"),
    yes("shareProcessNamespace"),
    no("subdomain", "a replica is reached as NAME-1, NAME-2, …"),
    no("tolerations", ONE_HOST),
    no("topologySpreadConstraints", ONE_HOST),
];

/// A container.
pub(super) const CONTAINER: Section = Section { name: "the container", keys: CONTAINER_KEYS };

const CONTAINER_KEYS: &[Key] = &[
    partly("name", "`-c NAME` and `web-1/NAME` where a pod has several; replicas are called by their workload"),
    yes("image"),
    yes("command"),
    yes("args"),
    yes("workingDir"),
    yes("tty"),
    yes("ports"),
    yes("env"),
    yes("envFrom"),
    yes("volumeMounts"),
    yes("resources"),
    yes("readinessProbe"),
    yes("startupProbe"),
    yes("livenessProbe"),
    yes("securityContext"),
    yes("imagePullPolicy"),
    no("lifecycle", "the hooks do not run"),
    yes("stdin"),
    unless("stdinOnce", &["false"], "its standard input is empty"),
    partly("restartPolicy", "Always makes an init container a sidecar; for others the pod's policy counts"),
    no("restartPolicyRules", "the pod's policy counts"),
    unless("terminationMessagePath", &["/dev/termination-log"], INERT),
    unless("terminationMessagePolicy", &["File"], "`boxship why` shows the last lines of the log"),
    no("resizePolicy", "limits change in place"),
    no("volumeDevices", "the container sees no devices of the host"),
];

/// `ports` of a container.
pub(super) const CONTAINER_PORT: Section = Section {
    name: "ports",
    keys: &[yes("containerPort"), yes("hostPort"), yes("hostIP"), yes("name"), yes("protocol")],
};

/// One of `env`.
pub(super) const ENV: Section = Section { name: "env", keys: &[yes("name"), yes("value"), yes("valueFrom")] };

/// `valueFrom`.
pub(super) const VALUE_FROM: Section = Section {
    name: "valueFrom",
    keys: &[
        yes("configMapKeyRef"),
        yes("secretKeyRef"),
        yes("fieldRef"),
        no("resourceFieldRef", "the variable is not set"),
        no("fileKeyRef", "the variable is not set"),
    ],
};

/// A key of a ConfigMap or Secret.
pub(super) const KEY_REF: Section = Section {
    name: "the reference",
    keys: &[yes("name"), yes("key"), unless("optional", &["false"], "it has to exist")],
};

/// `fieldRef`.
pub(super) const FIELD_REF: Section =
    Section { name: "fieldRef", keys: &[yes("fieldPath"), unless("apiVersion", &["v1"], INERT)] };

/// One of `envFrom`.
pub(super) const ENV_FROM: Section =
    Section { name: "envFrom", keys: &[yes("configMapRef"), yes("secretRef"), yes("prefix")] };

/// `configMapRef` and `secretRef`.
pub(super) const NAME_REF: Section =
    Section { name: "the reference", keys: &[yes("name"), unless("optional", &["false"], "it has to exist")] };

/// One of `volumeMounts`.
pub(super) const VOLUME_MOUNT: Section = Section {
    name: "volumeMounts",
    keys: &[
        yes("name"),
        yes("mountPath"),
        yes("readOnly"),
        yes("subPath"),
        no("subPathExpr", "the whole volume is mounted"),
        unless("mountPropagation", &["None"], "mounts made later are not seen on the other side"),
        unless("recursiveReadOnly", &["Disabled", "IfPossible"], INERT),
    ],
};

/// `resources`.
pub(super) const RESOURCES: Section = Section {
    name: "resources",
    keys: &[
        yes("limits"),
        no("requests", "only limits count here, and nothing is weighed against the others"),
        no("claims", "the container sees no devices of the host"),
    ],
};

/// A probe.
pub(super) const PROBE: Section = Section {
    name: "the probe",
    keys: &[
        yes("exec"),
        yes("httpGet"),
        yes("tcpSocket"),
        yes("grpc"),
        yes("initialDelaySeconds"),
        yes("periodSeconds"),
        yes("timeoutSeconds"),
        yes("failureThreshold"),
        yes("successThreshold"),
        no("terminationGracePeriodSeconds", "the pod's own counts"),
    ],
};

/// `exec`.
pub(super) const EXEC: Section = Section { name: "exec", keys: &[yes("command")] };

/// `httpGet`.
pub(super) const HTTP_GET: Section = Section {
    name: "httpGet",
    keys: &[yes("path"), yes("port"), yes("scheme"), yes("httpHeaders"), no("host", "the container itself is asked")],
};

/// `tcpSocket`.
pub(super) const TCP_SOCKET: Section =
    Section { name: "tcpSocket", keys: &[yes("port"), no("host", "the container itself is asked")] };

/// `grpc`.
pub(super) const GRPC: Section = Section { name: "grpc", keys: &[yes("port"), yes("service")] };

/// One of `httpHeaders`.
pub(super) const HTTP_HEADER: Section = Section { name: "httpHeaders", keys: &[yes("name"), yes("value")] };

/// `securityContext` of a container.
pub(super) const SECURITY: Section = Section {
    name: "securityContext",
    keys: &[
        yes("runAsUser"),
        yes("runAsGroup"),
        yes("runAsNonRoot"),
        yes("readOnlyRootFilesystem"),
        yes("allowPrivilegeEscalation"),
        yes("capabilities"),
        yes("seccompProfile"),
        unless("privileged", &["false"], "there is no privileged mode: name what it needs with `capabilities`"),
        unless("procMount", &["Default"], SAFE),
        no("seLinuxOptions", SAFE),
        no("appArmorProfile", SAFE),
        no("windowsOptions", LINUX),
    ],
};

/// `securityContext` of a pod.
pub(super) const POD_SECURITY: Section = Section {
    name: "securityContext",
    keys: &[
        yes("runAsUser"),
        yes("runAsGroup"),
        yes("runAsNonRoot"),
        yes("seccompProfile"),
        no("fsGroup", "a new volume belongs to whom the image's directory belongs to"),
        no("fsGroupChangePolicy", "a new volume belongs to whom the image's directory belongs to"),
        yes("supplementalGroups"),
        no("supplementalGroupsPolicy", "the program has the groups of its user in the image"),
        partly(
            "sysctls",
            "those of its own namespaces; one that this kernel does not show to a user namespace is left out",
        ),
        no("seLinuxOptions", SAFE),
        no("seLinuxChangePolicy", SAFE),
        no("appArmorProfile", SAFE),
        no("windowsOptions", LINUX),
    ],
};

/// One of a pod's `sysctls`.
pub(super) const SYSCTL: Section = Section { name: "sysctls", keys: &[yes("name"), yes("value")] };

/// `dnsConfig`.
pub(super) const DNS_CONFIG: Section = Section {
    name: "dnsConfig",
    keys: &[
        no("nameservers", "names are answered by the stack and the host's own resolvers"),
        yes("searches"),
        yes("options"),
    ],
};

/// One of `hostAliases`.
pub(super) const HOST_ALIAS: Section = Section { name: "hostAliases", keys: &[yes("ip"), yes("hostnames")] };

/// `capabilities`.
pub(super) const CAPABILITIES: Section = Section { name: "capabilities", keys: &[yes("add"), yes("drop")] };

/// `seccompProfile`.
pub(super) const SECCOMP: Section = Section {
    name: "seccompProfile",
    keys: &[unless("type", &["RuntimeDefault"], SAFE), no("localhostProfile", SAFE)],
};

/// A Service.
pub(super) const SERVICE: Section = Section {
    name: "the Service's spec",
    keys: &[
        yes("selector"),
        yes("ports"),
        yes("type"),
        partly("clusterIP", "an address is chosen; `None` is honoured: the name leads to the containers themselves"),
        unless("clusterIPs", &[], "an address is chosen"),
        unless("sessionAffinity", &["None"], "connections go to the replicas in turn"),
        unless("sessionAffinityConfig", &[], "connections go to the replicas in turn"),
        unless("publishNotReadyAddresses", &["false"], "the name leads to replicas that are ready"),
        unless("externalTrafficPolicy", &["Cluster", "Local"], ""),
        unless("internalTrafficPolicy", &["Cluster", "Local"], ""),
        unless("ipFamilyPolicy", &["SingleStack", "PreferDualStack"], "addresses inside are IPv4"),
        unless("ipFamilies", &[], "addresses inside are IPv4"),
        unless("allocateLoadBalancerNodePorts", &["false", "true"], ""),
        no("externalIPs", "it is published on every address of the host"),
        no("externalName", "the name is not known here"),
        no("loadBalancerIP", "it is published on every address of the host"),
        no("loadBalancerClass", "it is published on every address of the host"),
        no("loadBalancerSourceRanges", "the host's firewall says who may connect"),
        no("healthCheckNodePort", ONE_HOST),
        no("trafficDistribution", ONE_HOST),
        unless("topologyKeys", &[], ONE_HOST),
    ],
};

/// `ports` of a Service.
pub(super) const SERVICE_PORT: Section = Section {
    name: "ports",
    keys: &[
        yes("port"),
        yes("targetPort"),
        yes("nodePort"),
        yes("protocol"),
        partly("name", "nothing here calls a port of a Service by its name"),
        unless("appProtocol", &["http", "tcp"], INERT),
    ],
};

/// A ConfigMap.
pub(super) const CONFIG_MAP: Section = Section {
    name: "the ConfigMap",
    keys: &[
        yes("apiVersion"),
        yes("kind"),
        yes("metadata"),
        yes("data"),
        yes("binaryData"),
        unless("immutable", &["false"], "a change of it takes effect"),
    ],
};

/// A Secret.
pub(super) const SECRET: Section = Section {
    name: "the Secret",
    keys: &[
        yes("apiVersion"),
        yes("kind"),
        yes("metadata"),
        yes("data"),
        yes("stringData"),
        unless(
            "type",
            &["Opaque", "kubernetes.io/basic-auth", "kubernetes.io/tls", "kubernetes.io/ssh-auth"],
            "its keys can be mounted and read, nothing more",
        ),
        unless("immutable", &["false"], "a change of it takes effect"),
    ],
};
