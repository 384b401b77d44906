#include "fs/fuse/errno_map.h"

#include <cerrno>

namespace tarnfs {

// No default: the compiler says which code is missing.
int errno_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kIo:
    case ErrorCode::kCorrupt:
    case ErrorCode::kNeedsBlock:
    case ErrorCode::kWouldWait:
    case ErrorCode::kDisconnected:
    case ErrorCode::kIncompatible:
      return EIO;
    case ErrorCode::kNoSpace:
      return ENOSPC;
    case ErrorCode::kNotFound:
      return ENOENT;
    case ErrorCode::kExists:
      return EEXIST;
    case ErrorCode::kNotDirectory:
      return ENOTDIR;
    case ErrorCode::kIsDirectory:
      return EISDIR;
    case ErrorCode::kNotEmpty:
      return ENOTEMPTY;
    case ErrorCode::kInvalid:
    case ErrorCode::kUsage:
      return EINVAL;
    case ErrorCode::kReadOnly:
      return EROFS;
    case ErrorCode::kNotPermitted:
      return EPERM;
    case ErrorCode::kNameTooLong:
      return ENAMETOOLONG;
    case ErrorCode::kTooManyLinks:
      return EMLINK;
    case ErrorCode::kFileTooBig:
      return EFBIG;
    case ErrorCode::kBusy:
      return EBUSY;
    case ErrorCode::kStale:
      return ESTALE;
    case ErrorCode::kNoAttribute:
      return ENODATA;
    case ErrorCode::kRange:
      return ERANGE;
    case ErrorCode::kTooBig:
      return E2BIG;
    case ErrorCode::kUnsupported:
      return EOPNOTSUPP;
    case ErrorCode::kRefused:
      return EACCES;
    case ErrorCode::kTimeout:
      return ETIMEDOUT;
    case ErrorCode::kCanceled:
      return ECANCELED;
    case ErrorCode::kNoData:
      return ENXIO;
  }
  return EIO;
}

}  // namespace tarnfs
