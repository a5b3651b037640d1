#!/usr/bin/env bash
# make.sh OUT BOXSHIP: builds what a virtual machine needs to boot BOXSHIP on Debian's own kernel: OUT/vmlinuz,
# OUT/initrd (busybox, the modules a container host loads, the binary, our init). The kernel is cached in OUT.
# Needs: apt-get, dpkg, cpio, gzip, depmod, busybox-static. No network beyond the package mirror.
set -euo pipefail
out=$1 boxship=$2
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
cd "$out"

if [ ! -e vmlinuz ]; then
  package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
  [ -n "$package" ] || { echo "apt knows no linux-image-cloud-amd64: run apt-get update" >&2; exit 1; }
  apt-get download -q "$package" >&2
  rm -rf kernel && dpkg -x "$package"_*.deb kernel && rm -f "$package"_*.deb
  cp kernel/boot/vmlinuz-* vmlinuz
fi

version=$(basename kernel/lib/modules/*)
modules=kernel/lib/modules/$version/kernel
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,tmp,disk,etc,lib/modules/"$version"/kernel}
for tree in drivers/block/virtio_blk.ko drivers/virtio drivers/net/veth.ko fs/overlayfs lib net/802 net/llc net/bridge \
  net/netfilter net/ipv4/netfilter net/ipv6/netfilter crypto; do
  if [ -e "$modules/$tree" ]; then
    mkdir -p "$root/lib/modules/$version/kernel/$(dirname "$tree")"
    cp -a "$modules/$tree" "$root/lib/modules/$version/kernel/$tree"
  fi
done
cp kernel/lib/modules/"$version"/modules.{order,builtin} "$root/lib/modules/$version/"
depmod -b "$root" "$version"
cp /bin/busybox "$root/bin/busybox"
"$root/bin/busybox" --install -s /dev/null 2>/dev/null || true
for applet in sh mount umount modprobe mkdir ls cat sync reboot wget ip sleep grep sed head tail rm ps kill dmesg; do
  ln -sf busybox "$root/bin/$applet"
done
ln -sf ../bin/busybox "$root/sbin/modprobe"
cp "$boxship" "$root/bin/boxship"
cp "$here/init" "$root/init"
chmod 755 "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) > initrd
