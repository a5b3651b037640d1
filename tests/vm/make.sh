#!/usr/bin/env bash
# make.sh OUT PROGRAM…: makes what a virtual machine needs to boot on Debian's own kernel: OUT/vmlinuz and OUT/initrd
# (busybox, the modules a container host loads, the programs, our init). The kernel's package is kept in OUT.
# Needs: apt-get, dpkg, cpio, depmod, strip, busybox-static. No network beyond the package mirror.
set -euo pipefail
out=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
cd "$out"

if [ ! -e vmlinuz ]; then
  package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
  [ -n "$package" ] || { echo "apt knows no linux-image-cloud-amd64: run apt-get update" >&2; exit 1; }
  timeout 120 apt-get download -q "$package" >&2
  rm -rf kernel
  dpkg -x "$package"_*.deb kernel
  rm -f "$package"_*.deb
  depmod -b kernel "$(basename kernel/lib/modules/*)"
  cp kernel/boot/vmlinuz-* vmlinuz.new
  mv vmlinuz.new vmlinuz # last: it says that all is there
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,tmp,disk,etc,lib/modules}
# what init loads
version=$(basename kernel/lib/modules/*)
for module in virtio_pci virtio_blk overlay bridge veth nft_chain_nat nft_masq nft_ct nft_socket nft_meta_bridge nft_nat nft_numgen nft_reject_inet nf_conntrack_netlink; do
  modprobe -d "$PWD/kernel" -S "$version" --show-depends "$module" | sed -n 's/^insmod //p'
done | sort -u | while read -r file; do
  mkdir -p "$(dirname "$root/${file#"$PWD/kernel/"}")"
  cp "$file" "$root/${file#"$PWD/kernel/"}"
done
cp kernel/lib/modules/"$version"/modules.{order,builtin} "$root/lib/modules/$version/"
depmod -b "$root" "$version"
cp "$(command -v busybox)" "$root/bin/busybox"
for applet in $("$root/bin/busybox" --list); do
  [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
ln -s ../bin/busybox "$root/sbin/modprobe"
for program; do # cargo's names end in a hash
  name=$(basename "$program")
  strip -o "$root/bin/${name%-*}" "$program"
done
cp "$here/init" "$root/init"
chmod 755 "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet) > initrd # unpacking a compressed one takes longer than reading this
