#!/bin/sh
# Makes seeds for ext4_mount_walk: small images of each kind, with a few files. Needs e2fsprogs.
set -eu
cd "$(dirname "$0")"
corpus=corpus/ext4_mount_walk
mkdir -p "$corpus"
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/dir/inner"
echo content > "$tree/file"
head -c 9000 /dev/zero | tr '\0' x > "$tree/dir/larger"
ln -s file "$tree/fast"
ln -s "$(printf 'long/%.0s' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)" "$tree/slow"
for i in $(seq 60); do : > "$tree/dir/inner/name-$i"; done
make() {
    rm -f "$corpus/$1"
    /usr/sbin/mke2fs -q -F -b 1024 -d "$tree" $3 "$corpus/$1" "$2"
}
make ext2 192k "-t ext2 -N 128"
make ext4-plain 192k "-t ext4 -N 128 -O ^has_journal,^metadata_csum"
make ext4-sums 192k "-t ext4 -N 128 -O ^has_journal"
make ext4-journal 2600k "-t ext4 -N 128 -J size=1 -O ^metadata_csum"
