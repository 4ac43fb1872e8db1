#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Run the README's two commands as a newcomer would: in a fresh Debian 12 root
# with git and certificates only, on a clone of this repository.
# usage: fresh_root.sh [FOLDER]   (root rights and the package mmdebstrap)
set -euo pipefail
cd "$(dirname "$0")/../.."
root=${1:-$(mktemp -d)}
log=$root.log

if [ ! -e "$root/etc/debian_version" ]; then
  mkdir -p "$root"
  mmdebstrap --quiet --variant=minbase --include=git,ca-certificates bookworm \
    "$root"
fi
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
# What a proxy or a mirror of this network needs, if anything.
for file in /etc/apt/apt.conf.d/*; do
  ! grep -qsE '^[[:space:]]*Acquire::(http|Check)' "$file" ||
    cp "$file" "$root/etc/apt/apt.conf.d/"
done
rm -rf "$root/libfl"
git clone --quiet --no-hardlinks . "$root/libfl"

inside() {
  chroot "$root" env -i HOME=/root TERM=dumb PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    sh -c "cd /libfl && $1"
}

cleanup() {
  for folder in dev/pts dev proc sys; do
    mountpoint -q "$root/$folder" && umount -l "$root/$folder"
  done
  return 0
}
trap cleanup EXIT
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --make-rslave "$root/dev"

{
  echo "\$ ./examples/quickstart"
  inside ./examples/quickstart
  echo "\$ ./tests/run"
  inside ./tests/run
} 2>&1 | tee "$log"
echo "transcript: $log"
