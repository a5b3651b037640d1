//! Files of other tools, as they are: a compose file with three services that wait for each other, and a small set of
//! Kubernetes objects.

use std::time::Duration;

use super::on_images;
use crate::http;
use crate::lab::Lab;
use crate::wait::wait_for;
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] = &[
    on_images("a_compose_file_runs_as_it_is", 120, a_compose_file_runs),
    on_images("kubernetes_objects_run_as_they_are", 120, kubernetes_objects_run),
];

const SOON: Duration = Duration::from_secs(60);

const COMPOSE: &str = r#"
services:
  web:
    image: ${REGISTRY}/nginx:1
    restart: unless-stopped
    ports: ["127.0.0.1:8080:80"]
    depends_on:
      db: {condition: service_healthy}
      cache: {condition: service_started}
      setup: {condition: service_completed_successfully}
    environment: &shared
      GREETING: ${GREETING:-hello}
    configs:
      - {source: extra, target: /etc/nginx/site.d/extra.conf}
    secrets: [token]
  cache:
    image: ${REGISTRY}/redis:7
    container_name: shop_cache
    extra_hosts: ["host.docker.internal:host-gateway", "elsewhere=192.0.2.7"]
    dns_opt: ["ndots:2"]
    ulimits: {nofile: {soft: 2000, hard: 3000}}
    restart: always
    volumes: ["cache_data:/data"]
  db:
    image: ${REGISTRY}/postgres:15
    restart: always
    environment:
      <<: *shared
    volumes: ["db_data:/var/lib/postgresql/data"]
    healthcheck:
      test: ["CMD-SHELL", "pg_isready -U postgres"]
      interval: 300ms
      timeout: 3s
      retries: 30
  setup:
    image: ${REGISTRY}/busybox:1
    command: /bin/sh -c "exit 0"
  beside:
    image: ${REGISTRY}/busybox:1
    network_mode: service:cache
    command: ["/bin/sh", "-c", "while ! (echo PING; sleep 1) | nc 127.0.0.1 6379; do sleep 1; done; exec sleep 1000"]
  once:
    image: ${REGISTRY}/busybox:1
    command: ["/bin/sh", "-c", "echo $$WHO was here"]
    environment: [WHO=nobody]
volumes:
  cache_data:
  db_data:
configs:
  extra: {content: "location = /extra { return 200 \"from compose\\n\"; }\n"}
secrets:
  token: {file: ./token.txt}
"#;

/// What stands before `/nginx:1` in the scenario's registry.
fn registry(lab: &Lab) -> Result<String> {
    let image = lab.image("nginx:1");
    image.strip_suffix("/nginx:1").map(str::to_owned).ok_or(image)
}

fn a_compose_file_runs(lab: &mut Lab) -> Result {
    lab.write(".env", &format!("REGISTRY={}\n", registry(lab)?))?;
    lab.write("token.txt", "s3cret\n")?;
    lab.write("compose.yaml", COMPOSE)?;
    let said = lab.up()?;
    ensure!(http::get(8080, "/")?.body == "nginx 1\n", "the published port answers; up said {said}");
    ensure!(http::get(8080, "/extra")?.body == "from compose\n", "the config is in force");
    let inside = |script: &str| lab.ok(&["exec", "web", "--", "bash", "-c", script]);
    // by the service's name and by the container's
    for name in ["cache", "shop_cache"] {
        let pong = inside(&format!("exec 3<>/dev/tcp/{name}/6379; echo PING >&3; head -n1 <&3"))?;
        ensure!(pong.trim() == "+PONG", "PING to `{name}`: {pong:?}");
    }
    ensure!(inside("exec 3<>/dev/tcp/db/5432 && echo open")?.trim() == "open", "the database is reached by name");
    let of_cache = |script: &str| lab.ok(&["exec", "cache", "--", "bash", "-c", script]);
    let hosts = of_cache("cat /etc/hosts /etc/resolv.conf; ulimit -Sn")?;
    let gateway = hosts.lines().find_map(|line| line.strip_suffix("\thost.docker.internal")).unwrap_or_default();
    ensure!(gateway.starts_with("10.") && gateway.ends_with(".1"), "the host's own address: {hosts}");
    ensure!(hosts.contains("192.0.2.7\telsewhere") && hosts.contains("ndots:0 ndots:2"), "names: {hosts}");
    ensure!(hosts.trim_end().ends_with("2000"), "open files: {hosts}");
    wait_for("the service in the other's network has asked it at its own address", SOON, || {
        let said = lab.ok(&["logs", "cache", "-c", "beside"])?;
        ensure!(said.contains("+PONG"), "{said}");
        Ok(())
    })?;
    ensure!(inside("cat /run/secrets/token")?.trim() == "s3cret", "the secret is a file");
    ensure!(inside("echo $GREETING")?.trim() == "hello", "a default of a variable");
    let psql = lab.ok(&["exec", "db", "--", "psql", "-U", "postgres", "-Atc", "select 1"])?;
    ensure!(psql.trim() == "1", "select: {psql:?}");
    // what has ended and has no restart policy is left so, and is not a failure
    wait_for("the service that ends has ended", SOON, || {
        let once = lab.object("app/once")?;
        ensure!(once["phase"] == "completed" && once["restarts"] == 1, "{once}");
        Ok(())
    })?;
    ensure!(lab.ok(&["logs", "once"])?.contains("nobody was here"), "its output is kept");
    // as `docker compose`: the logs of everything, each line with its replica; `up -d` of what runs; `ps`
    let all = lab.ok(&["logs"])?;
    ensure!(all.lines().any(|line| line.starts_with("once-1") && line.ends_with("nobody was here")), "{all}");
    ensure!(all.lines().any(|line| line.starts_with("db-1")), "{all}");
    lab.ok(&["up", "-d", &lab.manifests.to_string_lossy()])?;
    let listed = lab.ok(&["ps"])?;
    ensure!(["web-1", "db-1", "cache-1"].iter().all(|replica| listed.contains(replica)), "{listed}");
    ensure!(lab.object("job/setup")?["phase"] == "completed", "what others waited for has completed");
    let plan = lab.ok(&["plan", &lab.manifests.to_string_lossy(), "-o", "json"])?;
    let plan: serde_json::Value = serde_json::from_str(&plan).map_err(|error| error.to_string())?;
    ensure!(plan["plan"]["steps"].as_array().is_some_and(Vec::is_empty), "a converged project plans {plan}");
    lab.ok(&["down", &lab.manifests.to_string_lossy()])?;
    lab.nothing_is_left()
}

const KUBERNETES: &str = r#"
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: site}
  data:
    extra.conf: |
      location = /extra { return 200 "from kubernetes\n"; }
- apiVersion: v1
  kind: Secret
  metadata: {name: token}
  stringData: {value: s3cret}
- apiVersion: v1
  kind: PersistentVolumeClaim
  metadata: {name: data}
  spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Service
metadata: {name: frontend}
spec:
  type: LoadBalancer
  selector: {app: guestbook, tier: frontend}
  ports: [{port: 8081, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: redis-leader}
spec:
  selector: {app: redis}
  ports: [{port: 6379}]
"#;

const WORKLOADS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: guestbook, tier: frontend}}
  template:
    metadata: {labels: {app: guestbook, tier: frontend}}
    spec:
      containers:
      - name: nginx
        image: REGISTRY/nginx:1
        ports: [{name: http, containerPort: 80}]
        env:
        - {name: TOKEN, valueFrom: {secretKeyRef: {name: token, key: value}}}
        - {name: STACK, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
        resources: {limits: {memory: 128Mi, cpu: 500m}}
        volumeMounts: [{name: site, mountPath: /etc/nginx/site.d}]
      volumes: [{name: site, configMap: {name: site}}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: redis}
spec:
  selector: {matchLabels: {app: redis}}
  serviceName: redis-leader
  template:
    metadata: {labels: {app: redis}}
    spec:
      containers:
      - name: redis
        image: REGISTRY/redis:7
        ports: [{containerPort: 6379}]
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
"#;

fn kubernetes_objects_run(lab: &mut Lab) -> Result {
    // in two files: references go across
    lab.write("objects.yaml", KUBERNETES)?;
    lab.write("workloads.yaml", &WORKLOADS.replace("REGISTRY", &registry(lab)?))?;
    lab.up()?;
    ensure!(lab.object("app/web")?["ready"] == 3, "three replicas");
    ensure!(http::get(8081, "/")?.body == "nginx 1\n", "the LoadBalancer's port answers");
    ensure!(http::get(8081, "/extra")?.body == "from kubernetes\n", "the ConfigMap is in force");
    let inside = |script: &str| lab.ok(&["exec", "web", "--", "bash", "-c", script]);
    for name in ["redis-leader", "redis-leader.shop.svc.cluster.local", "redis"] {
        let pong = inside(&format!("exec 3<>/dev/tcp/{name}/6379; echo PING >&3; head -n1 <&3"))?;
        ensure!(pong.trim() == "+PONG", "PING to `{name}`: {pong:?}");
    }
    ensure!(inside("echo $TOKEN $STACK")?.trim() == "s3cret shop", "the environment has secret and namespace");
    let plan = lab.ok(&["plan", &lab.manifests.to_string_lossy(), "-o", "json"])?;
    let plan: serde_json::Value = serde_json::from_str(&plan).map_err(|error| error.to_string())?;
    ensure!(plan["plan"]["steps"].as_array().is_some_and(Vec::is_empty), "a converged stack plans {plan}");
    // a Service is an object of its own: a file that does not parse does not take its name or port away
    lab.write("objects.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: frontend\n")?;
    let refused = lab.boxship(&["up", &lab.manifests.to_string_lossy()]);
    ensure!(!refused.status.success(), "a broken file is refused");
    ensure!(http::get(8081, "/")?.body == "nginx 1\n", "the port is as it was");
    lab.write("objects.yaml", KUBERNETES)?;
    lab.ok(&["down", &lab.manifests.to_string_lossy()])?;
    lab.nothing_is_left()
}
