// What a new view of a mirror changes of the one before, and who is told.
//
// Purpose: whoever keeps answers of a file system that changes by itself (a mount: the kernel keeps names, attributes
// and content) has to give up exactly those that are not true any more.
//
// The order of events at each change, from one thread:
//   1. prepare(): from now on no answer may be kept. Returns when the answers that may be kept have been given.
//   2. the difference between the two views is found, among what was handed out (lookup counts) alone
//   3. forget(): what the new view changes is given up. What is asked for meanwhile is answered from the old view.
//   4. the view changes
//   5. finish(): answers may be kept again.
// So nobody who has seen something of the new view is given anything that it has changed.
//
// Thread safety: a ViewListener is called by one thread; the change is a value.
// Ownership: is_known refers to the volume and must not be called after its end.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/types.h"
#include "fs/tree/range_set.h"

namespace tarnfs {

struct ViewChange {
  struct Inode {
    InodeNumber number;
    RangeSet pages;  // whose content may differ, as far as kEndOfFile; its attributes and ACLs may differ anyway
  };
  struct Name {
    InodeNumber directory;
    std::string name;
    bool is_new = false;  // the old view has no such name
  };
  std::vector<Inode> inodes;
  std::vector<Name> names;
  bool all_names = false;  // every name may lead elsewhere, not only those above
  // Whether somebody may have been told of an inode, at the moment of the call.
  std::function<bool(InodeNumber)> is_known;
};

class ViewListener {
 public:
  virtual ~ViewListener() = default;
  // Whether forget() can give up all names without being told them.
  virtual bool forgets_all_names() const = 0;
  virtual void prepare() = 0;
  // Waits for a bounded time; what could not be given up by then is given up later.
  virtual void forget(ViewChange change) = 0;
  virtual void finish() = 0;
};

}  // namespace tarnfs
