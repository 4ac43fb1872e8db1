#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Unpack headers and libraries of another processor into FOLDER/root and write
# FOLDER/cross.ini for Meson. Packages are unpacked, not installed: what dpkg
# knows of this machine stays as it is. usage: make_root.sh arm64|armhf FOLDER
set -euo pipefail
architecture=$1 folder=$2
case $architecture in
arm64) cpu=aarch64 triplet=aarch64-linux-gnu emulator=qemu-aarch64 ;;
armhf) cpu=arm triplet=arm-linux-gnueabihf emulator=qemu-arm ;;
*)
  echo "make_root.sh: got $architecture, want arm64 or armhf" >&2
  exit 1
  ;;
esac
mkdir -p "$folder"
root=$(realpath "$folder")/root
packages=libc6-dev,libsodium-dev,libmsgpack-dev,libjsmn-dev,libgcc-s1

# A root of another list is an old one.
if [ "$(cat "$root/complete" 2>/dev/null)" != "$packages" ]; then
  rm -rf "$root"
  # The mirror of this machine's own packages, in either form of apt's sources:
  # not every mirror has updates of every processor, which mmdebstrap would ask
  # for without one.
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list \
    /etc/apt/sources.list.d/*.sources 2>/dev/null | awk '
    $1 == "deb" { sub(/\[[^]]*\] */, ""); if ($3 == "bookworm") print $2 }
    $1 == "URIs:" { uri = $2 }
    $1 == "Suites:" && / bookworm( |$)/ { print uri }' | sed -n 1p) || true
  mmdebstrap --quiet --variant=extract --architectures="$architecture" \
    --aptopt='Acquire::Retries "3"' \
    --include="$packages" \
    bookworm "$root" ${mirror:+"$mirror"}
  echo "$packages" >"$root/complete"
fi

libraries=$root/usr/lib/$triplet
cat >"$folder/cross.ini" <<TEXT
[binaries]
c = '$triplet-gcc'
ar = '$triplet-ar'
strip = '$triplet-strip'
pkgconfig = 'pkg-config'
exe_wrapper = ['$emulator', '-L', '$root']

[built-in options]
c_args = ['--sysroot=$root']
c_link_args = ['--sysroot=$root', '-Wl,-rpath-link,$libraries',
  '-Wl,-rpath-link,$root/lib/$triplet']

[properties]
sys_root = '$root'
pkg_config_libdir = '$libraries/pkgconfig:$root/usr/share/pkgconfig'

[host_machine]
system = 'linux'
cpu_family = '$cpu'
cpu = '$cpu'
endian = 'little'
TEXT
