# shellcheck shell=bash disable=SC2034,SC2154
# What xfstests' functions have for each file system that they know, for tarnfs. tests/xfstests/run appends it to the
# common/rc and common/attr that its tests see, so that these take the place of those there.

# A volume smaller than the scratch device. Blocks have one size, whatever the test would like.
_try_scratch_mkfs_sized() {
  local size_bytes=$1
  [[ $size_bytes =~ ^[0-9]+$ ]] || _notrun "error: _scratch_mkfs_sized: fs size \"$size_bytes\" not an integer."
  shift 2 2>/dev/null || shift
  _check_minimal_fs_size "$size_bytes"
  [ "$size_bytes" -le "$(blockdev --getsize64 "$SCRATCH_DEV")" ] || _notrun "Scratch device too small"
  # shellcheck disable=SC2086  # options are words
  $MKFS_PROG -t "$FSTYP" $MKFS_OPTIONS -s "$size_bytes" "$@" "$SCRATCH_DEV"
}

# Names are bytes without a meaning, but for / and 0.
_require_names_are_bytes() {
  return 0
}

# Seconds of 64 bits with a sign.
_filesystem_timestamp_range() {
  echo "$((1 << 63)) $(((1 << 63) - 1))"
}

# FUSE passes on an ACL of at most one page: a header of 4 bytes, and 8 for each entry.
_acl_get_max() {
  echo "$(((4096 - 4) / 8))"
}

# A read-only mount does in memory again what the journal has. So it needs no device that can be written, which is all
# that generic/050 asks this for.
_has_metadata_journaling() {
  [[ $0 != */generic/050 ]]
}

# df shows what is mounted from a block device as fuseblk, whatever mount(8) was told.
_fs_type() {
  [ $# -eq 1 ] || _exit 1
  _df_device "$1" | $AWK_PROG '{ print $2 }' | sed -e 's/fuseblk/fuse/'
}

# findmnt too.
_shown_types() {
  local type=${1:-$FSTYP}
  [ "$type" = "$FSTYP" ] && type+=,${FSTYP/fuse/fuseblk}
  echo "$type"
}

_is_dev_mounted() {
  findmnt -rncv -S "$1" -t "$(_shown_types "${2:-}")" -o TARGET | head -1
}

_is_dir_mountpoint() {
  findmnt -rncv -t "$(_shown_types "${2:-}")" -o TARGET "$1" | head -1
}
