#!/usr/bin/env bash
# Makes real images from Debian's own packages and keeps them in a directory, for the tests that run on real input.
#
#   tests/images/make.sh [DIR]        DIR defaults to target/boxship-images
#
# DIR/oci       an OCI image layout: base, nginx-1, nginx-2, nginx-bad, redis-7, redis-user, postgres-15, busybox-1 …
# DIR/registry  the same images as storage of Debian's docker-registry; `registry.sh` serves it on loopback
# DIR/stamp     hash of this script: a second call with the same script is a matter of milliseconds
#
# All images of one kind share one base layer. Needs root, apt's mirrors, and the packages `.ci/run` installs
# (mmdebstrap umoci skopeo docker-registry busybox-static jq zstd curl). Takes about a minute and a half the first time.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-$here/../../target/boxship-images}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

exec 9>"$dir/lock"
flock 9
stamp=$(cat "$here/make.sh" "$here/registry.sh" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$dir/stamp" 2>/dev/null)" = "$stamp" ]; then
    echo "images: cached in $dir"
    exit 0
fi

missing=()
for tool in mmdebstrap umoci skopeo docker-registry busybox jq zstd; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
[ ${#missing[@]} = 0 ] || { echo "images: not made, these programs are missing: ${missing[*]} (.ci/run installs them)" >&2; exit 3; }
[ "$(id -u)" = 0 ] || { echo "images: not made, root is needed to build root file systems" >&2; exit 3; }

work=$(mktemp -d "$dir/work.XXXXXX")
cleanup() {
    for sub in proc dev; do
        mountpoint -q "$work/bundle/rootfs/$sub" && umount "$work/bundle/rootfs/$sub"
    done
    rm -rf "$work"
}
trap cleanup EXIT
say() { printf 'images: %-42s %4ss\n' "$1" "$SECONDS"; }

layout=$dir/oci
rm -rf "$layout" "$dir/registry" "$dir/stamp"
umoci init --layout "$layout"

# --- the base: Debian's smallest root file system with apt, one layer -------------------------------------------
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
sources=()
[ -f /etc/apt/sources.list.d/debian.sources ] && sources=(/etc/apt/sources.list.d/debian.sources)
slim=()
for tree in doc man locale info lintian; do slim+=(--dpkgopt="path-exclude=/usr/share/$tree/*"); done
mmdebstrap --quiet --mode=root --variant=minbase --aptopt='Acquire::Languages "none"' "${slim[@]}" \
    "$suite" "$work/base.tar" "${sources[@]}"
umoci new --image "$layout:base"
umoci raw add-layer --image "$layout:base" "$work/base.tar"
umoci config --image "$layout:base" --config.cmd /bin/bash \
    --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
say base

# --- helpers -----------------------------------------------------------------------------------------------------
open_image() { # open_image FROM: unpacks it to $work/bundle
    rm -rf "$work/bundle"
    umoci unpack --image "$layout:$1" "$work/bundle"
    root=$work/bundle/rootfs
}
seal_image() { # seal_image TAG: what changed since open_image becomes one layer of TAG
    umoci repack --image "$layout:$1" "$work/bundle"
}
# install PACKAGE…: with the image's own apt, leaving no lists, caches or logs behind
install() {
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    mount -t proc proc "$root/proc"
    mount --bind /dev "$root/dev"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C \
        sh -ec "apt-get -qq update; apt-get -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends install $*; apt-get clean" \
        >"$work/apt.log" 2>&1 || { tail -n 30 "$work/apt.log" >&2; exit 1; }
    umount "$root/proc" "$root/dev"
    rm -rf "$root/usr/sbin/policy-rc.d" "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin \
        "$root"/var/log/{apt,dpkg.log,alternatives.log} "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old
    : >"$root/etc/resolv.conf"
}
# docker_field TAG JQ: sets a field of the image's config that OCI does not name but Docker writes (Healthcheck)
docker_field() {
    local manifest config new_config new_manifest file
    manifest=$(jq -r --arg tag "$1" \
        '.manifests[] | select(.annotations["org.opencontainers.image.ref.name"] == $tag) | .digest' "$layout/index.json")
    config=$(jq -r .config.digest "$layout/blobs/${manifest/:/\/}")
    jq -c "$2" "$layout/blobs/${config/:/\/}" >"$work/config"
    new_config=$(sha256sum <"$work/config" | cut -d' ' -f1)
    cp "$work/config" "$layout/blobs/sha256/$new_config"
    jq -c --arg digest "sha256:$new_config" --argjson size "$(stat -c %s "$work/config")" \
        '.config.digest = $digest | .config.size = $size' "$layout/blobs/${manifest/:/\/}" >"$work/manifest"
    new_manifest=$(sha256sum <"$work/manifest" | cut -d' ' -f1)
    cp "$work/manifest" "$layout/blobs/sha256/$new_manifest"
    jq -c --arg tag "$1" --arg digest "sha256:$new_manifest" --argjson size "$(stat -c %s "$work/manifest")" \
        '(.manifests[] | select(.annotations["org.opencontainers.image.ref.name"] == $tag)) |= (.digest = $digest | .size = $size)' \
        "$layout/index.json" >"$work/index"
    cp "$work/index" "$layout/index.json"
}
healthcheck() { # healthcheck TAG COMMAND: checked every second
    docker_field "$1" "$(jq -rn --arg command "$2" \
        '"(.config.Healthcheck) = " + ({Test: ["CMD-SHELL", $command], Interval: 1000000000, Timeout: 2000000000, StartPeriod: 5000000000, Retries: 3} | tojson)')"
}

# zstd_variant FROM TAG: the same image with its layers compressed by zstd
zstd_variant() {
    local manifest new_manifest digest blob
    manifest=$(jq -r --arg tag "$1" \
        '.manifests[] | select(.annotations["org.opencontainers.image.ref.name"] == $tag) | .digest' "$layout/index.json")
    cp "$layout/blobs/${manifest/:/\/}" "$work/manifest"
    for digest in $(jq -r '.layers[].digest' "$work/manifest"); do
        zcat "$layout/blobs/${digest/:/\/}" | zstd -q -3 >"$work/layer"
        blob=$(sha256sum <"$work/layer" | cut -d' ' -f1)
        jq -c --arg old "$digest" --arg new "sha256:$blob" --argjson size "$(stat -c %s "$work/layer")" \
            '(.layers[] | select(.digest == $old)) |= (.digest = $new | .size = $size | .mediaType = "application/vnd.oci.image.layer.v1.tar+zstd")' \
            "$work/manifest" >"$work/manifest.new"
        mv "$work/manifest.new" "$work/manifest"
        mv "$work/layer" "$layout/blobs/sha256/$blob"
    done
    new_manifest=$(sha256sum <"$work/manifest" | cut -d' ' -f1)
    cp "$work/manifest" "$layout/blobs/sha256/$new_manifest"
    jq -c --arg tag "$2" --arg digest "sha256:$new_manifest" --argjson size "$(stat -c %s "$work/manifest")" \
        '.manifests += [{mediaType: "application/vnd.oci.image.manifest.v1+json", digest: $digest, size: $size,
                         annotations: {"org.opencontainers.image.ref.name": $tag}}]' "$layout/index.json" >"$work/index"
    cp "$work/index" "$layout/index.json"
}

# --- nginx: 1 and 2 differ in one page, bad does not start -------------------------------------------------------
open_image base
install nginx-light
cat >"$root/etc/nginx/sites-available/default" <<'SITE'
server {
    listen 80 default_server;
    root /var/www/html;
    add_header X-Replica $hostname;
    include /etc/nginx/site.d/*.conf;
    location = /healthz { return 200 "ok\n"; }
    location = /slow { limit_rate 64k; }
    location / { try_files $uri $uri/ =404; }
}
SITE
mkdir -p "$root/etc/nginx/site.d"
rm -f "$root"/var/www/html/*
head -c 1048576 /dev/zero | tr '\0' 's' >"$root/var/www/html/slow"
ln -sf /dev/stdout "$root/var/log/nginx/access.log"
ln -sf /dev/stderr "$root/var/log/nginx/error.log"
seal_image nginx-common
umoci config --image "$layout:nginx-common" --config.entrypoint /usr/sbin/nginx --config.cmd=-g --config.cmd 'daemon off;' \
    --config.exposedports 80/tcp --config.stopsignal SIGQUIT
for tag in 1 2; do
    open_image nginx-common
    echo "nginx $tag" >"$root/var/www/html/index.html"
    seal_image "nginx-$tag"
    healthcheck "nginx-$tag" \
        "bash -c 'exec 3<>/dev/tcp/127.0.0.1/80 && printf \"GET /healthz HTTP/1.0\\r\\n\\r\\n\" >&3 && grep -q \"200 OK\" <&3'"
    say "nginx:$tag"
done
umoci tag --image "$layout:nginx-1" nginx-bad
umoci config --image "$layout:nginx-bad" --clear=config.entrypoint --clear=config.cmd \
    --config.entrypoint /bin/sh --config.cmd=-c --config.cmd 'echo "nginx: [emerg] this tag is broken" >&2; exit 1'
umoci rm --image "$layout:nginx-common"
zstd_variant nginx-1 nginx-zstd
say nginx:bad

# --- redis: starts as root and steps down, as the well-known image does; `user` is the same with USER set ----------
open_image base
install redis-server
cat >"$root/usr/local/bin/entrypoint" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$(id -u)" = 0 ]; then
    find . \! -user redis -exec chown redis '{}' +
    exec setpriv --reuid=redis --regid=redis --init-groups -- "$0" "$@"
fi
exec "$@"
SCRIPT
chmod 755 "$root/usr/local/bin/entrypoint"
mkdir "$root/data"
chroot "$root" chown redis:redis /data
seal_image redis-7
umoci config --image "$layout:redis-7" --config.entrypoint /usr/local/bin/entrypoint \
    --config.cmd redis-server --config.cmd=--dir --config.cmd /data --config.cmd=--bind --config.cmd 0.0.0.0 \
    --config.cmd=--protected-mode --config.cmd no --config.cmd=--appendonly --config.cmd yes \
    --config.cmd=--appendfsync --config.cmd always \
    --config.exposedports 6379/tcp --config.volume /data --config.workingdir /data
healthcheck redis-7 'redis-cli ping | grep -q PONG'
umoci tag --image "$layout:redis-7" redis-user
umoci config --image "$layout:redis-user" --config.user redis
say redis:7

# --- postgres: makes its cluster on first use -------------------------------------------------------------------
open_image base
mkdir -p "$root/etc/postgresql-common"
echo 'create_main_cluster = false' >"$root/etc/postgresql-common/createcluster.conf"
install postgresql
cat >"$root/usr/local/bin/entrypoint" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$(id -u)" = 0 ]; then
    chown postgres:postgres "$PGDATA" /run/postgresql
    chmod 700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --username=postgres --auth=trust --no-locale --encoding=UTF8 >/dev/null
    echo 'host all all all trust' >>"$PGDATA/pg_hba.conf"
fi
exec "$@"
SCRIPT
chmod 755 "$root/usr/local/bin/entrypoint"
mkdir -p "$root/var/lib/postgresql/data" "$root/run/postgresql"
chroot "$root" chown postgres:postgres /var/lib/postgresql/data /run/postgresql
version=$(ls "$root/usr/lib/postgresql")
seal_image postgres-15
umoci config --image "$layout:postgres-15" --config.entrypoint /usr/local/bin/entrypoint \
    --config.cmd postgres --config.cmd=-c --config.cmd 'listen_addresses=*' \
    --config.env "PATH=/usr/lib/postgresql/$version/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    --config.env PGDATA=/var/lib/postgresql/data --config.exposedports 5432/tcp --config.volume /var/lib/postgresql/data \
    --config.stopsignal SIGINT
healthcheck postgres-15 'pg_isready -q -U postgres'
say postgres:15

# --- busybox: one static program, 2 MB: for many replicas at once -------------------------------------------------
umoci new --image "$layout:busybox-1"
open_image busybox-1
mkdir -p "$root"/{bin,etc,tmp,root,www}
chmod 1777 "$root/tmp"
cp "$(command -v busybox)" "$root/bin/busybox"
"$root/bin/busybox" --list | while read -r applet; do [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"; done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
echo 'busybox 1' >"$root/www/index.html"
seal_image busybox-1
umoci config --image "$layout:busybox-1" --config.env PATH=/bin --config.cmd /bin/sh
say busybox:1

# --- the same images as a registry's storage --------------------------------------------------------------------
umoci gc --layout "$layout"
mkdir "$dir/registry"
port=$("$here/registry.sh" start "$dir/registry" "$work/registry")
push() { # push LAYOUT-TAG REPOSITORY:TAG [skopeo options]
    local from=$1 to=$2
    shift 2
    skopeo copy --quiet --dest-tls-verify=false "$@" "oci:$layout:$from" "docker://127.0.0.1:$port/$to"
}
for image in base-1:base nginx-1 nginx-2 nginx-bad nginx-zstd redis-7 redis-user postgres-15 busybox-1; do
    name=${image%%:*}
    push "${image##*:}" "debian/${name%-*}:${name##*-}"
done
push busybox-1 debian/busybox:docker --format v2s2
"$here/registry.sh" stop "$work/registry"
say registry

echo "$stamp" >"$dir/stamp"
say "done, in $dir"
