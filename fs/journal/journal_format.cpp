#include "fs/journal/journal_format.h"

#include <sys/stat.h>

namespace tarnfs {

JournalPosition journal_start_of(const RootBlock& root) {
  return {root.journal_sequence, root.journal_block, root.journal_chain};
}

void set_journal_start(RootBlock& root, const JournalPosition& position) {
  root.journal_sequence = position.sequence;
  root.journal_block = position.block;
  root.journal_chain = position.chain;
}

JournalAttributes journal_attributes_of(const InodeRecord& record) {
  JournalAttributes attributes;
  attributes.mode = record.mode;
  attributes.uid = record.uid;
  attributes.gid = record.gid;
  attributes.flags = record.flags;
  attributes.size_bytes = record.size_bytes;
  attributes.atime_seconds = record.atime_seconds;
  attributes.mtime_seconds = record.mtime_seconds;
  attributes.ctime_seconds = record.ctime_seconds;
  attributes.btime_seconds = record.btime_seconds;
  attributes.atime_nanoseconds = record.atime_nanoseconds;
  attributes.mtime_nanoseconds = record.mtime_nanoseconds;
  attributes.ctime_nanoseconds = record.ctime_nanoseconds;
  attributes.btime_nanoseconds = record.btime_nanoseconds;
  attributes.device = record.device;
  return attributes;
}

void apply_journal_attributes(const JournalAttributes& attributes, InodeRecord& record) {
  record.mode = attributes.mode;
  record.uid = attributes.uid;
  record.gid = attributes.gid;
  record.flags = attributes.flags;
  if (!S_ISDIR(attributes.mode)) record.size_bytes = attributes.size_bytes;
  record.atime_seconds = attributes.atime_seconds;
  record.mtime_seconds = attributes.mtime_seconds;
  record.ctime_seconds = attributes.ctime_seconds;
  record.btime_seconds = attributes.btime_seconds;
  record.atime_nanoseconds = attributes.atime_nanoseconds;
  record.mtime_nanoseconds = attributes.mtime_nanoseconds;
  record.ctime_nanoseconds = attributes.ctime_nanoseconds;
  record.btime_nanoseconds = attributes.btime_nanoseconds;
  record.device = attributes.device;
}

}  // namespace tarnfs
